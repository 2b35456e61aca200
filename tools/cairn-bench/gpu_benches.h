// gpu_benches.h: what each file of GPU comparisons adds to the list.
//
// Threads, units, errors: bench.h.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_

#include <vector>

#include "tools/cairn-bench/bench.h"

namespace cairn::bench {

void AddGpuRowsBenches(std::vector<Bench>& benches);  // gpu_rows_bench.cc

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_
