// indexer_rows.cuh: how blocks share the rows of all groups, and a thread's way of rows from memory
// to the registers of wgmma.
//
// Device code only. Blocks are of kIndexThreads threads; of each step of kIndexStepRows rows a
// warpgroup has 64, a warp 16, and a thread parts of two: rows g and g + 8 of the warp's, g = lane
// / 4, of which it has the group of 32 dims c = lane % 4.
#ifndef CAIRN_KERNELS_CUDA_INDEXER_ROWS_CUH_
#define CAIRN_KERNELS_CUDA_INDEXER_ROWS_CUH_

#include <cstdint>

#include "kernels/cuda/indexer.h"
#include "kernels/cuda/indexer_mma.cuh"
#include "kernels/cuda/indexer_query.cuh"

namespace cairn::kernels::cuda {

constexpr int kIndexThreads = 512;
constexpr int kIndexStepRows = kIndexThreads / 2;
// Steps of which a thread holds bytes in shared memory, all but one on their way.
constexpr int kIndexStages = 4;

// ---- which rows ----

__device__ inline int StepsOf(const IndexGroup& group) {
  return (group.rows + kIndexStepRows - 1) / kIndexStepRows;
}

// A stretch of a group's steps.
struct Stretch {
  IndexGroup group;
  int first, last;

  // The first of this warp's 16 rows of a step.
  __device__ int WarpRow(int step) const {
    return step * kIndexStepRows + static_cast<int>(threadIdx.x) / 32 * 16;
  }
};

// Steps of all groups. By a whole warp, as the next.
__device__ inline int AllSteps(const IndexGroup* groups, int64_t group_count) {
  int steps = 0;
  for (int64_t i = threadIdx.x % 32; i < group_count; i += 32) steps += StepsOf(groups[i]);
  return static_cast<int>(__reduce_add_sync(0xffffffffu, static_cast<unsigned>(steps)));
}

// The group that has step `wanted` of all groups' steps in a row, from that step to its end.
__device__ inline Stretch FindStretch(const IndexGroup* groups, int64_t group_count, int wanted) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int64_t base = 0;; base += 32) {
    const int steps = base + lane < group_count ? StepsOf(groups[base + lane]) : 0;
    int end = steps;
    for (int apart = 1; apart < 32; apart *= 2) {
      const int lower = __shfl_up_sync(0xffffffffu, end, apart);
      if (lane >= apart) end += lower;
    }
    end += before;
    const uint32_t later = __ballot_sync(0xffffffffu, end > wanted);
    if (later == 0) {
      before = __shfl_sync(0xffffffffu, end, 31);
      continue;
    }
    const int found = __ffs(static_cast<int>(later)) - 1;
    const int first = wanted - __shfl_sync(0xffffffffu, end - steps, found);
    const IndexGroup group = groups[base + found];
    return {group, first, StepsOf(group)};
  }
}

// ---- from memory to shared memory ----

// 16 or 4 bytes; zeros where `wanted` is false, and then nothing is read.
template <int kBytes>
__device__ inline void CopyAsync(uint32_t to, const void* from, bool wanted) {
  const int bytes = wanted ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
  }
}

__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int kPending>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

struct IndexRowSlots {
  uint4 data[kIndexStages][2][kIndexThreads];
  uint32_t scales[kIndexStages][2][kIndexThreads];
  uint2 magnitudes[kIndexShiftMax + 2];  // by shift, filled by the kernel
};

// A stretch's rows on their way through this thread's slots, step by step: a thread fetches what it
// unpacks, so that nothing waits for another thread.
class RowReader {
 public:
  __device__ RowReader(const Stretch& stretch, const IndexRowSlots& slots)
      : data_slot_(SharedAddress(&slots.data[0][0][threadIdx.x])),
        scale_slot_(SharedAddress(&slots.scales[0][0][threadIdx.x])),
        magnitudes_(SharedAddress(slots.magnitudes)) {
    const int lane = threadIdx.x % 32;
    const int64_t row = stretch.WarpRow(stretch.first) + lane / 4;
    data_ = stretch.group.data + row * kIndexRowDataBytes + lane % 4 * 16;
    scales_ = stretch.group.scales + row * kIndexRowScaleBytes;
    left_ = min(stretch.group.rows, stretch.last * kIndexStepRows) - static_cast<int>(row);
    // Kept in registers, where the compiler would compute them anew each time.
    asm volatile("" : "+r"(data_slot_), "+r"(scale_slot_), "+r"(magnitudes_));
  }

