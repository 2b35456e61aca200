#include "store/device/gpu_part_check.h"

#include <algorithm>

#include "store/base/limits.h"

namespace cairn::store {
namespace {

bool SameSizes(std::span<const EntryPart> a, std::span<const EntryPart> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const EntryPart& x, const EntryPart& y) { return x.bytes == y.bytes; });
}

// All parts of `count` entries, and their tables, as the device is asked for them.
std::vector<GpuChecksumPart> Asked(std::span<const EntryPart> parts, uint32_t count) {
  std::vector<GpuChecksumPart> asked;
  uint32_t from = 0;
  for (const EntryPart& part : parts) {
    asked.push_back({.first = 0, .count = count, .from = from, .bytes = part.bytes});
    from += part.bytes;
  }
  asked.push_back({.first = 0,
                   .count = count,
                   .from = static_cast<uint32_t>(PartTableOffset(from)),
                   .bytes = static_cast<uint32_t>(parts.size() * sizeof(uint64_t))});
  return asked;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GpuPartCheck>> GpuPartCheck::Create(Gpu& gpu, size_t entries_max) {
  auto check = std::unique_ptr<GpuPartCheck>(new GpuPartCheck(entries_max));
  check->memory_ = IoBuffer(entries_max * (kPartsPerEntryMax + 2) * sizeof(uint64_t));
  CAIRN_ASSIGN_OR_RETURN(check->pinned_, gpu.Pin(check->memory_.bytes(), PinnedUse::kReadWrite));
  return check;
}

uint64_t* GpuPartCheck::sums() const {
  return reinterpret_cast<uint64_t*>(memory_.bytes().data()) + entries_max_;
}

absl::Status GpuPartCheck::Begin(GpuStream& stream, std::vector<Subject> subjects) {
  if (subjects.size() > entries_max_) {
    return absl::InvalidArgumentError(
        absl::StrCat("checking ", subjects.size(), " entries at once, at most ", entries_max_));
  }
  subjects_ = std::move(subjects);
  runs_.clear();
  size_t sums_used = 0;
  for (size_t i = 0; i < subjects_.size(); ++i) {
    sources()[i] = subjects_[i].at;
    if (i == 0 || !SameSizes(subjects_[i].parts, subjects_[i - 1].parts)) {
      runs_.push_back({.begin = i, .sums = sums_used});
    }
    ++runs_.back().count;
    sums_used += subjects_[i].parts.size() + 1;
  }
  for (const Run& run : runs_) CAIRN_RETURN_IF_ERROR(BeginRun(stream, run));
  return absl::OkStatus();
}

absl::Status GpuPartCheck::BeginRun(GpuStream& stream, const Run& run) {
  const std::vector<GpuChecksumPart> asked =
      Asked(subjects_[run.begin].parts, static_cast<uint32_t>(run.count));
  for (size_t i = 0; i < asked.size(); i += kChecksumPartsMax) {
    const size_t count = std::min(kChecksumPartsMax, asked.size() - i);
    CAIRN_RETURN_IF_ERROR(stream.Checksums(sources() + run.begin, run.count,
                                           std::span(asked).subspan(i, count),
                                           sums() + run.sums + i * run.count));
  }
  return absl::OkStatus();
}

absl::Status GpuPartCheck::Verdict(size_t i) const {
  const auto after = std::upper_bound(runs_.begin(), runs_.end(), i,
                                      [](size_t at, const Run& run) { return at < run.begin; });
  const Run& run = *std::prev(after);
  const uint64_t* sum = sums() + run.sums + (i - run.begin);
  const std::vector<EntryPart>& parts = subjects_[i].parts;
  for (size_t part = 0; part < parts.size(); ++part, sum += run.count) {
    if (*sum != parts[part].xxh3) {
      return absl::DataLossError(absl::StrCat("part ", part, " of ", parts.size(), " (",
                                              parts[part].bytes,
                                              " bytes) does not match its checksum on the GPU"));
    }
  }
  if (*sum != subjects_[i].table_xxh3) {
    return absl::DataLossError("the part table on the GPU is not what was published");
  }
  return absl::OkStatus();
}

}  // namespace cairn::store
