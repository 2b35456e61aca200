// The comparisons that need a GPU; built where CUDA is.
#include "tools/cairn-bench/gpu_benches.h"

#include "tools/cairn-bench/benches.h"

namespace cairn::bench {

void AddGpuBenches(std::vector<Bench>& benches) {
  AddGpuTierBenches(benches);
  AddGpuDiskBench(benches);
  AddGpuLinearBenches(benches);
  AddGpuExpertBenches(benches);
  AddGpuAttentionBenches(benches);
  AddGpuIndexerBenches(benches);
  AddGpuRowsBenches(benches);
  AddGpuDecodeBenches(benches);
  AddGpuModelBenches(benches);
}

}  // namespace cairn::bench