  // Starts on the next step, to be found in `stage`; past the stretch's end nothing is read.
  __device__ void Fetch(int stage) {
    for (int half = 0; half < 2; ++half) {
      const bool wanted = left_ > 8 * half;
      CopyAsync<16>(data_slot_ + 16 * Slot(stage, half), data_ + 8 * half * kIndexRowDataBytes,
                    wanted);
      CopyAsync<4>(scale_slot_ + 4 * Slot(stage, half), scales_ + 8 * half * kIndexRowScaleBytes,
                   wanted);
    }
    CommitCopies();
    data_ += kIndexStepRows * kIndexRowDataBytes;
    scales_ += kIndexStepRows * kIndexRowScaleBytes;
    left_ -= kIndexStepRows;
  }

  // Of the row g + 8 * half.
  __device__ uint4 Codes(int stage, int half) const {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(data_slot_ + 16 * Slot(stage, half)));
    return v;
  }
  __device__ uint32_t Scales(int stage, int half) const {
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(scale_slot_ + 4 * Slot(stage, half)));
    return v;
  }
  __device__ uint2 Magnitudes(uint32_t shift_times_eight) const {
    uint2 v;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                 : "=r"(v.x), "=r"(v.y)
                 : "r"(magnitudes_ + shift_times_eight));
    return v;
  }

 private:
  __device__ static constexpr uint32_t Slot(int stage, int half) {
    return static_cast<uint32_t>((stage * 2 + half) * kIndexThreads);
  }

  uint32_t data_slot_, scale_slot_, magnitudes_;
  const uint8_t* data_;  // of this thread's first row in the next step
  const uint8_t* scales_;
  int left_;  // rows from that one to the end
};

// ---- from there to registers ----

struct Keys {
  uint32_t codes[4][4];  // of each wgmma of 32 columns: what it takes of this thread
  float scale;           // of row g for even c, of row g + 8 for odd
};

// How far this thread's group of dims lies below the largest of its row, kIndexShiftMax + 1 where
// it is too far: in the upper bytes of 16-bit halves, of row g below.
using Shifts = uint32_t;
constexpr Shifts kTooFar = (kIndexShiftMax + 1u) * 0x01000100u;

// From the four scale bytes of each of the two rows.
__device__ inline Shifts FindShifts(uint32_t first, uint32_t second, float& scale) {
  const uint32_t c = threadIdx.x % 4;
  // The first row's in the lower half, the second's in the upper; what stands in the lower byte of
  // a half cannot outweigh the upper one.
  const uint32_t low = Permute(first, second, 0x5410);
  const uint32_t high = Permute(first, second, 0x7632);
  const uint32_t most = __vmaxu2(__vmaxu2(low, low << 8), __vmaxu2(high, high << 8));
  const uint32_t own = Permute(first, second, c << 4 | (4 + c) << 12);
  const uint32_t byte = most >> (c % 2 == 0 ? 8 : 24) & 0xffu;
  // As IndexScale.
  scale = __uint_as_float(max(byte << 23, 0x00400000u));
  return __vminu2((most & 0xff00ff00u) - (own & 0xff00ff00u), kTooFar);
}

__device__ inline Shifts UnpackKeys(const RowReader& rows, int stage, Keys& keys) {
  const uint4 data[2] = {rows.Codes(stage, 0), rows.Codes(stage, 1)};
  const Shifts shifts = FindShifts(rows.Scales(stage, 0), rows.Scales(stage, 1), keys.scale);
  // From the upper byte of a half, times eight.
  const uint32_t places[2] = {(shifts & 0xffffu) >> 5, shifts >> 21};
  for (int half = 0; half < 2; ++half) {
    const uint2 magnitudes = rows.Magnitudes(places[half]);
    const uint32_t words[4] = {data[half].x, data[half].y, data[half].z, data[half].w};
    for (int s = 0; s < 4; ++s) {
      Unpack(words[s], magnitudes, keys.codes[s][half], keys.codes[s][2 + half]);
    }
  }
  return shifts;
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_INDEXER_ROWS_CUH_
