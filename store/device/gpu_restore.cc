#include "store/device/gpu_restore.h"

#include <cstring>

namespace cairn::store {

absl::StatusOr<std::unique_ptr<GpuRestore>> GpuRestore::Create(Gpu& gpu, size_t sources_max) {
  if (sources_max == 0 || sources_max > UINT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("a restore of ", sources_max, " entries"));
  }
  auto restore = std::unique_ptr<GpuRestore>(new GpuRestore(gpu, sources_max));
  CAIRN_RETURN_IF_ERROR(restore->Open());
  return restore;
}

absl::Status GpuRestore::Open() {
  const uint64_t bytes = sources_max_ * sizeof(const uint8_t*);
  staged_ = IoBuffer(bytes);
  CAIRN_ASSIGN_OR_RETURN(pinned_, gpu_.Pin(staged_.bytes(), PinnedUse::kReadOnly));
  CAIRN_ASSIGN_OR_RETURN(table_, gpu_.Allocate(bytes, GpuSharing::kPrivate));
  for (auto& stream : streams_) {
    CAIRN_ASSIGN_OR_RETURN(stream, gpu_.NewStream());
  }
  return absl::OkStatus();
}

// Streams wait for their work before what it touches goes.
GpuRestore::~GpuRestore() {
  for (auto& stream : streams_) stream.reset();
}

absl::Status GpuRestore::Begin(std::span<const uint8_t* const> sources,
                               std::span<const RestoreStep> steps, GatherFrom from) {
  if (sources.empty() || sources.size() > sources_max_) {
    return absl::InvalidArgumentError(
        absl::StrCat("restore: ", sources.size(), " entries, must be 1 to ", sources_max_));
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    if (absl::Status checked = CheckGather(steps[i].parts, sources.size()); !checked.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("restore: step ", i, ": ", checked.message()));
    }
  }
  for (size_t i = 0; i < marks_.size(); ++i) {
    CAIRN_ASSIGN_OR_RETURN(const bool done, Done(i));
    if (!done) return absl::FailedPreconditionError("restore: the one before is not done");
  }
  marks_.clear();
  std::memcpy(staged_.bytes().data(), sources.data(), sources.size_bytes());
  CAIRN_RETURN_IF_ERROR(
      streams_[0]->Copy(staged_.bytes().data(), table_->data(), sources.size_bytes()));
  CAIRN_ASSIGN_OR_RETURN(const GpuMark table, streams_[0]->Mark());
  for (size_t i = 1; i < kStreams; ++i) {
    CAIRN_RETURN_IF_ERROR(streams_[i]->WaitFor(*streams_[0], table));
  }
  const auto* const sources_there = reinterpret_cast<const uint8_t* const*>(table_->data());
  for (size_t i = 0; i < steps.size(); ++i) {
    GpuStream& stream = *streams_[i % kStreams];
    CAIRN_RETURN_IF_ERROR(stream.Gather(sources_there, sources.size(), steps[i].parts, from));
    CAIRN_ASSIGN_OR_RETURN(const GpuMark mark, stream.Mark());
    marks_.push_back(mark);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> GpuRestore::Done(size_t step) {
  CAIRN_ASSIGN_OR_RETURN(const GpuMark reached, streams_[step % kStreams]->Reached());
  return reached >= marks_[step];
}

absl::Status GpuRestore::Before(GpuStream& stream, size_t step) {
  return stream.WaitFor(*streams_[step % kStreams], marks_[step]);
}

absl::Status GpuRestore::Wait() {
  for (size_t i = 0; i < marks_.size(); ++i) {
    CAIRN_RETURN_IF_ERROR(streams_[i % kStreams]->Wait(marks_[i]));
  }
  return absl::OkStatus();
}

}  // namespace cairn::store
