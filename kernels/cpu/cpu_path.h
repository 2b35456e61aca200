// cpu_path.h: which instructions Linear, PanelMultiply and Attend are computed with, and rows of
// FP8 decoded. Results have the same bits on every path; only the speed differs.
//
// Threads: any, but for ChooseCpuPath.
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

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_CPU_PATH_H_
