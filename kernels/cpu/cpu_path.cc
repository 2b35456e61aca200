#include "kernels/cpu/cpu_path.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

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

// arch_prctl(2): a process must ask before its threads have tiles.
constexpr int kRequestFeature = 0x1023, kTileData = 18;

bool HasVbmi() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  return HasCpuPath(CpuPath::kAvx512) && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 &&
         (c >> 1 & 1) != 0;
}

bool HasBf16() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  return HasVbmi() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
}

bool HasAmx() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  if (!HasBf16() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool bf16 = (d >> 22 & 1) != 0, tiles = (d >> 24 & 1) != 0;
  return bf16 && tiles && syscall(SYS_arch_prctl, kRequestFeature, kTileData) == 0;
}

PairPath FastestRight() {
  if (HasPairPath(PairPath::kAmx)) {
    if (SamePairBits(Avx2Products(), AmxPairTiles())) return PairPath::kAmx;
    std::fputs("cairn: products with AMX have other bits than without it here: not used\n", stderr);
  }
  if (HasPairPath(PairPath::kBf16)) {
    if (SamePairBits(Avx2Products(), Bf16PairTiles())) return PairPath::kBf16;
    std::fputs("cairn: AVX-512's products of BF16 have other bits than AVX2's here: not used\n",
               stderr);
  }
  return PairPath::kVectors;
}

std::atomic<PairPath>& ChosenPair() {
  static std::atomic<PairPath> chosen(FastestRight());
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

bool HasPairPath(PairPath path) {
  static const bool bf16 = HasBf16();
  if (path == PairPath::kBf16) return bf16;
  static const bool amx = HasAmx();
  return path == PairPath::kVectors || amx;
}

PairPath ChosenPairPath() { return ChosenPair().load(std::memory_order_relaxed); }

void ChoosePairPath(PairPath path) { ChosenPair().store(path, std::memory_order_relaxed); }

}  // namespace cairn::kernels
