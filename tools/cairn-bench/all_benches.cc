// The list of comparisons. Each file of benches has one function that adds its own.
#include "tools/cairn-bench/benches.h"

namespace cairn::bench {

std::vector<Bench> AllBenches() {
  std::vector<Bench> benches;
  AddWireBenches(benches);
  AddIndexBenches(benches);
  AddRestartBenches(benches);
  AddDiskBenches(benches);
  AddDiskPutBench(benches);
  AddHitBenches(benches);
  AddMemoryBenches(benches);
  AddFirstPassBench(benches);
  AddEngineBenches(benches);
  AddExpertBenches(benches);
  AddOverlapBenches(benches);
  AddLinearBenches(benches);
  AddTextBenches(benches);
  AddServeBenches(benches);
  AddGpuBenches(benches);
  return benches;
}

}  // namespace cairn::bench
