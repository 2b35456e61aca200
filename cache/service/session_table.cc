#include "cache/service/session_table.h"

#include "cache/client/protocol.h"
#include "store/base/limits.h"

namespace cairn::cache {

absl::Status ClientSession::CheckStagingRoom(uint64_t bytes) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return CheckStagingRoomLocked(bytes);
}

absl::Status ClientSession::CheckStagingRoomLocked(uint64_t bytes) const {
  if (bytes == 0 || bytes % kIoAlignment != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging.bytes: ", bytes, ", must be a positive multiple of ", kIoAlignment));
  }
  if (staging_.size() >= kStagingPiecesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("staging: ", kStagingPiecesMax, " pieces, which is the most a session has"));
  }
  if (bytes > kStagingBytesMax - staging_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat("staging: ", bytes, " bytes more than the ",
                                                     staging_bytes_, " there are would be over ",
                                                     kStagingBytesMax));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> ClientSession::AddStaging(store::SharedMemory memory) {
  std::lock_guard<std::mutex> lock(mutex_);
  CAIRN_RETURN_IF_ERROR(CheckStagingRoomLocked(memory.size()));
  staging_bytes_ += memory.size();
  staging_.push_back(std::move(memory));
  return static_cast<uint32_t>(staging_.size() - 1);
}

absl::StatusOr<std::span<const uint8_t>> ClientSession::StagingRange(uint32_t piece,
                                                                     uint64_t offset,
                                                                     uint64_t bytes) const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (piece >= staging_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging: piece ", piece, " of ", staging_.size()));
  }
  const std::span<const uint8_t> all = staging_[piece].bytes();
  if (bytes > all.size() || offset > all.size() - bytes) {
    return absl::InvalidArgumentError(absl::StrCat("staging_offset: ", offset, " + ", bytes,
                                                   " bytes in a piece of ", all.size()));
  }
  return all.subspan(offset, bytes);
}

std::shared_ptr<ClientSession> SessionTable::Add(SessionId core_id, bool same_host) {
  std::string token(kTokenBytes, '\0');
  std::lock_guard<std::mutex> lock(mutex_);
  random_.Fill({reinterpret_cast<uint8_t*>(token.data()), token.size()});
  auto session = std::make_shared<ClientSession>(core_id, token, same_host);
  sessions_[token] = session;
  return session;
}

void SessionTable::Remove(const std::string& token) {
  std::shared_ptr<ClientSession> last;  // unmapped after the lock
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = sessions_.find(token);
  if (it == sessions_.end()) return;
  last = std::move(it->second);
  sessions_.erase(it);
}

absl::StatusOr<std::shared_ptr<ClientSession>> SessionTable::Find(const std::string& token) const {
  if (token.size() != kTokenBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("token: ", token.size(), " bytes, must be exactly ", kTokenBytes));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = sessions_.find(token);
  if (it == sessions_.end()) {
    return absl::AbortedError("token: no such session is open; connect anew");
  }
  return it->second;
}

size_t SessionTable::size() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return sessions_.size();
}

}  // namespace cairn::cache
