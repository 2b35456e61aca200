// linear_parts.cuh: what a warpgroup of consumers does in both product kernels: the part of a block
// of k, adding it to the sums, and rounding sums away.
//
// W is the products' A here (64 outputs), rows of x are B (kRows), so that few rows do not waste
// the tensor cores (linear_rows.cuh has it the other way round). Sums are held as wgmma.cuh says:
// thread t of the warpgroup has outputs 16 (t / 32) + l / 4 (+ 8) of rows 8 j + 2 (l % 4) (+ 1).
#ifndef CAIRN_KERNELS_CUDA_LINEAR_PARTS_CUH_
#define CAIRN_KERNELS_CUDA_LINEAR_PARTS_CUH_

#include <cstdint>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/linear_job.h"
#include "kernels/cuda/wgmma.cuh"

namespace cairn::kernels::cuda::internal {

// Outputs that a product instruction takes, and the bytes of x that a block of k has a row.
constexpr int kOutputs = 64;
constexpr int kRowBytes = 128;
// Shared memory that a block can have.
constexpr int kSharedBytesMax = 232448;

// ---- weight formats: how 64 outputs x a block of k lie in shared memory, and their product ----

struct Fp8Weights {
  static constexpr bool kScaled = true;
  static constexpr bool kPieces = false;    // come as boxes of a map, not as pieces
  static constexpr bool kRowsFirst = true;  // Many: rows of x are A (linear_rows.cuh)
  static constexpr int kBlockBytes = kOutputs * kRowBytes;
  static constexpr int kScaleOutputs = 128;  // share a scale
  static constexpr int kBlockK = 128;

  struct Held {
    __device__ void Keep() const {}
  };

  template <int kRows>
  __device__ static void Multiply(float (&part)[kRows / 2], Held&, uint32_t w, uint32_t x) {
    const uint64_t a = MatrixDescriptor(w);
    const uint64_t b = MatrixDescriptor(x);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < 4; ++i) Wgmma<kRows>::E4m3(part, a + 2 * i, b + 2 * i, i);
  }
};

struct Bf16Weights {
  static constexpr bool kScaled = false;
  static constexpr bool kPieces = false;
  static constexpr bool kRowsFirst = false;
  static constexpr int kBlockBytes = kOutputs * kRowBytes;
  static constexpr int kScaleOutputs = 0;
  static constexpr int kBlockK = 64;

  struct Held {
    __device__ void Keep() const {}
  };

  template <int kRows>
  __device__ static void Multiply(float (&part)[kRows / 2], Held&, uint32_t w, uint32_t x) {
    const uint64_t a = MatrixDescriptor(w);
    const uint64_t b = MatrixDescriptor(x);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < 4; ++i) Wgmma<kRows>::Bf16(part, a + 2 * i, b + 2 * i, i);
  }
};

// Starts part = W block . x block, as one group. Held is what the products read from registers
// until they are done.
template <class Weights, int kRows>
__device__ void StartPart(float (&part)[kRows / 2], typename Weights::Held& held, uint32_t w,
                          uint32_t x) {
#pragma unroll
  for (int i = 0; i < kRows / 2; ++i) Pin(part[i]);
  Weights::template Multiply<kRows>(part, held, w, x);
  WgmmaCommit();
}

// The part is there when at most kPending groups that were started later are not done.
template <class Weights, int kRows, int kPending>
__device__ void FinishPart(float (&part)[kRows / 2], const typename Weights::Held& held) {
#pragma unroll
  for (int i = 0; i < kRows / 2; ++i) Pin(part[i]);
  WgmmaWait<kPending>();
  held.Keep();
#pragma unroll
  for (int i = 0; i < kRows / 2; ++i) Pin(part[i]);
}

// ---- sums ----

__device__ inline float ScaleValue(uint8_t e8m0) {
  return __uint_as_float(e8m0 == 0 ? 0x00400000u : static_cast<uint32_t>(e8m0) << 23);
}

// W's scales of 64 outputs, block of k after block, each read while the one before is in use.
template <class Weights>
class WeightScales {
 public:
  // From block `k` to the last before `k_end`; `output`: the first of them, over all matrices.
  __device__ WeightScales(const LinearJob& job, int32_t output, int32_t k, int32_t k_end) {
    if constexpr (Weights::kScaled) {
      const uint8_t* const row = job.w_scales + output / Weights::kScaleOutputs * job.k_blocks;
      at_ = row + k;
      last_ = row + k_end - 1;
      next_ = __ldg(at_);
    }
  }
  __device__ float Next() {
    if constexpr (!Weights::kScaled) return 1.0f;
    const uint8_t scale = next_;
    if (at_ < last_) next_ = __ldg(++at_);
    return ScaleValue(scale);
  }

