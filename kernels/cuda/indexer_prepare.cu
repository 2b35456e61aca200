// The indexer's queries and keys: rotation, Hadamard transform and FP4, to the bit as
// kernels/cpu/{rope,vector_ops,kv_rows}.cc do them. A warp has a row of 128 dims, four a lane.
#include <cuda_bf16.h>

#include <cmath>
#include <limits>

#include "kernels/cuda/indexer.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/indexer_query.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr uint32_t kWarp = 0xffffffffu;
constexpr int kHeads = static_cast<int>(kIndexHeads);
constexpr int kDim = static_cast<int>(kIndexDim);
// All heads of a token in one block, two a warp.
constexpr int kQueryThreads = 1024;
constexpr int kKeyThreads = 128;

__device__ float4 LoadFour(const float* from) { return *reinterpret_cast<const float4*>(from); }

__device__ float4 LoadFour(const uint16_t* from) {
  const uint2 words = *reinterpret_cast<const uint2*>(from);
  return make_float4(__uint_as_float(words.x << 16), __uint_as_float(words.x & 0xffff0000u),
                     __uint_as_float(words.y << 16), __uint_as_float(words.y & 0xffff0000u));
}

__device__ float LoadOne(const float* from) { return *from; }
__device__ float LoadOne(const uint16_t* from) {
  return __uint_as_float(static_cast<uint32_t>(*from) << 16);
}

// Pairs (x, y) and (z, w) turned by the angles whose (cos, sin) are in `turn`.
__device__ float4 Rotated(float4 v, float4 turn) {
  return make_float4(v.x * turn.x - v.y * turn.y, v.y * turn.x + v.x * turn.y,
                     v.z * turn.z - v.w * turn.w, v.w * turn.z + v.z * turn.w);
}

// Butterflies of distance 1 and 2 within the lane, of 4 to 64 between lanes.
__device__ float4 Hadamard(float4 v, int lane) {
  v = make_float4(v.x + v.y, v.x - v.y, v.z + v.w, v.z - v.w);
  v = make_float4(v.x + v.z, v.y + v.w, v.x - v.z, v.y - v.w);
  for (int apart = 1; apart < 32; apart *= 2) {
    const float4 other =
        make_float4(__shfl_xor_sync(kWarp, v.x, apart), __shfl_xor_sync(kWarp, v.y, apart),
                    __shfl_xor_sync(kWarp, v.z, apart), __shfl_xor_sync(kWarp, v.w, apart));
    if ((lane & apart) == 0) {
      v = make_float4(v.x + other.x, v.y + other.y, v.z + other.z, v.w + other.w);
    } else {
      v = make_float4(other.x - v.x, other.y - v.y, other.z - v.z, other.w - v.w);
    }
  }
  const float scale = 1.0f / sqrtf(static_cast<float>(kDim));
  return make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale);
}

// A midpoint goes to the even code; bit 3 is the sign.
__device__ uint32_t E2m1Code(float v) {
  const float a = fabsf(v);
  const uint32_t magnitude = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                             (a >= 3.5f) + (a > 5.0f);
  return magnitude | (__float_as_uint(v) >> 31 << 3);
}

struct Fp4Lane {
  uint32_t codes;  // four, low nibble first
  uint32_t scale;  // e8m0 byte of the lane's group: eight lanes
};

__device__ Fp4Lane ToFp4(float4 v) {
  float most = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
  for (int apart = 1; apart < 8; apart *= 2) {
    most = fmaxf(most, __shfl_xor_sync(kWarp, most, apart));
  }
  const uint32_t bits = __float_as_uint(fmaxf(most, 6.0f * 0x1p-126f) * (1.0f / 6.0f));
  const uint32_t scale = ((bits >> 23) & 0xffu) + ((bits & 0x7fffffu) != 0 ? 1u : 0u);
  const float inverse = 1.0f / IndexScale(scale);
  const uint32_t codes = E2m1Code(v.x * inverse) | E2m1Code(v.y * inverse) << 4 |
                         E2m1Code(v.z * inverse) << 8 | E2m1Code(v.w * inverse) << 12;
  return {codes, scale};
}

__device__ void StoreRow(const Fp4Lane& row, int lane, uint8_t* data, uint8_t* scales) {
  *reinterpret_cast<uint16_t*>(data + 2 * lane) = static_cast<uint16_t>(row.codes);
  if (lane % 8 == 0) scales[lane / 8] = static_cast<uint8_t>(row.scale);
}

