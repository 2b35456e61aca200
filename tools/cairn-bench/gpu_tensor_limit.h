// gpu_tensor_limit.h: what the tensor cores do when they do nothing else: BF16 products of random
// operands that lie in shared memory, F32 sums. No kernel does more.
//
// Threads: one. Units: TFLOP/s.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_TENSOR_LIMIT_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_TENSOR_LIMIT_H_

#include "tools/cairn-bench/bench.h"

namespace cairn::bench {

absl::StatusOr<Contender> TensorLimit();

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_TENSOR_LIMIT_H_
