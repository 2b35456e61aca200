// gpu_benches.h: what each file of comparisons that need a GPU adds to the list.
//
// Threads, units, errors: bench.h.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_

#include <vector>

#include "tools/cairn-bench/bench.h"

namespace cairn::bench {

void AddGpuAttentionBenches(std::vector<Bench>& benches);  // gpu_attention_bench.cc
void AddGpuDecodeBenches(std::vector<Bench>& benches);     // gpu_decode_bench.cc
void AddGpuDiskBench(std::vector<Bench>& benches);         // gpu_disk_bench.cc
void AddGpuExpertBenches(std::vector<Bench>& benches);     // gpu_expert_bench.cc
void AddGpuIndexerBenches(std::vector<Bench>& benches);    // gpu_indexer_bench.cc
void AddGpuLinearBenches(std::vector<Bench>& benches);     // gpu_linear_bench.cc
void AddGpuModelBenches(std::vector<Bench>& benches);      // gpu_model_bench.cc
void AddGpuRowsBenches(std::vector<Bench>& benches);       // gpu_rows_bench.cc
void AddGpuTierBenches(std::vector<Bench>& benches);       // gpu_tier_bench.cc

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_BENCHES_H_
