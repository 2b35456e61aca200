#include "store/device/gpu_checksum.h"

namespace cairn::store {
namespace {

constexpr uint64_t kChecksumsMax = 1u << 27;  // eight threads each are counted in 32 bits

}  // namespace

absl::StatusOr<size_t> CheckChecksums(std::span<const GpuChecksumPart> parts, size_t sources) {
  if (parts.empty() || parts.size() > kChecksumPartsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("checksums: ", parts.size(), " parts, must be 1 to ", kChecksumPartsMax));
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const GpuChecksumPart& part = parts[i];
    if (part.count == 0 || part.first > sources || part.count > sources - part.first) {
      return absl::InvalidArgumentError(absl::StrCat("checksums: part ", i, ": sources [",
                                                     part.first, ", ", part.first, " + ",
                                                     part.count, ") of ", sources));
    }
    sum += part.count;
  }
  if (sum > kChecksumsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("checksums: ", sum, " of them, at most ", kChecksumsMax));
  }
  return sum;
}

}  // namespace cairn::store
