#include "kernels/cuda/linear_launch.cuh"
#include "kernels/cuda/packed_fp4.h"

namespace cairn::kernels::cuda::internal {
namespace {

// What four words of a block decode to: two steps of 32 k, as wgmma takes them.
struct Lookup {
  uint32_t small, large;  // e4m3 of 0, .5, 1, 1.5 and of 2, 3, 4, 6, times 2^(6 - d)
};

// Codes of normal numbers: d lower in the exponent.
__device__ Lookup LookupNear(uint32_t d) {
  return {0x6c686000u - d * 0x08080800u, 0x7c787470u - d * 0x08080808u};
}
// From 12 on the small ones are subnormal.
__device__ Lookup LookupFar(uint32_t d) {
  if (d < 12) return LookupNear(d);
  if (d == 12) return {0x0c080400u, 0x1c181410u};
  if (d == 13) return {0x06040200u, 0x14100c08u};
  return {0x03020100u, 0x0c080604u};
}

struct Fp4Weights {
  static constexpr bool kScaled = true;
  static constexpr bool kPieces = true;
  static constexpr bool kRowsFirst = false;
  static constexpr int kBlockBytes = static_cast<int>(kFp4BlockBytes);
  static constexpr int kScaleOutputs = static_cast<int>(kFp4BlockOutputs);
  static constexpr int kBlockK = static_cast<int>(kFp4BlockK);

  // A of four products. They read it until they are done.
  struct Held {
    uint32_t a[4][4];
    __device__ void Keep() const {
#pragma unroll
      for (int i = 0; i < 16; ++i) asm volatile("" ::"r"(a[i / 4][i % 4]) : "memory");
    }
  };

  // To the blocks of the cluster in `to_blocks`. Behind the last outputs: the last ones again.
  __device__ static void LoadBlock(const LinearJob& job, int32_t block_row, int32_t k_block,
                                   uint32_t to, uint32_t barrier, uint16_t to_blocks) {
    const int64_t row = min(block_row, job.w_block_rows - 1);
    const uint8_t* const from = job.w + (row * job.k_blocks + k_block) * kBlockBytes;
    if (to_blocks == 1) {
      LoadPiece(from, to, barrier, kBlockBytes);
    } else {
      LoadPieceToMany(from, to, barrier, kBlockBytes, to_blocks);
    }
  }

  // A word's four values at k and four at k + 16.
  __device__ static void DecodeWord(uint32_t word, const Lookup& lookup, uint32_t& near,
                                    uint32_t& far) {
    const uint32_t magnitudes = word & 0x77777777u;
    near = __byte_perm(lookup.small, lookup.large, magnitudes) | (word & 0x80808080u);
    far = __byte_perm(lookup.small, lookup.large, magnitudes >> 16) | (word << 4 & 0x80808080u);
  }

  template <class LookupOf>
  __device__ static void Decode(Held& held, uint32_t w, uint32_t low, uint32_t high,
                                const LookupOf& lookup_of) {
    const uint32_t thread = threadIdx.x % 128;
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const uint4 words = LoadShared16(w + v * 2048 + thread * 16);
      uint32_t(&first)[4] = held.a[2 * v];
      uint32_t(&second)[4] = held.a[2 * v + 1];
      DecodeWord(words.x, lookup_of(low >> (8 * v) & 15), first[0], first[2]);
      DecodeWord(words.y, lookup_of(high >> (8 * v) & 15), first[1], first[3]);
      DecodeWord(words.z, lookup_of(low >> (8 * v + 4) & 15), second[0], second[2]);
      DecodeWord(words.w, lookup_of(high >> (8 * v + 4) & 15), second[1], second[3]);
    }
  }

  template <int kRows>
  __device__ static void Multiply(float (&part)[kRows / 2], Held& held, uint32_t w, uint32_t x) {
    const uint32_t output = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    const uint32_t low = LoadShared2(w + 4096 + output * 2);
    const uint32_t high = LoadShared2(w + 4096 + output * 2 + 16);
    // A nibble of 12 or more has its two top bits set.
    if (((low & low << 1 | high & high << 1) & 0x8888u) != 0) {
      Decode(held, w, low, high, LookupFar);
    } else {
      Decode(held, w, low, high, LookupNear);
    }
    const uint64_t b = MatrixDescriptor(x);
    __syncwarp();
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < 4; ++i) Wgmma<kRows>::E4m3(part, held.a[i], b + 2 * i, i);
  }
};

}  // namespace

absl::Status LaunchFp4(Stream stream, const LinearPlan& plan) {
  return Launch<Fp4Weights>(stream, plan);
}

}  // namespace cairn::kernels::cuda::internal
