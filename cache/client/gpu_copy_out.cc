#include "cache/client/gpu_copy_out.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

// Copied at once. Enough that the room is what limits entries of ordinary size.
constexpr size_t kEntriesMax = 256;
// Of entries in the room: what copies and checksums are fastest at.
constexpr uint64_t kAlignment = 256;

// The payload and the part table behind it, as an entry lies in the pool and in the arena.
uint64_t LengthOf(const EntryView& entry) {
  return PartTableOffset(entry.payload.size()) + entry.part_bytes.size() * sizeof(uint64_t);
}

uint64_t Aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

absl::StatusOr<std::unique_ptr<GpuCopyOut>> GpuCopyOut::Create(store::Gpu& gpu, uint64_t bytes) {
  auto copy = std::unique_ptr<GpuCopyOut>(new GpuCopyOut(bytes));
  CAIRN_ASSIGN_OR_RETURN(copy->room_, gpu.Allocate(bytes, store::GpuSharing::kPrivate));
  CAIRN_ASSIGN_OR_RETURN(copy->gather_, store::GpuRestore::Create(gpu, kEntriesMax));
  CAIRN_ASSIGN_OR_RETURN(copy->check_, store::GpuPartCheck::Create(gpu, kEntriesMax));
  CAIRN_ASSIGN_OR_RETURN(copy->checks_, gpu.NewStream());
  return copy;
}

bool GpuCopyOut::CanRead(const EntryView& entry) const {
  const bool there = entry.gpu != nullptr || entry.pinned;
  return there && LengthOf(entry) <= std::min(bytes_, kEntryBytesMax);
}

bool GpuCopyOut::HasRoom(const EntryView& entry) const {
  return sources_.size() < kEntriesMax && used_ + LengthOf(entry) <= bytes_;
}

absl::StatusOr<uint8_t*> GpuCopyOut::Add(const EntryView& entry) {
  CAIRN_ASSIGN_OR_RETURN(std::vector<EntryPart> parts, entry.Parts());
  uint8_t* const at = room_->data() + used_;
  sources_.push_back(entry.gpu != nullptr ? entry.gpu : entry.payload.data());
  from_host_ = from_host_ || entry.gpu == nullptr;
  lengths_.push_back(LengthOf(entry));
  subjects_.push_back({at, std::move(parts), entry.table_xxh3});
  used_ += Aligned(LengthOf(entry));
  return at;
}

// One step; runs of entries that are equally long are a part each.
store::GpuGatherStep GpuCopyOut::Gathering() const {
  store::GpuGatherStep step;
  for (size_t i = 0; i < lengths_.size(); ++i) {
    const auto length = static_cast<uint32_t>(lengths_[i]);
    if (i > 0 && lengths_[i] == lengths_[i - 1]) {
      ++step.parts.back().count;
      continue;
    }
    step.parts.push_back({.first = static_cast<uint32_t>(i),
                          .count = 1,
                          .from = 0,
                          .bytes = length,
                          .to = const_cast<uint8_t*>(subjects_[i].at),
                          .to_stride = static_cast<uint32_t>(Aligned(length))});
  }
  return step;
}

absl::Status GpuCopyOut::CopyAndCheck() {
  const store::GpuGatherStep step = Gathering();
  CAIRN_RETURN_IF_ERROR(gather_->Begin(
      sources_, {&step, 1}, from_host_ ? store::GatherFrom::kHost : store::GatherFrom::kDevice));
  CAIRN_RETURN_IF_ERROR(gather_->Before(*checks_, 0));
  const size_t count = subjects_.size();
  CAIRN_RETURN_IF_ERROR(check_->Begin(*checks_, std::move(subjects_)));
  CAIRN_ASSIGN_OR_RETURN(const store::GpuMark checked, checks_->Mark());
  CAIRN_RETURN_IF_ERROR(checks_->Wait(checked));
  for (size_t i = 0; i < count; ++i) CAIRN_RETURN_IF_ERROR(check_->Verdict(i));
  return absl::OkStatus();
}

absl::Status GpuCopyOut::Copy() {
  const absl::Status status = sources_.empty() ? absl::OkStatus() : CopyAndCheck();
  Drop();
  return status;
}

void GpuCopyOut::Drop() {
  sources_.clear();
  lengths_.clear();
  subjects_.clear();
  from_host_ = false;
  used_ = 0;
}

}  // namespace cairn::cache
