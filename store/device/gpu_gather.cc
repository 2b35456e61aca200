#include "store/device/gpu_gather.h"

namespace cairn::store {
absl::Status CheckGather(std::span<const GpuGatherPart> parts, size_t sources) {
  if (parts.empty() || parts.size() > kGatherPartsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("gather: ", parts.size(), " parts, must be 1 to ", kGatherPartsMax));
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const GpuGatherPart& part = parts[i];
    const auto refused = [i](auto... why) {
      return absl::InvalidArgumentError(absl::StrCat("gather: part ", i, ": ", why...));
    };
    if (part.count == 0 || part.first > sources || part.count > sources - part.first) {
      return refused("sources [", part.first, ", ", part.first, " + ", part.count, ") of ",
                     sources);
    }
    if (part.bytes == 0 || part.bytes > kGatherBytesMax / part.count ||
        part.to_stride > kGatherBytesMax / part.count) {
      return refused(part.count, " times ", part.bytes, " bytes, ", part.to_stride,
                     " apart; together at most ", kGatherBytesMax, " and not none");
    }
    if (part.count > 1 && part.to_stride < part.bytes) {
      return refused("pieces of ", part.bytes, " bytes overlap at a stride of ", part.to_stride);
    }
    sum += part.count * part.bytes;
  }
  if (sum > kGatherBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("gather: ", sum, " bytes, at most ", kGatherBytesMax));
  }
  return absl::OkStatus();
}

}  // namespace cairn::store
