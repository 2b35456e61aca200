#include "kernels/cpu/cpu_path.h"

#include <atomic>
#include <cstdio>

#include "kernels/cpu/products_check.h"

namespace cairn::kernels {
namespace {

CpuPath WidestRight() {
  if (!HasCpuPath(CpuPath::kAvx512)) return CpuPath::kAvx2;
  if (SameBits(Avx2Products(), Avx512Products()) && SameBits(Avx2RowLoops(), Avx512RowLoops())) {
    return CpuPath::kAvx512;
  }
  std::fputs("cairn: AVX-512 gives other bits than AVX2 here: not used\n", stderr);
  return CpuPath::kAvx2;
}

std::atomic<CpuPath>& Chosen() {
  static std::atomic<CpuPath> chosen(WidestRight());
  return chosen;
}

}  // namespace

bool HasCpuPath(CpuPath path) {
  // What x86-64-v4 has beyond x86-64-v3, as products_avx512.cc is compiled.
  return path == CpuPath::kAvx2 ||
         (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl"));
}

CpuPath ChosenCpuPath() { return Chosen().load(std::memory_order_relaxed); }

void ChooseCpuPath(CpuPath path) { Chosen().store(path, std::memory_order_relaxed); }

}  // namespace cairn::kernels
