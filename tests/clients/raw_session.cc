#include "tests/clients/raw_session.h"

#include <optional>
#include <utility>
#include <vector>

#include "cache/client/bulk_protocol.h"
#include "cache/client/protocol.h"
#include "tests/clients/prefixes.h"

namespace cairn::clients {
namespace {

constexpr absl::Duration kConnectMax = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::unique_ptr<RawSession>> RawSession::Open(const std::string& target) {
  std::unique_ptr<RawSession> session(new RawSession());
  session->target_ = target;
  session->stub_ =
      v1::Cache::NewStub(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()));
  v1::SessionRequest request;
  request.set_protocol_version(cache::kProtocolVersion);
  cache::EncodeLayout(ClientsSpec().layout, request.mutable_layout());
  session->events_ = session->stub_->Session(&session->context_, request);
  v1::SessionEvent event;
  if (!session->events_->Read(&event)) {
    const auto events = std::move(session->events_);
    return cache::FromGrpc(events->Finish());
  }
  session->registration_ = event.registration();
  const std::optional<Digest> root = Digest::FromBytes(event.registration().root());
  if (!root.has_value()) return absl::InternalError("the registration has no root");
  session->root_ = *root;
  return session;
}

RawSession::~RawSession() {
  if (events_ == nullptr) return;
  context_.TryCancel();
  events_->Finish();
}

v1::FetchRequest RawSession::FetchOf(uint64_t number, size_t blocks,
                                     absl::Duration deadline) const {
  v1::FetchRequest request;
  request.set_token(registration_.token());
  request.set_chain(cache::EncodeChain(ChainOf(root_, number, blocks)));
  request.set_checkpoint(true);
  request.set_deadline_millis(static_cast<uint32_t>(absl::ToInt64Milliseconds(deadline)));
  return request;
}

v1::ReleaseRequest RawSession::ReleaseOf(uint64_t lease) const {
  v1::ReleaseRequest request;
  request.set_token(registration_.token());
  request.add_leases(lease);
  return request;
}

absl::StatusOr<std::unique_ptr<store::ByteStream>> RawSession::BeginBulk(uint64_t number,
                                                                         absl::Duration deadline) {
  grpc::ClientContext context;
  v1::BulkResponse answer;
  const grpc::Status asked =
      stub_->FetchBulk(&context, FetchOf(number, kBlocks, deadline), &answer);
  if (!asked.ok()) return cache::FromGrpc(asked);
  CAIRN_ASSIGN_OR_RETURN(const store::HostPort at, store::ParseHostPort(target_));
  CAIRN_ASSIGN_OR_RETURN(
      std::unique_ptr<store::ByteStream> stream,
      store::TcpStreams().Connect(at.host, static_cast<uint16_t>(registration_.bulk_port()),
                                  kConnectMax));
  const cache::BulkPreamble preamble = cache::EncodeBulkPreamble(answer.ticket());
  CAIRN_ASSIGN_OR_RETURN(const size_t sent, stream->Send(preamble, kConnectMax));
  if (sent != preamble.size()) return absl::UnavailableError("the bulk port takes nothing");
  return stream;
}

}  // namespace cairn::clients
