#include "tools/cairn-bench/gpu_tensor_limit.h"

#include <memory>

#include "kernels/cuda/attention_mma.cuh"
#include "tools/cairn-bench/gpu_timing.h"

namespace cairn::bench {
namespace {

using kernels::cuda::OwnedStream;
namespace mma = kernels::cuda::mma;

constexpr int kGroups = 2, kSteps = 4096, kTileBytes = 64 * 64 * 2, kTiles = 4;

// Each of two warpgroups: kSteps products [64, 16] x [16, 256], A in registers.
__global__ __launch_bounds__(128 * kGroups, 1) void TensorLimitKernel(float* out) {
  extern __shared__ uint8_t memory[];
  const uint32_t start = kernels::cuda::SharedAddress(memory), base = (start + 1023) / 1024 * 1024;
  // BF16 of magnitude 0.125 to 0.5, any sign.
  uint32_t state = threadIdx.x * 2654435761u + 1;
  const auto next = [&state] {
    state = state * 1664525u + 1013904223u;
    return (state >> 3 & 0x80ff80ffu) | 0x3e003e00u;
  };
  for (uint32_t i = threadIdx.x; i < kTiles * kTileBytes / 4; i += blockDim.x) {
    *reinterpret_cast<uint32_t*>(memory + (base - start) + 4 * i) = next();
  }
  const uint32_t a[4] = {next(), next(), next(), next()};
  mma::FenceForProducts();
  __syncthreads();
  const mma::Operand tiles = mma::Operand::AcrossRows(base, kTileBytes);
  float d[128] = {};
  for (int i = 0; i < kSteps; i += 4) {
    kernels::cuda::WgmmaFence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      mma::MultiplyRows<0>(d, a, tiles.At(k * 2048));
      mma::MultiplyRows<1>(d, a, tiles.At(k * 2048 + 2 * kTileBytes));
    }
  }
  mma::FinishProducts(d);
  float sum = 0;
  for (const float v : d) sum += v;
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

}  // namespace

absl::StatusOr<Contender> TensorLimit() {
  struct State {
    OwnedStream stream;
    kernels::cuda::DeviceBuffer<float> out;
  };
  const int blocks = kernels::cuda::MultiprocessorCount();
  CAIRN_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create());
  CAIRN_ASSIGN_OR_RETURN(auto out, kernels::cuda::DeviceBuffer<float>::Create(
                                       static_cast<size_t>(blocks * kGroups * 128)));
  const auto state = std::make_shared<State>(State{std::move(stream), std::move(out)});
  return Contender{"tensor cores alone", Role::kLimit, [state, blocks]() -> absl::StatusOr<double> {
                     CAIRN_ASSIGN_OR_RETURN(
                         const double seconds, SecondsALaunch(state->stream.get(), [&](int64_t) {
                           TensorLimitKernel<<<static_cast<unsigned>(blocks), 128 * kGroups,
                                               kTiles * kTileBytes + 1024, state->stream.get()>>>(
                               state->out.get());
                           return kernels::cuda::LaunchStatus("tensor limit");
                         }));
                     return 2.0 * 64 * 256 * 16 * kSteps * kGroups * blocks / seconds * 1e-12;
                   }};
}

}  // namespace cairn::bench
