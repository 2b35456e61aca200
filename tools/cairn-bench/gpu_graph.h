// gpu_graph.h: launches recorded once and replayed, so that what is timed is the device's work and
// not the host's calls.
//
// Threads: one. Errors: of the launches and of CUDA; INTERNAL.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_GRAPH_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_GRAPH_H_

#include <cstdint>
#include <functional>

#include "kernels/cuda/device.h"

namespace cairn::bench {

// Seconds a launch, over replays of a graph of launch(stream, 0) to launch(stream, count - 1), one
// after the other. They take other inputs each time where memory is to be measured (gpu_timing.h).
absl::StatusOr<double> SecondsInGraph(
    int64_t count,
    const std::function<absl::Status(kernels::cuda::Stream stream, int64_t i)>& launch);

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_GRAPH_H_
