// wgmma.cuh: a warpgroup's products D [64, kN] (+)= A [64, K] B [kN, K]^T on the tensor cores: e4m3
// with K = 32, bf16 with K = 16 (32 bytes a row both), sums F32.
//
// B, and A unless in registers, lie in shared memory in rows of 128 bytes with the copy engine's
// 128-byte swizzle, at multiples of 1024 bytes; a step of 32 bytes along a row is `+ 2` on the
// descriptor. D: thread t of the warpgroup, lane l: d[4 j + i] is row 16 (t / 32) + l / 4 + 8 (i /
// 2), column 8 j + 2 (l % 4) + i % 2. A in registers, for e4m3: a[0], a[1]: rows l / 4 and + 8, k 4
// (l % 4) to + 3; a[2], a[3]: the same rows, k + 16.
#ifndef CAIRN_KERNELS_CUDA_WGMMA_CUH_
#define CAIRN_KERNELS_CUDA_WGMMA_CUH_

#include <cstdint>

namespace cairn::kernels::cuda {

// Of a matrix at shared address `address` as above: 8 rows are 1024 bytes apart (stride 64 of 16
// bytes), swizzle of 128 bytes (1 << 62).
__device__ inline uint64_t MatrixDescriptor(uint32_t address) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | uint64_t{1} << 16 | uint64_t{64} << 32 |
         uint64_t{1} << 62;
}

// Before the first product, and after registers that products read or write were touched.
__device__ inline void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kPending of the committed groups are not done.
template <int kPending>
__device__ inline void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving work on a register across products in flight.
__device__ inline void Pin(float& v) { asm volatile("" : "+f"(v)::"memory"); }

template <int kN>
struct Wgmma;

#define CAIRN_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define CAIRN_D8(i) CAIRN_D4(i), CAIRN_D4(i + 4)
#define CAIRN_D16(i) CAIRN_D8(i), CAIRN_D8(i + 8)
#define CAIRN_D32(i) CAIRN_D16(i), CAIRN_D16(i + 16)
#define CAIRN_D64(i) CAIRN_D32(i), CAIRN_D32(i + 32)

// `add` 0: D is written instead of added to. `names`: of D's
// registers; the operands after them are numbered a0 to a5.
#define CAIRN_WGMMA(kN, D, names, a0, a1, a2, a3, a4, a5)                                          \
  template <>                                                                                      \
  struct Wgmma<kN> {                                                                               \
    __device__ static void E4m3(float (&d)[kN / 2], uint64_t a, uint64_t b, int add) {             \
      asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, " a2                                        \
                   ", 0;\n wgmma.mma_async.sync.aligned.m64n" #kN "k32.f32.e4m3.e4m3 {" names      \
                   "}, " a0 ", " a1 ", p, 1, 1;\n}"                                                \
                   : D                                                                             \
                   : "l"(a), "l"(b), "r"(add));                                                    \
    }                                                                                              \
    __device__ static void E4m3(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, int add) { \
      asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, " a5                                        \
                   ", 0;\n wgmma.mma_async.sync.aligned.m64n" #kN "k32.f32.e4m3.e4m3 {" names      \
                   "}, {" a0 ", " a1 ", " a2 ", " a3 "}, " a4 ", p, 1, 1;\n}"                      \
                   : D                                                                             \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));                \
    }                                                                                              \
    __device__ static void Bf16(float (&d)[kN / 2], uint64_t a, uint64_t b, int add) {             \
      asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, " a2                                        \
                   ", 0;\n wgmma.mma_async.sync.aligned.m64n" #kN "k16.f32.bf16.bf16 {" names      \
                   "}, " a0 ", " a1 ", p, 1, 1, 0, 0;\n}"                                          \
                   : D                                                                             \
                   : "l"(a), "l"(b), "r"(add));                                                    \
    }                                                                                              \
  };

CAIRN_WGMMA(8, CAIRN_D4(0), "%0, %1, %2, %3", "%4", "%5", "%6", "%7", "%8", "%9")
CAIRN_WGMMA(16, CAIRN_D8(0), "%0, %1, %2, %3, %4, %5, %6, %7", "%8", "%9", "%10", "%11", "%12",
            "%13")
CAIRN_WGMMA(32, CAIRN_D16(0),
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15", "%16", "%17",
            "%18", "%19", "%20", "%21")
CAIRN_WGMMA(64, CAIRN_D32(0),
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31",
            "%32", "%33", "%34", "%35", "%36", "%37")
CAIRN_WGMMA(128, CAIRN_D64(0),
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63",
            "%64", "%65", "%66", "%67", "%68", "%69")

#undef CAIRN_WGMMA
#undef CAIRN_D64
#undef CAIRN_D32
#undef CAIRN_D16
#undef CAIRN_D8
#undef CAIRN_D4

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_WGMMA_CUH_
