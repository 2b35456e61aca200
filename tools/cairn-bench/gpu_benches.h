// gpu_benches.h: the comparisons that need a GPU, file by file. Threads: one.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_

#include <vector>

#include "tools/cairn-bench/bench.h"

namespace cairn::bench {

void AddGpuExpertBenches(std::vector<Bench>& benches);
void AddGpuLinearBenches(std::vector<Bench>& benches);

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_
