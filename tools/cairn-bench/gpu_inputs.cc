#include "tools/cairn-bench/gpu_inputs.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "kernels/cpu/formats.h"
#include "store/base/random.h"

namespace cairn::bench {

using kernels::WeightFormat;
using kernels::cuda::CudaStatus;
using kernels::cuda::DeviceBuffer;

absl::StatusOr<DeviceBuffer<uint8_t>> Repeated(std::span<const uint8_t> piece, int64_t bytes) {
  const auto all = static_cast<size_t>(bytes);
  CAIRN_ASSIGN_OR_RETURN(DeviceBuffer<uint8_t> out, DeviceBuffer<uint8_t>::Create(all));
  CAIRN_RETURN_IF_ERROR(out.Write(piece.subspan(0, std::min(piece.size(), all))));
  // What is there, again behind itself.
  for (size_t have = piece.size(); have < all; have *= 2) {
    CAIRN_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpy(out.get() + have, out.get(), std::min(have, all - have),
                              cudaMemcpyDeviceToDevice),
                   "repeating made inputs"));
  }
  return out;
}

absl::StatusOr<DeviceBuffer<uint8_t>> RandomWeights(WeightFormat format, int64_t bytes) {
  SeededRandom random(11);
  std::vector<uint8_t> piece(4 << 20);
  random.Fill(piece);
  if (format == WeightFormat::kFp8) {
    for (uint8_t& v : piece) {
      v = kernels::F32ToE4m3((static_cast<float>(v) - 127.5f) * 2.0f);
    }
  } else if (format == WeightFormat::kBf16) {
    for (size_t i = 0; i < piece.size(); i += 2) {
      const uint16_t v = kernels::F32ToBf16((static_cast<float>(piece[i]) - 127.5f) / 128.0f);
      piece[i] = static_cast<uint8_t>(v);
      piece[i + 1] = static_cast<uint8_t>(v >> 8);
    }
  }
  return Repeated(piece, bytes);
}

}  // namespace cairn::bench
