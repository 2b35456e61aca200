// attention_mma.cuh: the warpgroup products of attention.cu, and waits between its warpgroups. D
// fragments, as the tensor cores hold them: thread t of a warpgroup, lane l = t % 32: d[4 i + e] is
// row 16 (t / 32) + l / 4 + 8 (e / 2), column 8 i + 2 (l % 4) + e % 2.
//
// Operands in shared memory are tiles of rows x 64 BF16: 128 bytes a row, rows at 128 bytes,
// 16-byte chunk j of row r at chunk j ^ (r % 8) (the 128-byte swizzle); tiles aligned to 1024
// bytes.
#ifndef CAIRN_KERNELS_CUDA_ATTENTION_MMA_CUH_
#define CAIRN_KERNELS_CUDA_ATTENTION_MMA_CUH_

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace cairn::kernels::cuda::mma {

// ---- barriers ----

// The n-th use of a thing with one place waits for these barriers of it.
__device__ inline void WaitFull(uint64_t& barrier, uint32_t n) {
  BarrierWait(SharedAddress(&barrier), n & 1);
}
__device__ inline void WaitEmpty(uint64_t& barrier, uint32_t n) {
  BarrierWait(SharedAddress(&barrier), (n & 1) ^ 1);
}

// One arrival of a warp for what all its lanes did.
__device__ inline void WarpArrive(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) BarrierArrive(barrier);
}

// ---- loads ----

// Asks for 16 bytes.
__device__ inline void LoadAsync16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// This thread's arrival, when all is there that it asked for.
__device__ inline void ArriveAfterLoads(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// ---- launches ----

// What a kernel's dynamic shared memory holds, from the first multiple of 1024 on.
template <typename T>
__device__ inline T* AlignedShared(uint8_t* memory) {
  return reinterpret_cast<T*>(memory + (1024 - SharedAddress(memory) % 1024) % 1024);
}

template <typename Kernel>
absl::Status AllowShared(Kernel* kernel, int bytes) {
  return CudaStatus(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
      "a kernel's shared memory");
}

// ---- products ----

// Ordinary stores to shared memory before this are seen by products that follow a barrier.
__device__ inline void FenceForProducts() {
  FenceForCopies();  // both read the same way
}

// A tile in shared memory as an operand; moved by a step at little cost.
class Operand {
 public:
  // A, or B stored row = n: k along a row. A step of 16 k is 32 bytes.
  __device__ static Operand AlongRows(uint32_t address) { return Operand(address, 16); }
  // B stored row = k: n along a row, 64 to a tile, tiles `tile_bytes` apart. A step of 16 k is 2048
  // bytes.
  __device__ static Operand AcrossRows(uint32_t address, uint32_t tile_bytes) {
    return Operand(address, tile_bytes);
  }
  __device__ uint64_t At(uint32_t bytes) const {
    return static_cast<uint64_t>(kUpper) << 32 | (lower_ + (bytes >> 4));
  }

 private:
  // Groups of 8 rows are 1024 bytes apart; swizzle of 128 bytes.
  static constexpr uint32_t kUpper = 1u << 30 | 1024 >> 4;
  __device__ Operand(uint32_t address, uint32_t leading_bytes)
      : lower_((address & 0x3ffff) >> 4 | leading_bytes >> 4 << 16) {}
  uint32_t lower_;
};

// Issued products are done; their results may be read.
template <int kCount>
__device__ inline void FinishProducts(float (&d)[kCount]) {
  WgmmaCommit();
  WgmmaWait<0>();
#pragma unroll
  for (int i = 0; i < kCount; ++i) Pin(d[i]);
}

#define CAIRN_D8(i)                                                                           \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define CAIRN_D32(i) CAIRN_D8(i), CAIRN_D8(i + 8), CAIRN_D8(i + 16), CAIRN_D8(i + 24)
// "%<tens>0, ..., %<tens>9"
#define CAIRN_TEN(tens)                                                                        \
  "%" tens "0, %" tens "1, %" tens "2, %" tens "3, %" tens "4, %" tens "5, %" tens "6, %" tens \
  "7, %" tens "8, %" tens "9"

// d [64, 64] = or += a [64, 16] b [64, 16]^T.
__device__ inline void MultiplyScores(float (&d)[32], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n .reg .pred p;\n setp.ne.b32 p, %34, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" CAIRN_TEN("") ", " CAIRN_TEN(
          "1") ", " CAIRN_TEN("2") ", %30, %31}, %32, %33, p, 1, 1, 0, 0;\n}"
      : CAIRN_D32(0)
      : "l"(a), "l"(b), "r"(add));
}

// d [64, 64] += a [64, 16] b [16, 64]; a as a D fragment's columns 16 k to + 15, packed.
__device__ inline void MultiplyRows(float (&d)[32], const uint32_t* a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" CAIRN_TEN("") ", "
               CAIRN_TEN("1") ", " CAIRN_TEN("2") ", %30, %31}, "
               "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
               : CAIRN_D32(0)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// d's columns 128 kHalf to + 127 of [64, 256] += a [64, 16] b [16, 128]; a as above.
template <int kHalf>
__device__ inline void MultiplyRows(float (&d)[128], const uint32_t* a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
               CAIRN_TEN("") ", " CAIRN_TEN("1") ", " CAIRN_TEN("2") ", " CAIRN_TEN("3") ", "
               CAIRN_TEN("4") ", " CAIRN_TEN("5") ", %60, %61, %62, %63}, "
               "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
               : CAIRN_D32(64 * kHalf), CAIRN_D32(64 * kHalf + 32)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef CAIRN_TEN
#undef CAIRN_D32
#undef CAIRN_D8

// ---- fragments ----

// Rounded to nearest even; `low` in the lower half.
__device__ inline uint32_t PackBf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Of four lanes (l % 4), each with v[t] for t = 0..3: lane t gets all four lanes' v[t], in order.
__device__ inline uint4 TransposeQuad(uint32_t v0, uint32_t v1, uint32_t v2, uint32_t v3) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
  const uint32_t r0 = __shfl_xor_sync(0xffffffffu, odd ? v0 : v1, 1);
  const uint32_t r1 = __shfl_xor_sync(0xffffffffu, odd ? v2 : v3, 1);
  // Now of tile l % 2 (and + 2), the lanes l & ~1 and l | 1.
  const uint2 low = odd ? make_uint2(r0, v1) : make_uint2(v0, r0);
  const uint2 high = odd ? make_uint2(r1, v3) : make_uint2(v2, r1);
  const uint2 given = upper ? low : high;
  const uint2 taken = make_uint2(__shfl_xor_sync(0xffffffffu, given.x, 2),
                                 __shfl_xor_sync(0xffffffffu, given.y, 2));
  return upper ? make_uint4(taken.x, taken.y, high.x, high.y)
               : make_uint4(low.x, low.y, taken.x, taken.y);
}

}  // namespace cairn::kernels::cuda::mma

#endif  // CAIRN_KERNELS_CUDA_ATTENTION_MMA_CUH_
