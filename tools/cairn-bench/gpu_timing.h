// gpu_timing.h: how long launches take, by the device's own events, and the copy that memory-bound
// kernels stand beside.
//
// Threads: one. Units: seconds; GB/s is 1e9 bytes a second.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_TIMING_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_TIMING_H_

#include <cstdint>
#include <functional>

#include "kernels/cuda/device.h"
#include "tools/cairn-bench/bench.h"

namespace cairn::bench {

// Seconds a launch, over as many as take about 60 ms together, after a few that are not counted.
// `launch(i)` puts the i-th on the stream: it takes other inputs each time where they would stay in
// the cache (50 MiB or 60 MiB), so that memory is what is measured.
absl::StatusOr<double> SecondsALaunch(kernels::cuda::Stream stream,
                                      const std::function<absl::Status(int64_t i)>& launch);

// A device-to-device copy of 1 GiB, GB/s of bytes read and bytes written together.
absl::StatusOr<Contender> DeviceCopyLimit();

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_TIMING_H_
