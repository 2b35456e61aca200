#include "store/device/gpu_gather.h"

namespace cairn::store {
namespace {

// Empty: nothing is wrong with it.
std::string WhatIsWrong(const GpuGatherPart& part, size_t sources) {
  if (part.count == 0 || part.first > sources || part.count > sources - part.first) {
    return absl::StrCat("sources [", part.first, ", ", part.first, " + ", part.count, ") of ",
                        sources);
  }
  if (part.bytes == 0 || part.bytes > kEntryBytesMax) {
    return absl::StrCat(part.bytes, " bytes, must be 1 to ", kEntryBytesMax);
  }
  if (part.count > 1 && part.to_stride < part.bytes) {
    return absl::StrCat("pieces of ", part.bytes, " bytes overlap at a stride of ", part.to_stride);
  }
  return "";
}

}  // namespace

absl::Status CheckGather(std::span<const GpuGatherStep> steps, size_t sources) {
  uint64_t parts = 0, bytes = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    for (size_t j = 0; j < steps[i].parts.size(); ++j) {
      const GpuGatherPart& part = steps[i].parts[j];
      if (const std::string wrong = WhatIsWrong(part, sources); !wrong.empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("gather: step ", i, ", part ", j, ": ", wrong));
      }
      bytes += uint64_t{part.count} * part.bytes;
    }
    if (steps[i].parts.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("gather: step ", i, " has no parts"));
    }
    parts += steps[i].parts.size();
  }
  if (sources > kGatherSourcesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("gather: ", sources, " sources, at most ", kGatherSourcesMax));
  }
  if (parts == 0 || parts > kGatherPartsMax || bytes > kGatherBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("gather: ", parts, " parts of ", bytes, " bytes together, must be 1 to ",
                     kGatherPartsMax, " of at most ", kGatherBytesMax));
  }
  return absl::OkStatus();
}

}  // namespace cairn::store
