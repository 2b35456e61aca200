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

std::shared_ptr<const uint8_t> CopyOf(std::span<const uint8_t> entry) {
  const auto bytes = std::make_shared<const std::vector<uint8_t>>(entry.begin(), entry.end());
  return std::shared_ptr<const uint8_t>(bytes, bytes->data());
}

}  // namespace

CudaCachedSession::CudaCachedSession(const KvLayout& layout, CudaSessions& sessions, int64_t slot,
                                     kernels::cuda::Stream stream, store::Gpu* gpu,
                                     int64_t staging_bytes)
    : layout_(layout),
      sessions_(sessions),
      slot_(slot),
      stream_(stream),
      gpu_(gpu),
      largest_entry_(std::max(layout.rows_entry_bytes(), layout.checkpoint_bytes())),
      staging_bytes_(std::max(staging_bytes, largest_entry_)) {}

void CudaCachedSession::Clear() {
  sessions_.set_position(slot_, 0);
  staged_blocks_ = 0;
}

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

absl::Status CudaCachedSession::Check(const StoredPrefix& prefix) const {
  if (prefix.checkpoint == nullptr) {
    return absl::FailedPreconditionError("the engine on the GPU cannot resume from rows alone");
  }
  const int64_t tokens = std::ssize(prefix.rows) * kBlock;
  if (tokens > sessions_.options().tokens_max) {
    return absl::OutOfRangeError(absl::StrCat(
        "a prefix of ", tokens, " tokens; the slot has room for ", sessions_.options().tokens_max));
  }
  return absl::OkStatus();
}

absl::Status CudaCachedSession::Arrive(Arriving& arriving) {
  if (copy_out_ != nullptr) CAIRN_RETURN_IF_ERROR(copy_out_->Copy());
  arriving.staged = 0;
  return Gather(arriving.copies);
}

absl::Status CudaCachedSession::OpenCopyOut() {
  if (copy_out_ != nullptr) return absl::OkStatus();
  // There an entry has its table behind it.
  const auto bytes = static_cast<uint64_t>(std::max(staging_bytes_, 2 * largest_entry_));
  CAIRN_ASSIGN_OR_RETURN(copy_out_, cache::GpuCopyOut::Create(*gpu_, bytes));
  return absl::OkStatus();
}

absl::Status CudaCachedSession::ReserveCopies() {
  CAIRN_ASSIGN_OR_RETURN(const std::span<uint8_t> staging, Staging());
  Copies rows, checkpoint;
  AddRows(0, TransferDirection::kToEntry, staging.data(), rows);
  AddCheckpoint(1, TransferDirection::kToEntry, staging.data(), checkpoint);
  // In pinned memory and where the device copied them, both full.
  const auto entries = static_cast<size_t>(
      2 * (staging_bytes_ / std::max<int64_t>(layout_.rows_entry_bytes(), 1)) + 2);
  CAIRN_ASSIGN_OR_RETURN(
      on_device_, DeviceBuffer<SegmentCopy>::Create(entries * rows.size() + checkpoint.size()));
  return absl::OkStatus();
}

absl::Status CudaCachedSession::Prepare() {
  if (gpu_ != nullptr) CAIRN_RETURN_IF_ERROR(OpenCopyOut());
  return ReserveCopies();
}

absl::StatusOr<bool> CudaCachedSession::DeviceReads(const cache::EntryView& entry) {
  if (entry.gpu == nullptr && !entry.pinned) return false;
  CAIRN_RETURN_IF_ERROR(OpenCopyOut());
  return copy_out_->CanRead(entry);
}

