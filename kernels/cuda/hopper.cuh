// hopper.cuh: sm_90a's own instructions as functions: barriers in shared memory, the bulk copy
// engine, clusters, registers of a warpgroup. Shared memory is named by its 32-bit address.
//
// A wait that is never answered is a mistake in a kernel: it traps after seconds, so that the
// stream says so instead of hanging.
#ifndef CAIRN_KERNELS_CUDA_HOPPER_CUH_
#define CAIRN_KERNELS_CUDA_HOPPER_CUH_

#include <cstdint>

#include "kernels/cuda/tensor_map.h"

namespace cairn::kernels::cuda {

__device__ inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- barriers ----

__device__ inline void BarrierInit(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

// After BarrierInit, before others of the cluster and the copy engine see the barriers.
__device__ inline void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// One arrival, and so many bytes that the copy engine will bring.
__device__ inline void BarrierExpect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

__device__ inline void BarrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The address in block `rank` of the cluster of what is at `address` here.
__device__ inline uint32_t AddressInBlock(uint32_t address, uint32_t rank) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}

// At the same barrier of block `rank` of the cluster. Tells that shared memory was read; to tell
// another block of writes it would have to wait for all of this thread's.
__device__ inline void BarrierArriveAt(uint32_t barrier, uint32_t rank) {
  asm volatile("mbarrier.arrive.release.cta.shared::cluster.b64 _, [%0];" ::"r"(
                   AddressInBlock(barrier, rank))
               : "memory");
}

__device__ inline bool BarrierPassed(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n .reg .pred p;\n"
      " mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      " selp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

__device__ inline void BarrierWait(uint32_t barrier, uint32_t parity) {
  if (BarrierPassed(barrier, parity)) return;
  const int64_t start = clock64();
  while (!BarrierPassed(barrier, parity)) {
    if (clock64() - start > int64_t{1} << 33) __trap();
  }
}

// Threads of some warps; `id` 1 to 15.
__device__ inline void NamedBarrier(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- clusters ----

__device__ inline uint32_t ClusterRank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ inline uint32_t ClusterSize() {
  uint32_t blocks;
  asm volatile("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(blocks));
  return blocks;
}

// All threads of the cluster. Orders nothing but barriers that were published.
__device__ inline void ClusterBarrier() {
  asm volatile(
      "barrier.cluster.arrive.relaxed.aligned;\n"
      "barrier.cluster.wait.aligned;" ::
          : "memory");
}

// `bytes` of this block's shared memory, in one piece, to a block of the cluster (AddressInBlock);
// they count at `barrier`, of that block. After FenceForCopies in each thread that wrote them.
__device__ inline void CopyToBlock(uint32_t from, uint32_t to, uint32_t barrier, uint32_t bytes) {
  asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes"
      " [%0], [%1], %2, [%3];" ::"r"(to),
      "r"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ inline void FenceForCopies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- kernels one after the other ----

// ---- the bulk copy engine ----

// The box at (column, row) of the map to `to`; its bytes count at `barrier`.
__device__ inline void LoadBox(const TensorMap& map, uint32_t to, uint32_t barrier, int32_t column,
                               int32_t row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}

// The same to the same place, and barrier, of each block of the cluster in `blocks`.
__device__ inline void LoadBoxToMany(const TensorMap& map, uint32_t to, uint32_t barrier,
                                     int32_t column, int32_t row, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(to),
      "l"(&map), "r"(barrier), "h"(blocks), "r"(column), "r"(row)
      : "memory");
}

// The box at `from` in shared memory (FenceForCopies) to (column, row) of the map, but for what of
// it lies outside. By one thread, whose WaitForStores waits until they all have left shared memory.
__device__ inline void StoreBox(const TensorMap& map, uint32_t from, int32_t column, int32_t row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];\n"
      "cp.async.bulk.commit_group;" ::"l"(&map),
      "r"(from), "r"(column), "r"(row)
      : "memory");
}
__device__ inline void WaitForStores() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// `bytes` in one piece; addresses and size of whole 16 bytes.
__device__ inline void LoadPiece(const void* from, uint32_t to, uint32_t barrier, uint32_t bytes) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

__device__ inline void LoadPieceToMany(const void* from, uint32_t to, uint32_t barrier,
                                       uint32_t bytes, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(blocks)
      : "memory");
}

// ---- registers of a warpgroup ----

template <uint32_t kRegisters>
__device__ inline void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <uint32_t kRegisters>
__device__ inline void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- shared memory ----

__device__ inline uint4 LoadShared16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

__device__ inline float4 LoadSharedF32x4(uint32_t address) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

__device__ inline float LoadSharedF32(uint32_t address) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address) : "memory");
  return v;
}

__device__ inline uint32_t LoadShared2(uint32_t address) {
  uint16_t v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(address) : "memory");
  return v;
}

__device__ inline void StoreSharedF32x4(uint32_t address, float4 v) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(v.x), "f"(v.y),
               "f"(v.z), "f"(v.w)
               : "memory");
}

// Four 8 x 8 matrices of 16-bit values, held as mma results are: lane 8 i + r gives the address of
// row r of matrix i, 16 bytes.
__device__ inline void StoreMatrices(uint32_t address, uint32_t v0, uint32_t v1, uint32_t v2,
                                     uint32_t v3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(v0), "r"(v1), "r"(v2), "r"(v3)
               : "memory");
}

// The same, each stored transposed: lane 8 i + r gives the address of column r of matrix i, which
// becomes 16 bytes in a row.
__device__ inline void StoreTransposed(uint32_t address, uint32_t v0, uint32_t v1, uint32_t v2,
                                       uint32_t v3) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(v0), "r"(v1), "r"(v2), "r"(v3)
      : "memory");
}

// An 8 x 8 matrix of 16-bit values across the warp, transposed.
__device__ inline uint32_t Transpose(uint32_t v) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(v));
  return out;
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_HOPPER_CUH_
