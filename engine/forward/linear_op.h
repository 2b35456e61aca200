// linear_op.h: a packed matrix and what its input wants; an expert is three of them.
//
// Threads: values. Ownership: owns its bytes.
#ifndef CAIRN_ENGINE_FORWARD_LINEAR_OP_H_
#define CAIRN_ENGINE_FORWARD_LINEAR_OP_H_

#include <span>

#include "engine/model/weights.h"
#include "engine/state/numerics.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"
#include "store/base/status.h"

namespace cairn::engine {

// What a linear does with its input: fp8_input: it is rounded to FP8 in groups of 128 first (full
// numerics, FP8 or FP4 weights; never wo_a). pairs: PairLinear multiplies it, which rounds what is
// not rounded yet to BF16 (kFullAmx; all but F32 weights), where w.takes_pairs().
struct LinearKind {
  bool fp8_input = false;
  bool pairs = false;
};

struct LinearOp : LinearKind {
  kernels::PackedMatrix w;
};

// y = w2 . (silu(w1 x) * (w3 x)).
struct ExpertOp {
  LinearOp w1, w2, w3;
};

kernels::WeightFormat FormatOf(DType type);
kernels::RawMatrix RawOf(const LinearWeight& w);

// INVALID_ARGUMENT for a width that cannot be rounded so.
absl::StatusOr<LinearKind> KindOf(const LinearWeight& w, Numerics numerics);
// wo_a's: the reference expands it to BF16 and does not round its input to FP8.
LinearKind OutputKind(Numerics numerics);

// y [rows, op.w.n()] = W x, in the order that `op` has; x as it wants it, in rows of its width.
void Multiply(kernels::ThreadPool& pool, const LinearOp& op, const float* x, int64_t rows, float* y,
              int64_t ldy);
// y [rows, ops, op.w.n()] = each op's W x, of x [rows, ops, op.w.k()]. REQUIRES: ops of one kind,
// format and shape. By pairs where all of them can be.
void MultiplyEach(kernels::ThreadPool& pool, std::span<const LinearOp> ops, const float* x,
                  int64_t rows, float* y);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_LINEAR_OP_H_
