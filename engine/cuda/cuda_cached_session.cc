#include "engine/cuda/cuda_cached_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

using kernels::cuda::DeviceBuffer;
using kernels::cuda::PinnedBuffer;
using kernels::cuda::SegmentCopy;

constexpr auto kBlock = static_cast<int64_t>(kBlockTokens);
// Of entries in pinned memory: for the gather's words and the lines of a streaming copy.
constexpr int64_t kAlignment = 256;

constexpr int64_t Aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

CudaCachedSession::CudaCachedSession(const KvLayout& layout, CudaSessions& sessions, int64_t slot,
                                     kernels::cuda::Stream stream, int64_t staging_bytes)
    : layout_(layout),
      sessions_(sessions),
      slot_(slot),
      stream_(stream),
      staging_bytes_(
          std::max({staging_bytes, layout.rows_entry_bytes(), layout.checkpoint_bytes()})) {}

absl::StatusOr<std::span<uint8_t>> CudaCachedSession::Staging() {
  if (staging_.bytes().empty()) {
    CAIRN_ASSIGN_OR_RETURN(staging_, PinnedBuffer::Create(static_cast<size_t>(staging_bytes_)));
  }
  return staging_.bytes();
}

void CudaCachedSession::AddRows(int64_t block, TransferDirection direction, uint8_t* entry,
                                Copies& copies) const {
  for (int64_t layer = 0; layer < sessions_.layers(); ++layer) {
    AddRowsCopies(layout_, sessions_, layer, slot_, block, direction, entry, copies);
  }
}

void CudaCachedSession::AddCheckpoint(int64_t blocks, TransferDirection direction, uint8_t* entry,
                                      Copies& copies) const {
  for (int64_t layer = 0; layer < sessions_.layers(); ++layer) {
    AddCheckpointCopies(layout_, sessions_, layer, slot_, blocks, direction, entry, copies);
  }
}

absl::Status CudaCachedSession::Gather(Copies& copies) {
  if (on_device_.count() < copies.size()) {
    CAIRN_ASSIGN_OR_RETURN(on_device_, DeviceBuffer<SegmentCopy>::Create(copies.size()));
  }
  int64_t most = 0;
  for (const SegmentCopy& copy : copies) most = std::max(most, copy.bytes);
  CAIRN_RETURN_IF_ERROR(on_device_.WriteOn(stream_, copies));
  CAIRN_RETURN_IF_ERROR(
      kernels::cuda::CopySegments(stream_, on_device_.get(), std::ssize(copies), most));
  copies.clear();
  return kernels::cuda::Synchronize(stream_);
}

absl::Status CudaCachedSession::Restore(const StoredPrefix& prefix) {
  const int64_t blocks = std::ssize(prefix.rows);
  if (prefix.checkpoint == nullptr) {
    return absl::FailedPreconditionError("the engine on the GPU cannot resume from rows alone");
  }
  if (blocks * kBlock > sessions_.options().tokens_max) {
    return absl::OutOfRangeError(absl::StrCat("a prefix of ", blocks * kBlock,
                                              " tokens; the slot has room for ",
                                              sessions_.options().tokens_max));
  }
  CAIRN_ASSIGN_OR_RETURN(const std::span<uint8_t> staging, Staging());
  Copies copies;
  int64_t used = 0;
  // Where the entry's checked copy lies until the next gather.
  const auto take_in = [&](const cache::EntryView& entry) -> absl::StatusOr<uint8_t*> {
    const int64_t bytes = std::ssize(entry.payload);
    if (used + bytes > std::ssize(staging)) {
      CAIRN_RETURN_IF_ERROR(Gather(copies));
      used = 0;
    }
    const std::span<uint8_t> copy = staging.subspan(static_cast<size_t>(used));
    CAIRN_RETURN_IF_ERROR(entry.CopyOut(copy));
    used += Aligned(bytes);
    return copy.data();
  };
  for (int64_t block = 0; block < blocks; ++block) {
    CAIRN_ASSIGN_OR_RETURN(uint8_t* const entry, take_in(prefix.rows[static_cast<size_t>(block)]));
    AddRows(block, TransferDirection::kFromEntry, entry, copies);
  }
  CAIRN_ASSIGN_OR_RETURN(uint8_t* const entry, take_in(*prefix.checkpoint));
  AddCheckpoint(blocks, TransferDirection::kFromEntry, entry, copies);
  CAIRN_RETURN_IF_ERROR(Gather(copies));
  sessions_.set_position(slot_, blocks * kBlock);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const uint8_t>> CudaCachedSession::TakeOut(
    Copies copies, std::span<const uint8_t> entry) {
  CAIRN_RETURN_IF_ERROR(Gather(copies));
  const auto bytes = std::make_shared<const std::vector<uint8_t>>(entry.begin(), entry.end());
  return std::shared_ptr<const uint8_t>(bytes, bytes->data());
}

absl::StatusOr<std::shared_ptr<const uint8_t>> CudaCachedSession::ShareRows(int64_t block) {
  CAIRN_ASSIGN_OR_RETURN(const std::span<uint8_t> staging, Staging());
  Copies copies;
  AddRows(block, TransferDirection::kToEntry, staging.data(), copies);
  return TakeOut(std::move(copies), staging.first(static_cast<size_t>(layout_.rows_entry_bytes())));
}

absl::StatusOr<std::shared_ptr<const uint8_t>> CudaCachedSession::ShareCheckpoint() {
  CAIRN_ASSIGN_OR_RETURN(const std::span<uint8_t> staging, Staging());
  Copies copies;
  AddCheckpoint(position() / kBlock, TransferDirection::kToEntry, staging.data(), copies);
  return TakeOut(std::move(copies), staging.first(static_cast<size_t>(layout_.checkpoint_bytes())));
}

}  // namespace cairn::engine
