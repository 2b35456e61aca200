#include "cache/client/protocol.h"

#include "absl/strings/str_cat.h"

namespace cairn::cache {
namespace {

std::string Cut(std::string text) {
  if (text.size() > kErrorTextBytesMax) text.resize(kErrorTextBytesMax);
  return text;
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      Cut(std::string(status.message())));
}

absl::Status FromGrpc(const grpc::Status& status) {
  const std::string text = Cut(status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return absl::OkStatus();
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::NOT_FOUND:  // operators only: a digest that they named
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::DATA_LOSS:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::PERMISSION_DENIED:
      return absl::Status(static_cast<absl::StatusCode>(status.error_code()), text);
    case grpc::StatusCode::UNIMPLEMENTED:
      return absl::FailedPreconditionError(
          absl::StrCat("the peer does not know this call; is it cairnd of this version? ", text));
    default:
      return absl::UnavailableError(absl::StrCat(
          "the call ended with code ", static_cast<int>(status.error_code()), ": ", text));
  }
}

absl::Status StatusFromWire(uint32_t code, const std::string& message) {
  if (code == 0) return absl::OkStatus();
  const bool known = code <= static_cast<uint32_t>(absl::StatusCode::kUnauthenticated);
  return absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kInternal,
                      Cut(message));
}

void EncodeLayout(const LayoutDescriptor& layout, v1::LayoutDescriptor* out) {
  out->set_version(layout.version);
  out->set_model(layout.model);
  out->set_numerics(layout.numerics);
  out->set_weights(EncodeDigest(layout.weights));
  for (const LayoutComponent& component : layout.components) {
    v1::LayoutComponent* to = out->add_components();
    to->set_name(component.name);
    to->set_scope(static_cast<uint32_t>(component.scope));
    to->set_tokens_per_row(component.tokens_per_row);
    to->set_rows(component.rows);
    to->set_row_bytes(component.row_bytes);
    to->set_scale_bytes(component.scale_bytes);
    to->set_encoding(component.encoding);
  }
}

std::string EncodeChain(std::span<const Digest> chain) {
  static_assert(sizeof(Digest) == Digest::kBytes);
  return std::string(reinterpret_cast<const char*>(chain.data()), chain.size_bytes());
}

std::string EncodeDigest(const Digest& digest) { return std::string(digest.AsView()); }

}  // namespace cairn::cache
