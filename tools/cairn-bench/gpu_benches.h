// gpu_benches.h: what each file of comparisons that need a GPU adds to the list.
//
// Threads, units, errors: bench.h.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_

#include <vector>

#include "tools/cairn-bench/bench.h"

namespace cairn::bench {

void AddGpuIndexerBenches(std::vector<Bench>& benches);  // gpu_indexer_bench.cc

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_
