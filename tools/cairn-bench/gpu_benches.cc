// The comparisons that need a GPU; built where CUDA is.
#include "tools/cairn-bench/gpu_benches.h"

#include "tools/cairn-bench/benches.h"

namespace cairn::bench {

void AddGpuBenches(std::vector<Bench>& benches) { AddGpuRowsBenches(benches); }

}  // namespace cairn::bench
