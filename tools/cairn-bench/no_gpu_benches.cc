// In place of gpu_benches.cc where CUDA is not.
#include "tools/cairn-bench/benches.h"

namespace cairn::bench {

void AddGpuBenches(std::vector<Bench>&) {}

}  // namespace cairn::bench
