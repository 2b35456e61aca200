#include "cache/client/attach_client.h"

#include <cstring>

#include "cache/client/attach_protocol.h"
#include "cache/client/protocol.h"

namespace cairn::cache {
namespace {

absl::Status Wrong(const std::string& what) {
  return absl::UnavailableError(absl::StrCat("the daemon's answer is wrong: attach: ", what));
}

}  // namespace

struct AttachClient::Reply {
  AttachAnswer answer;
  store::FileDescriptor descriptor;
  std::unique_ptr<store::Connection> connection;
};

absl::StatusOr<AttachClient::Reply> AttachClient::Ask(uint32_t kind, uint64_t bytes,
                                                      int descriptor) {
  AttachRequest request;
  request.kind = kind;
  request.bytes = bytes;
  static_assert(sizeof(request.token) == kTokenBytes);
  if (token_.size() != request.token.size()) return absl::InternalError("token size");
  std::memcpy(request.token.data(), token_.data(), request.token.size());

  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<store::Connection> connection,
                         door_.Connect(path_, timeout_));
  std::vector<uint8_t> raw(sizeof(request));
  std::memcpy(raw.data(), &request, sizeof(request));
  CAIRN_RETURN_IF_ERROR(connection->Send(raw, descriptor, timeout_));
  CAIRN_ASSIGN_OR_RETURN(store::SocketMessage message,
                         connection->Receive(sizeof(AttachAnswer), timeout_));
  Reply reply;
  if (message.bytes.size() != sizeof(AttachAnswer)) {
    return Wrong(absl::StrCat(message.bytes.size(), " bytes instead of ", sizeof(AttachAnswer)));
  }
  std::memcpy(&reply.answer, message.bytes.data(), sizeof(AttachAnswer));
  reply.descriptor = std::move(message.descriptor);
  if (reply.answer.magic != kAttachMagic || reply.answer.version != kAttachVersion) {
    return Wrong("magic or version");
  }
  const std::string text(reply.answer.message.data(),
                         ::strnlen(reply.answer.message.data(), reply.answer.message.size()));
  CAIRN_RETURN_IF_ERROR(StatusFromWire(reply.answer.code, text));
  reply.connection = std::move(connection);
  return reply;
}

absl::StatusOr<store::SharedMemory> AttachClient::TakeArena(uint64_t bytes) {
  CAIRN_ASSIGN_OR_RETURN(Reply reply, Ask(static_cast<uint32_t>(AttachKind::kArena), bytes, -1));
  if (!reply.descriptor.valid()) return Wrong("no descriptor came with it");
  if (reply.answer.bytes != bytes) {
    return Wrong(
        absl::StrCat("an arena of ", reply.answer.bytes, " bytes, registered were ", bytes));
  }
  absl::StatusOr<store::SharedMemory> arena =
      store::SharedMemory::MapReadOnly(std::move(reply.descriptor), bytes);
  if (!arena.ok() && arena.status().code() == absl::StatusCode::kInvalidArgument) {
    return Wrong(std::string(arena.status().message()));
  }
  return arena;
}

absl::StatusOr<store::GpuExport> AttachClient::TakeGpuPool(uint64_t bytes) {
  CAIRN_ASSIGN_OR_RETURN(Reply reply, Ask(static_cast<uint32_t>(AttachKind::kGpuPool), bytes, -1));
  if (reply.answer.bytes != bytes) {
    return Wrong(
        absl::StrCat("a GPU pool of ", reply.answer.bytes, " bytes, registered were ", bytes));
  }
  return store::GpuExport{std::move(reply.descriptor), reply.answer.gpu_handle, bytes};
}

absl::StatusOr<uint32_t> AttachClient::GiveStaging(int descriptor, uint64_t bytes) {
  CAIRN_ASSIGN_OR_RETURN(Reply reply,
                         Ask(static_cast<uint32_t>(AttachKind::kStaging), bytes, descriptor));
  return reply.answer.staging;
}

absl::StatusOr<std::unique_ptr<store::Connection>> AttachClient::OpenLookups() {
  CAIRN_ASSIGN_OR_RETURN(Reply reply, Ask(static_cast<uint32_t>(AttachKind::kLookups), 0, -1));
  return std::move(reply.connection);
}

}  // namespace cairn::cache
