#include "tools/cairnctl/admin_client.h"

#include <grpc/support/time.h>
#include <grpcpp/grpcpp.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "cache/client/protocol.h"

namespace cairn::ctl {
namespace {

void SetDeadline(grpc::ClientContext& context, absl::Duration timeout) {
  // Relative: a jump of the wall clock moves no deadline.
  context.set_deadline(gpr_time_from_millis(absl::ToInt64Milliseconds(timeout), GPR_TIMESPAN));
}

// As it came: unlike an engine, an operator wants the daemon's own code, NOT_FOUND included.
absl::Status StatusOf(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

template <typename Request, typename Response>
absl::StatusOr<Response> Call(v1::Admin::Stub& stub, absl::Duration timeout, const Request& request,
                              grpc::Status (v1::Admin::Stub::*method)(grpc::ClientContext*,
                                                                      const Request&, Response*)) {
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return StatusOf(status);
  return response;
}

}  // namespace

AdminClient::AdminClient(const std::string& socket, absl::Duration timeout)
    : stub_(v1::Admin::NewStub(
          grpc::CreateChannel(absl::StrCat("unix:", socket), grpc::InsecureChannelCredentials()))),
      timeout_(timeout) {}

absl::StatusOr<v1::VersionResponse> AdminClient::Version() {
  return Call(*stub_, timeout_, v1::VersionRequest(), &v1::Admin::Stub::Version);
}

absl::StatusOr<v1::StatsResponse> AdminClient::Stats() {
  return Call(*stub_, timeout_, v1::AdminStatsRequest(), &v1::Admin::Stub::Stats);
}

absl::StatusOr<v1::ListResponse> AdminClient::List(const v1::ListRequest& request) {
  return Call(*stub_, timeout_, request, &v1::Admin::Stub::List);
}

absl::StatusOr<v1::EvictResponse> AdminClient::Evict(const v1::EvictRequest& request) {
  return Call(*stub_, timeout_, request, &v1::Admin::Stub::Evict);
}

absl::StatusOr<v1::PinResponse> AdminClient::Pin(const std::string& digest, bool pin) {
  v1::PinRequest request;
  request.set_digest(digest);
  return Call(*stub_, timeout_, request, pin ? &v1::Admin::Stub::Pin : &v1::Admin::Stub::Unpin);
}

absl::StatusOr<v1::VerifyEvent> AdminClient::Verify(
    const v1::VerifyRequest& request, const std::function<void(const v1::VerifyEvent&)>& progress) {
  grpc::ClientContext context;
  const auto reader = stub_->Verify(&context, request);
  v1::VerifyEvent event;
  bool done = false;
  while (reader->Read(&event)) {
    if (event.done()) {
      done = true;
      break;
    }
    progress(event);
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return StatusOf(status);
  if (!done) return absl::UnavailableError("the daemon ended the verification before it was done");
  return event;
}

absl::Status AdminClient::Flush(absl::Duration deadline) {
  v1::FlushRequest request;
  request.set_deadline_millis(static_cast<uint32_t>(absl::ToInt64Milliseconds(deadline)));
  return Call(*stub_, deadline + timeout_, request, &v1::Admin::Stub::Flush).status();
}

absl::StatusOr<std::string> ParseDigestPrefix(const std::string& hex) {
  const bool digits = hex.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
  if (!digits || hex.size() < 2 * cache::kDigestPrefixBytesMin || hex.size() > 2 * Digest::kBytes ||
      hex.size() % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", hex,
        "' is no digest: give 64 hexadecimal digits, or an even number of its first 8 or more"));
  }
  return absl::HexStringToBytes(hex);
}

}  // namespace cairn::ctl
