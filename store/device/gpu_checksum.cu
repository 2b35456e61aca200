#include <cuda_runtime_api.h>

#include "store/device/cuda_status.h"
#include "store/device/gpu_checksum.h"
#include "store/device/gpu_xxh3.h"

namespace cairn::store {
namespace {

using xxh3::kBlockStripes;
using xxh3::kLanes;
using xxh3::kStripeBytes;

constexpr uint32_t kThreads = 128;

struct Part {
  GpuChecksumPart what;
  uint32_t end;  // of the checksums of this part and all before it
};

struct Plan {
  Part parts[kChecksumPartsMax];
};

// Eight bytes at once where the address allows it.
__device__ uint64_t ReadOwn(const uint8_t* at) {
  if (reinterpret_cast<uint64_t>(at) % 8 == 0) {
    return __ldcs(reinterpret_cast<const unsigned long long*>(at));
  }
  return xxh3::Read<uint64_t>(at);
}

// One lane's sum over the whole input; `group` are the eight threads that call it together.
__device__ uint64_t LaneSum(const uint8_t* data, uint32_t bytes, uint32_t lane, uint32_t group) {
  uint64_t keys[kBlockStripes];
#pragma unroll
  for (uint32_t i = 0; i < kBlockStripes; ++i) keys[i] = xxh3::LaneKey(lane, i);
  const uint64_t scramble = xxh3::LaneKeyScramble(lane);
  const uint8_t* at = data + 8 * lane;
  uint64_t sum = xxh3::LaneBegin(lane);
  uint32_t stripes = (bytes - 1) / kStripeBytes;
  // A block's reads are all on their way before the first is needed.
  uint64_t own[kBlockStripes];
  for (; stripes >= kBlockStripes; stripes -= kBlockStripes, at += kBlockStripes * kStripeBytes) {
#pragma unroll
    for (uint32_t i = 0; i < kBlockStripes; ++i) own[i] = ReadOwn(at + i * kStripeBytes);
#pragma unroll
    for (uint32_t i = 0; i < kBlockStripes; ++i) {
      sum = xxh3::LaneAdd(sum, own[i], __shfl_xor_sync(group, own[i], 1), keys[i]);
    }
    sum = xxh3::LaneScramble(sum, scramble);
  }
#pragma unroll
  for (uint32_t i = 0; i < kBlockStripes; ++i) {
    if (i < stripes) own[i] = ReadOwn(at + i * kStripeBytes);
  }
#pragma unroll
  for (uint32_t i = 0; i < kBlockStripes; ++i) {
    if (i >= stripes) break;
    sum = xxh3::LaneAdd(sum, own[i], __shfl_xor_sync(group, own[i], 1), keys[i]);
  }
  const uint64_t last = ReadOwn(data + bytes - kStripeBytes + 8 * lane);
  return xxh3::LaneAdd(sum, last, __shfl_xor_sync(group, last, 1), xxh3::LaneKeyLast(lane));
}

__global__ void __launch_bounds__(kThreads)
    Checksums(const uint8_t* const* sources, const __grid_constant__ Plan plan, uint32_t count,
              uint64_t* out) {
  const uint32_t index = (blockIdx.x * kThreads + threadIdx.x) / kLanes;
  if (index >= count) return;
  const uint32_t lane = threadIdx.x % kLanes;
  const uint32_t group = 0xffu << (threadIdx.x % 32 / kLanes * kLanes);
  uint32_t p = 0;
  while (index >= plan.parts[p].end) ++p;
  const GpuChecksumPart& part = plan.parts[p].what;
  const uint32_t source = part.first + index - (plan.parts[p].end - part.count);
  const uint8_t* const data = sources[source] + part.from;
  if (part.bytes <= xxh3::kShortMax) {
    if (lane == 0) out[index] = xxh3::Short(data, part.bytes);
    return;
  }
  const uint64_t sum = LaneSum(data, part.bytes, lane, group);
  const uint64_t neighbours = __shfl_xor_sync(group, sum, 1);
  uint64_t pairs = lane % 2 == 0 ? xxh3::PairResult(lane, sum, neighbours) : 0;
  pairs += __shfl_xor_sync(group, pairs, 2);
  pairs += __shfl_xor_sync(group, pairs, 4);
  if (lane == 0) out[index] = xxh3::Result(pairs, part.bytes);
}

}  // namespace

absl::Status LaunchChecksums(CUstream_st* stream, const uint8_t* const* sources,
                             std::span<const GpuChecksumPart> parts, uint64_t* out) {
  Plan plan{};
  uint32_t count = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    count += parts[i].count;
    plan.parts[i] = {parts[i], count};
  }
  const uint32_t blocks = (count * kLanes + kThreads - 1) / kThreads;
  Checksums<<<blocks, kThreads, 0, stream>>>(sources, plan, count, out);
  return CudaStatus(cudaGetLastError(), "checksums on the GPU");
}

}  // namespace cairn::store
