// linear_op.h: a packed matrix and what its input wants; an expert is three of them.
//
// Threads: values. Ownership: owns its bytes.
#ifndef CAIRN_ENGINE_FORWARD_LINEAR_OP_H_
#define CAIRN_ENGINE_FORWARD_LINEAR_OP_H_

#include "engine/model/weights.h"
#include "engine/state/numerics.h"
#include "kernels/cpu/packed_matrix.h"
#include "store/base/status.h"

namespace cairn::engine {

// fp8_input: the input is rounded to FP8 in groups of 128 first (full numerics, FP8 or FP4 weights;
// never wo_a).
struct LinearOp {
  kernels::PackedMatrix w;
  bool fp8_input = false;
};

// y = w2 . (silu(w1 x) * (w3 x)).
struct ExpertOp {
  LinearOp w1, w2, w3;
};

kernels::WeightFormat FormatOf(DType type);
kernels::RawMatrix RawOf(const LinearWeight& w);

// LinearOp::fp8_input of it. INVALID_ARGUMENT for a width that cannot be rounded so.
absl::StatusOr<bool> RoundsInput(const LinearWeight& w, Numerics numerics);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_LINEAR_OP_H_
