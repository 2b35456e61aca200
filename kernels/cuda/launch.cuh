// launch.cuh: kernels that start before the one before them on the stream has ended (programmatic
// dependent launch), so that getting ready costs no time between them.
//
// A kernel launched so begins with LetNextStart() and calls WaitForKernelsBefore() before it reads
// what others wrote or writes anything itself; in each block at least one thread does. Where many
// short blocks follow one another an early start costs more than it hides (quantise.cu): kernels
// that have those begin with LetNextStartOfFew() and are launched by LaunchEarlyIfFew(), or plainly
// where that was faster.
#ifndef CAIRN_KERNELS_CUDA_LAUNCH_CUH_
#define CAIRN_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

// Blocks of the kernel behind this one may take their places as soon as there is room.
__device__ inline void LetNextStart() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
// The kernels before this one have ended; what they wrote is seen.
__device__ inline void WaitForKernelsBefore() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// As many as take their places at once on any Hopper GPU.
constexpr unsigned kFewBlocks = 256;
__host__ __device__ inline bool IsFew(const dim3& grid) {
  return uint64_t{grid.x} * grid.y * grid.z <= kFewBlocks;
}
__device__ inline void LetNextStartOfFew() {
  if (IsFew(gridDim)) LetNextStart();
}

struct LaunchShape {
  dim3 grid;
  dim3 threads;
  int64_t shared_bytes = 0;
  unsigned cluster = 1;  // blocks, side by side in x
};

template <typename... Parameters, typename... Arguments>
absl::Status LaunchEarlyIf(bool early, Stream stream, absl::string_view name,
                           const LaunchShape& shape, void (*kernel)(Parameters...),
                           const Arguments&... arguments) {
  // Only those that say something: they cost time even where they say what is so without them.
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (early) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {shape.cluster, 1, 1};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.threads;
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  return CudaStatus(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
}

template <typename... Parameters, typename... Arguments>
absl::Status LaunchEarly(Stream stream, absl::string_view name, const LaunchShape& shape,
                         void (*kernel)(Parameters...), const Arguments&... arguments) {
  return LaunchEarlyIf(true, stream, name, shape, kernel, arguments...);
}

template <typename... Parameters, typename... Arguments>
absl::Status LaunchEarlyIfFew(Stream stream, absl::string_view name, const LaunchShape& shape,
                              void (*kernel)(Parameters...), const Arguments&... arguments) {
  return LaunchEarlyIf(IsFew(shape.grid), stream, name, shape, kernel, arguments...);
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_LAUNCH_CUH_
