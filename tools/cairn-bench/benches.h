// benches.h: what each file of comparisons adds to the list.
//
// Threads, units, errors: bench.h.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_BENCHES_H_
#define CAIRN_TOOLS_CAIRN_BENCH_BENCHES_H_

#include <vector>

#include "tools/cairn-bench/bench.h"

namespace cairn::bench {

void AddIndexBenches(std::vector<Bench>& benches);    // index_bench.cc
void AddRestartBenches(std::vector<Bench>& benches);  // restart_bench.cc
void AddWireBenches(std::vector<Bench>& benches);     // wire_bench.cc
void AddDiskBenches(std::vector<Bench>& benches);     // disk_bench.cc
void AddDiskPutBench(std::vector<Bench>& benches);    // disk_put_bench.cc
void AddHitBenches(std::vector<Bench>& benches);      // hit_bench.cc
void AddMemoryBenches(std::vector<Bench>& benches);   // memory_bench.cc
void AddFirstPassBench(std::vector<Bench>& benches);  // first_pass_bench.cc
void AddEngineBenches(std::vector<Bench>& benches);   // engine_bench.cc
void AddExpertBenches(std::vector<Bench>& benches);   // expert_bench.cc
void AddOverlapBenches(std::vector<Bench>& benches);  // overlap_bench.cc
void AddLinearBenches(std::vector<Bench>& benches);   // linear_bench.cc
void AddTextBenches(std::vector<Bench>& benches);     // text_bench.cc
void AddServeBenches(std::vector<Bench>& benches);    // serve_bench.cc
void AddGpuBenches(std::vector<Bench>& benches);      // gpu_benches.cc, or no_gpu_benches.cc

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_BENCHES_H_
