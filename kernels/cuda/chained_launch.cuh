// chained_launch.cuh: launches whose blocks may take their places while the kernel before them in
// the stream still runs, which hides most of a launch's latency (programmatic dependent launch).
//
// A kernel launched so calls WaitForPrevious() in every thread before it reads or writes global
// memory: it returns when all of the kernel before has ended and can be seen; so what came before
// that one has, too, if it was launched so. A kernel that calls LetNextStart() early lets the next
// one's blocks in as soon as there is room.
#ifndef CAIRN_KERNELS_CUDA_CHAINED_LAUNCH_CUH_
#define CAIRN_KERNELS_CUDA_CHAINED_LAUNCH_CUH_

#include <cuda_runtime_api.h>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

__device__ inline void WaitForPrevious() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ inline void LetNextStart() { asm volatile("griddepcontrol.launch_dependents;"); }

struct LaunchShape {
  int64_t blocks;
  int threads;
  int shared_bytes = 0;
  int cluster = 1;  // blocks of a cluster
};

template <typename... Parameters, typename... Arguments>
absl::Status LaunchChained(absl::string_view name, void (*kernel)(Parameters...),
                           const LaunchShape& shape, Stream stream, Arguments... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = shape.cluster > 1 ? 2 : 1;
  return CudaStatus(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_CHAINED_LAUNCH_CUH_