absl::StatusOr<uint8_t*> CudaCachedSession::TakeIn(const cache::EntryView& entry,
                                                   Arriving& arriving) {
  const int64_t bytes = std::ssize(entry.payload);
  if (arriving.device_may) {
    CAIRN_ASSIGN_OR_RETURN(const bool reads, DeviceReads(entry));
    if (reads) {
      if (!copy_out_->HasRoom(entry)) CAIRN_RETURN_IF_ERROR(Arrive(arriving));
      arriving.device_did = true;
      if (entry.gpu != nullptr) restored_.gpu_bytes += static_cast<uint64_t>(bytes);
      return copy_out_->Add(entry);
    }
  }
  CAIRN_ASSIGN_OR_RETURN(const std::span<uint8_t> staging, Staging());
  if (arriving.staged + bytes > std::ssize(staging)) CAIRN_RETURN_IF_ERROR(Arrive(arriving));
  const std::span<uint8_t> copy = staging.subspan(static_cast<size_t>(arriving.staged));
  CAIRN_RETURN_IF_ERROR(entry.CopyOut(copy));
  arriving.staged += Aligned(bytes);
  return copy.data();
}

absl::Status CudaCachedSession::RestoreAll(const StoredPrefix& prefix, Arriving& arriving) {
  if (copy_out_ != nullptr) copy_out_->Drop();  // what an error left
  restored_.gpu_bytes = 0;
  const int64_t blocks = std::ssize(prefix.rows);
  for (int64_t block = 0; block < blocks; ++block) {
    CAIRN_ASSIGN_OR_RETURN(uint8_t* const entry,
                           TakeIn(prefix.rows[static_cast<size_t>(block)], arriving));
    AddRows(block, TransferDirection::kFromEntry, entry, arriving.copies);
  }
  CAIRN_ASSIGN_OR_RETURN(uint8_t* const entry, TakeIn(*prefix.checkpoint, arriving));
  AddCheckpoint(blocks, TransferDirection::kFromEntry, entry, arriving.copies);
  CAIRN_RETURN_IF_ERROR(Arrive(arriving));
  sessions_.set_position(slot_, blocks * kBlock);
  return absl::OkStatus();
}

absl::Status CudaCachedSession::Restore(const StoredPrefix& prefix) {
  CAIRN_RETURN_IF_ERROR(Check(prefix));
  restored_ = {};
  staged_blocks_ = 0;
  Arriving arriving{.device_may = gpu_ != nullptr};
  const absl::Status restored = RestoreAll(prefix, arriving);
  if (!arriving.device_did || !absl::IsDataLoss(restored)) return restored;
  // What the device read may be damaged where host memory is not.
  ++restored_.checksum_failures;
  arriving = {};
  return RestoreAll(prefix, arriving);
}

absl::StatusOr<std::shared_ptr<const uint8_t>> CudaCachedSession::ShareRows(int64_t block) {
  CAIRN_ASSIGN_OR_RETURN(const std::span<uint8_t> staging, Staging());
  const int64_t bytes = layout_.rows_entry_bytes();
  if (block < staged_block_ || block >= staged_block_ + staged_blocks_) {
    const int64_t whole = position() / kBlock;
    staged_block_ = block;
    staged_blocks_ = 0;  // unless all goes well
    const int64_t count = std::min(whole - block, std::ssize(staging) / bytes);
    Copies copies;
    for (int64_t i = 0; i < count; ++i) {
      AddRows(block + i, TransferDirection::kToEntry, staging.data() + i * bytes, copies);
    }
    CAIRN_RETURN_IF_ERROR(Gather(copies));
    staged_blocks_ = count;
  }
  return CopyOf(staging.subspan(static_cast<size_t>((block - staged_block_) * bytes),
                                static_cast<size_t>(bytes)));
}

absl::StatusOr<std::shared_ptr<const uint8_t>> CudaCachedSession::ShareCheckpoint() {
  CAIRN_ASSIGN_OR_RETURN(const std::span<uint8_t> staging, Staging());
  staged_blocks_ = 0;
  Copies copies;
  AddCheckpoint(position() / kBlock, TransferDirection::kToEntry, staging.data(), copies);
  CAIRN_RETURN_IF_ERROR(Gather(copies));
  return CopyOf(staging.first(static_cast<size_t>(layout_.checkpoint_bytes())));
}

}  // namespace cairn::engine
