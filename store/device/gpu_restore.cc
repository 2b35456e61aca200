#include "store/device/gpu_restore.h"

#include <atomic>
#include <cstring>

namespace cairn::store {
namespace {

constexpr uint64_t kTableOffset = kGatherPartsMax * sizeof(uint32_t);  // behind a word a step

}  // namespace

absl::StatusOr<std::unique_ptr<GpuRestore>> GpuRestore::Create(Gpu& gpu, size_t sources_max) {
  if (sources_max == 0 || sources_max > kGatherSourcesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a restore of ", sources_max, " entries, must be 1 to ", kGatherSourcesMax));
  }
  auto restore = std::unique_ptr<GpuRestore>(new GpuRestore(gpu, sources_max));
  CAIRN_RETURN_IF_ERROR(restore->Open());
  return restore;
}

absl::Status GpuRestore::Open() {
  staged_ = IoBuffer(kTableOffset + sources_max_ * sizeof(const uint8_t*));
  CAIRN_ASSIGN_OR_RETURN(pinned_, gpu_.Pin(staged_.bytes(), PinnedUse::kReadWrite));
  CAIRN_ASSIGN_OR_RETURN(there_, gpu_.Allocate(staged_.bytes().size(), GpuSharing::kPrivate));
  CAIRN_ASSIGN_OR_RETURN(stream_, gpu_.NewStream());
  return stream_->Zero(there_->data(), kTableOffset);
}

// The stream waits for its work before what that touches goes.
GpuRestore::~GpuRestore() { stream_.reset(); }

absl::Status GpuRestore::Begin(std::span<const uint8_t* const> sources,
                               std::span<const GpuGatherStep> steps, GatherFrom from) {
  if (sources.empty() || sources.size() > sources_max_) {
    return absl::InvalidArgumentError(
        absl::StrCat("restore: ", sources.size(), " entries, must be 1 to ", sources_max_));
  }
  CAIRN_RETURN_IF_ERROR(CheckGather(steps, sources.size()));
  for (size_t i = 0; i < steps_; ++i) {
    CAIRN_ASSIGN_OR_RETURN(const bool done, Done(i));
    if (!done) return absl::FailedPreconditionError("restore: the one before is not done");
  }
  steps_ = steps.size();
  ++value_;
  uint8_t* const table = there_->data() + kTableOffset;
  std::memcpy(staged_.bytes().data() + kTableOffset, sources.data(), sources.size_bytes());
  CAIRN_RETURN_IF_ERROR(
      stream_->Copy(staged_.bytes().data() + kTableOffset, table, sources.size_bytes()));
  CAIRN_RETURN_IF_ERROR(stream_->Gather(reinterpret_cast<const uint8_t* const*>(table),
                                        sources.size(), steps, from,
                                        {.counters = reinterpret_cast<uint32_t*>(there_->data()),
                                         .flags = flags(),
                                         .value = value_}));
  CAIRN_ASSIGN_OR_RETURN(mark_, stream_->Mark());
  return absl::OkStatus();
}

absl::StatusOr<bool> GpuRestore::Done(size_t step) {
  if (std::atomic_ref<uint32_t>(flags()[step]).load(std::memory_order_acquire) == value_) {
    return true;
  }
  // A lost device sets no flag.
  CAIRN_RETURN_IF_ERROR(stream_->Reached().status());
  return false;
}

absl::Status GpuRestore::Before(GpuStream& stream, size_t step) {
  return stream.WaitForFlag(&flags()[step], value_);
}

absl::Status GpuRestore::Wait() { return stream_->Wait(mark_); }

}  // namespace cairn::store