 private:
  const uint8_t* at_ = nullptr;
  const uint8_t* last_ = nullptr;
  uint8_t next_ = 0;
};

// The copy engine takes a row of scales from a multiple of 4 on, and a tile may begin anywhere: so
// it brings 4 more, and the first of them to use is ScaleOffset behind.
template <int kRows>
constexpr int kScaleBox = kRows + 4;
template <int kRows>
constexpr int kScaleBoxBytes = (kScaleBox<kRows> * 4 + 127) / 128 * 128;
__device__ inline int32_t ScaleColumn(int32_t row) { return row & ~3; }
__device__ inline uint32_t ScaleOffset(int32_t row) { return static_cast<uint32_t>(row & 3) * 4; }

// sum = fma(part, scale, sum) of the pair of rows 8 j + 2 (l % 4), + 1.
template <class Weights, int kRows>
__device__ void AddPair(float (&sum)[kRows / 2], const float (&part)[kRows / 2], int j, float even,
                        float odd) {
  if constexpr (Weights::kScaled) {
    sum[4 * j] = fmaf(part[4 * j], even, sum[4 * j]);
    sum[4 * j + 1] = fmaf(part[4 * j + 1], odd, sum[4 * j + 1]);
    sum[4 * j + 2] = fmaf(part[4 * j + 2], even, sum[4 * j + 2]);
    sum[4 * j + 3] = fmaf(part[4 * j + 3], odd, sum[4 * j + 3]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[4 * j + i] += part[4 * j + i];
  }
}

// Of all rows, with x scale * w_scale. `x_scales`: kRows floats in shared memory.
template <class Weights, int kRows>
__device__ void AddPart(float (&sum)[kRows / 2], const float (&part)[kRows / 2], uint32_t x_scales,
                        float w_scale) {
#pragma unroll
  for (int j = 0; j < kRows / 8; ++j) {
    float even = 1.0f, odd = 1.0f;
    if constexpr (Weights::kScaled) {
      const uint32_t at = x_scales + (8 * j + threadIdx.x % 4 * 2) * 4;
      even = LoadSharedF32(at) * w_scale;
      odd = LoadSharedF32(at + 4) * w_scale;
    }
    AddPair<Weights, kRows>(sum, part, j, even, odd);
  }
}

// The same with x scales laid out so that a thread has those of two pairs of rows in 16 bytes,
// which is kinder to shared memory: that of row 16 i + 8 h + 2 c + e at 16 i + 4 c + 2 h + e.
template <class Weights, int kRows>
__device__ void AddPartOrdered(float (&sum)[kRows / 2], const float (&part)[kRows / 2],
                               uint32_t x_scales, float w_scale) {
#pragma unroll
  for (int i = 0; i < kRows / 16; ++i) {
    float4 scale = {1.0f, 1.0f, 1.0f, 1.0f};
    if constexpr (Weights::kScaled) {
      scale = LoadSharedF32x4(x_scales + (16 * i + threadIdx.x % 4 * 4) * 4);
    }
    AddPair<Weights, kRows>(sum, part, 2 * i, scale.x * w_scale, scale.y * w_scale);
    AddPair<Weights, kRows>(sum, part, 2 * i + 1, scale.z * w_scale, scale.w * w_scale);
  }
}

// ---- tiles ----

struct Tile {
  int32_t expert, output, row, rows_end;
};

// The `index`-th tile, of outputs_a_tile x rows_a_tile, of this block of those that share outputs.
// Dense: neighbours have the same outputs, so W is read once while x stays in the cache; experts:
// the same rows. `experts`: job.tiles is not null, for who knows it when it is compiled.
__device__ inline Tile TileAt(const LinearJob& job, bool experts, int32_t index,
                              int32_t outputs_a_tile, int32_t rows_a_tile, int32_t sharing,
                              int32_t rank) {
  if (experts) {
    const RowTile& rows = job.tiles[index / job.output_tiles];
    return {rows.expert, index % job.output_tiles * outputs_a_tile, rows.begin, rows.end};
  }
  const int32_t across = (job.row_tiles + sharing - 1) / sharing;
  const int32_t row = (index % across * sharing + rank) * rows_a_tile;
  return {0, index / across * outputs_a_tile, row, min(row + rows_a_tile, job.rows)};
}

__device__ inline int32_t TileCount(const LinearJob& job, bool experts, int32_t sharing) {
  const int32_t row_tiles = experts ? *job.tile_count : job.row_tiles;
  return (row_tiles + sharing - 1) / sharing * job.output_tiles;
}

// Which stage of `stages`, and the parity of how often all were passed.
struct StageCounter {
  uint32_t stage = 0, parity = 0;
  __device__ void Next(uint32_t stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// ---- results ----

// Where a warpgroup's 64 x kRows results go.
struct Target {
  void* y;
  int64_t stride;
  int32_t output, outputs_end;  // first, and how many the matrix has
  int32_t row, rows_end;
};

__device__ inline Target TargetAt(const LinearJob& job, int32_t output, int32_t row,
                                  int32_t rows_end) {
  return {job.y, job.y_stride, output, job.n, row, rows_end};
}

// Two values, rounded to nearest even; `low` in the low half.
__device__ inline uint32_t PackBf16(float low, float high) {
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

// Eight outputs of a row lie in eight lanes: whole sectors.
template <int kRows>
__device__ void StoreF32(const float (&sum)[kRows / 2], const Target& to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
#pragma unroll
  for (int i = 0; i < kRows / 2; ++i) {
    const int32_t output = to.output + 16 * warp + lane / 4 + i / 2 % 2 * 8;
    const int32_t row = to.row + i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (output < to.outputs_end && row < to.rows_end) {
      static_cast<float*>(to.y)[row * to.stride + output] = sum[i];
    }
  }
}

// By a warp for itself: 16 outputs of 8 rows at a time.
template <int kRows>
__device__ void StoreBf16(const float (&sum)[kRows / 2], const Target& to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int32_t output = to.output + 16 * warp + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < kRows / 8; ++j) {
    const uint32_t low = Transpose(PackBf16(sum[4 * j], sum[4 * j + 1]));
    const uint32_t high = Transpose(PackBf16(sum[4 * j + 2], sum[4 * j + 3]));
    const int32_t row = to.row + 8 * j + lane / 4;
    const bool inside = row < to.rows_end;
    uint16_t* const y = static_cast<uint16_t*>(to.y) + row * to.stride + output;
    if (inside && output < to.outputs_end) *reinterpret_cast<uint32_t*>(y) = low;
    if (inside && output + 8 < to.outputs_end) *reinterpret_cast<uint32_t*>(y + 8) = high;
  }
}

// By a warpgroup through `staging` (kRows * 128 bytes of shared memory at a multiple of 1024, its
// own): there each row's 64 outputs are one line, its pieces of 16 bytes exchanged within 8 rows as
// the copy engine does. `barrier`: a named barrier of the warpgroup's own. The copy engine takes it
// from there, beside the products of the next tile; but for a tile that ends within y.
template <int kRows>
__device__ void StoreBf16Staged(const float (&sum)[kRows / 2], const Target& to,
                                const TensorMap& y_map, bool whole, uint32_t staging,
                                uint32_t barrier) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int lane = thread % 32;
  if (thread == 0) WaitForStores();
  NamedBarrier(barrier, 128);  // what was staged before this has been read
#pragma unroll
  for (int j = 0; j < kRows / 8; j += 2) {
    const int row = 8 * (j + lane / 16) + lane % 8;
    const int piece = 2 * (thread / 32) + lane / 8 % 2;
    StoreTransposed(staging + row * 128 + (piece ^ (row % 8)) * 16,
                    PackBf16(sum[4 * j], sum[4 * j + 1]), PackBf16(sum[4 * j + 2], sum[4 * j + 3]),
                    PackBf16(sum[4 * j + 4], sum[4 * j + 5]),
                    PackBf16(sum[4 * j + 6], sum[4 * j + 7]));
  }
  FenceForCopies();
  NamedBarrier(barrier, 128);
  if (whole) {
    if (thread == 0) StoreBox(y_map, staging, to.output, to.row);
    return;
  }
  const int piece = thread % 8;
  const int32_t output = to.output + 8 * piece;
  for (int row = thread / 8; row < to.rows_end - to.row; row += 16) {
    const uint4 v = LoadShared16(staging + row * 128 + (piece ^ (row % 8)) * 16);
    if (output < to.outputs_end) {
      *reinterpret_cast<uint4*>(static_cast<uint16_t*>(to.y) + (to.row + row) * to.stride +
                                output) = v;
    }
  }
}

}  // namespace cairn::kernels::cuda::internal

#endif  // CAIRN_KERNELS_CUDA_LINEAR_PARTS_CUH_
