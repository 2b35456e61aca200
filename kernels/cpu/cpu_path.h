// cpu_path.h: which instructions Linear, PanelMultiply, PairLinear and Attend are computed with,
// and rows of FP8 decoded. Results have the same bits on every path; only the speed differs.
//
// Threads: any, but for those that choose.
#ifndef CAIRN_KERNELS_CPU_CPU_PATH_H_
#define CAIRN_KERNELS_CPU_CPU_PATH_H_

#include <cstdint>

namespace cairn::kernels {

enum class CpuPath : uint8_t { kAvx2, kAvx512 };

// Whether this processor and its operating system have it.
bool HasCpuPath(CpuPath path);

// The widest there is that gives the bits of kAvx2 on this processor, which is tried once
// (products_check.h; one that does not is said on stderr), unless ChooseCpuPath said otherwise.
CpuPath ChosenCpuPath();

// For tests and benches. REQUIRES: HasCpuPath(path); nothing is being multiplied.
void ChooseCpuPath(CpuPath path);

// PairLinear's: the vectors of ChosenCpuPath; AVX-512's products of BF16; AMX.
enum class PairPath : uint8_t { kVectors, kBf16, kAmx };

// Whether this processor and its operating system have it. Asked for AMX the first time, Linux
// permits this process its tiles, unless a thread has a signal stack too small for them.
bool HasPairPath(PairPath path);

// The last of them that is there and gives the bits of kVectors, tried once as above.
PairPath ChosenPairPath();

// As ChooseCpuPath.
void ChoosePairPath(PairPath path);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_CPU_PATH_H_