// Writes the head's row of the tile and its weights. Whether the head is wide.
__device__ bool StoreHead(const Fp4Lane& row, int lane, int head, float weight,
                          PreparedIndexQuery& out) {
  uint32_t most = row.scale;
  for (int apart = 8; apart < 32; apart *= 2) {
    most = max(most, __shfl_xor_sync(kWarp, most, apart));
  }
  const int shift = static_cast<int>(most - row.scale);
  const uint2 magnitudes = IndexMagnitudes(shift);
  uint32_t word = __byte_perm(magnitudes.x, magnitudes.y, row.codes & 0x7777u);
  for (int i = 0; i < 4; ++i) word |= (row.codes >> (4 * i + 3) & 1u) << (8 * i + 7);
  // Dims 4 lane + i = 32 c + 8 s + 4 b + i are columns 32 s + 16 b + 4 c + i.
  const int column = 32 * (lane / 2 % 4) + 16 * (lane % 2) + 4 * (lane / 8);
  *reinterpret_cast<uint32_t*>(out.tile.matrix + IndexMatrixByte(head, column)) = word;
  if (lane == 0) {
    out.weights[head] = weight;
    out.tile.weights[IndexWeightPlace(head)] = weight * IndexScale(most) * 0x1p-13f;
  }
  return shift > kIndexShiftMax && (row.codes & 0x7777u) != 0;
}

template <typename T>
__global__ void __launch_bounds__(kQueryThreads)
    PrepareQueriesKernel(const T* q, const T* weights, const float* cos_sin, float weight_scale,
                         PreparedIndexQuery* prepared) {
  LetNextStart();
  WaitForKernelsBefore();
  const int64_t token = blockIdx.x;
  const int lane = threadIdx.x % 32;
  PreparedIndexQuery& out = prepared[token];
  constexpr int kFirstTurned = (kDim - static_cast<int>(kIndexRopeDim)) / 4;
  float4 turn;
  if (lane >= kFirstTurned) {
    turn = LoadFour(cos_sin + token * kIndexRopeDim + 4 * (lane - kFirstTurned));
  }
  bool wide = false;
  for (int head = threadIdx.x / 32; head < kHeads; head += kQueryThreads / 32) {
    float4 v = LoadFour(q + (token * kHeads + head) * kDim + 4 * lane);
    if (lane >= kFirstTurned) v = Rotated(v, turn);
    const Fp4Lane row = ToFp4(Hadamard(v, lane));
    StoreRow(row, lane, out.data + head * kIndexRowDataBytes,
             out.scales + head * kIndexRowScaleBytes);
    const float weight = LoadOne(weights + token * kHeads + head) * weight_scale;
    wide |= StoreHead(row, lane, head, weight, out);
  }
  wide = __syncthreads_or(wide);
  if (threadIdx.x == 0) out.tile.wide = wide;
}

template <typename T>
__global__ void __launch_bounds__(kKeyThreads)
    WriteKeysKernel(const T* keys, int64_t rows, const IndexKeySlot* slots) {
  LetNextStart();
  WaitForKernelsBefore();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kKeyThreads / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32;
  const Fp4Lane key = ToFp4(Hadamard(LoadFour(keys + row * kDim + 4 * lane), lane));
  StoreRow(key, lane, slots[row].data, slots[row].scales);
}

}  // namespace

int64_t PreparedIndexQueryBytes() { return sizeof(PreparedIndexQuery); }

absl::Status PrepareIndexQueries(const IndexQueries& queries, void* prepared, Stream stream) {
  if (queries.tokens < 0 || queries.tokens > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("PrepareIndexQueries: tokens is ", queries.tokens, ", not in [0, 2^31)"));
  }
  if ((queries.q.f32 == nullptr) != (queries.weights.f32 == nullptr)) {
    return absl::InvalidArgumentError(
        "PrepareIndexQueries: q and weights must both be F32 or both BF16");
  }
  if (queries.tokens == 0) return absl::OkStatus();
  const float scale = static_cast<float>(
      1.0 / std::sqrt(static_cast<double>(kIndexDim) * static_cast<double>(kIndexHeads)));
  auto* const out = static_cast<PreparedIndexQuery*>(prepared);
  const LaunchShape shape = {dim3(static_cast<unsigned>(queries.tokens)), kQueryThreads};
  if (queries.q.f32 != nullptr) {
    return LaunchEarly(stream, "PrepareIndexQueries", shape, PrepareQueriesKernel<float>,
                         queries.q.f32, queries.weights.f32, queries.cos_sin, scale, out);
  }
  return LaunchEarly(stream, "PrepareIndexQueries", shape, PrepareQueriesKernel<uint16_t>,
                       queries.q.bf16, queries.weights.bf16, queries.cos_sin, scale, out);
}

absl::Status WriteIndexKeys(IndexValues keys, int64_t rows, const IndexKeySlot* slots,
                            Stream stream) {
  if (rows < 0 || rows > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("WriteIndexKeys: rows is ", rows, ", not in [0, 2^31)"));
  }
  if (rows == 0) return absl::OkStatus();
  const int64_t blocks = (rows + kKeyThreads / 32 - 1) / (kKeyThreads / 32);
  const LaunchShape shape = {dim3(static_cast<unsigned>(blocks)), kKeyThreads};
  if (keys.f32 != nullptr) {
    return LaunchEarly(stream, "WriteIndexKeys", shape, WriteKeysKernel<float>, keys.f32, rows,
                         slots);
  }
  return LaunchEarly(stream, "WriteIndexKeys", shape, WriteKeysKernel<uint16_t>, keys.bf16, rows,
                       slots);
}

}  // namespace cairn::kernels::cuda
