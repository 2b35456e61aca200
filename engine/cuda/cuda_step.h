// cuda_step.h: what the files of a step share. Letters in shapes: cuda_workspace.h.
//
// Threads: one. Private to engine/cuda.
#ifndef CAIRN_ENGINE_CUDA_CUDA_STEP_H_
#define CAIRN_ENGINE_CUDA_CUDA_STEP_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/cuda/cuda_model.h"
#include "engine/cuda/cuda_sessions.h"
#include "engine/cuda/cuda_workspace.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/norms.h"
#include "kernels/cuda/quantise.h"

namespace cairn::engine {

// Parts of a layer that do not depend on each other: with few rows each is too small for the
// device.
enum class CudaBranch : uint8_t { kRows, kKeys, kQueries, kShared, kMixing };
constexpr size_t kCudaBranches = 5;

struct CudaStep {
  const CudaModel& model;
  const CudaSessions& sessions;
  CudaWorkspace& w;
  kernels::cuda::Stream stream;
  kernels::cuda::StepShape shape;
  int64_t rows;
  // By CudaBranch; empty: everything is on the stream.
  std::span<const kernels::cuda::Branch> branches = {};

  // The step on a stream beside this one's, behind what is on it now.
  absl::StatusOr<CudaStep> Fork(CudaBranch branch) const {
    CudaStep beside = *this;
    if (branches.empty()) return beside;
    const kernels::cuda::Branch& of = branches[static_cast<size_t>(branch)];
    CAIRN_RETURN_IF_ERROR(of.Fork(stream));
    beside.stream = of.stream();
    return beside;
  }
  absl::Status Join(CudaBranch branch) const {
    if (branches.empty()) return absl::OkStatus();
    return branches[static_cast<size_t>(branch)].Join(stream);
  }

  float norm_eps() const { return static_cast<float>(model.config.norm_eps); }
};

// Which of the layers with such a ratio this one is.
struct CudaLayerPlace {
  int64_t index = 0;    // in the model
  int64_t of_kind = 0;  // among those of its ratio
};

// x normalised, as a linear's input; and as BF16 to `out`, unless that is null.
inline absl::Status NormQuantise(const CudaStep& step, const uint16_t* x,
                                 const kernels::cuda::DeviceBuffer<uint16_t>& weight, uint16_t* out,
                                 const kernels::cuda::QuantisedRows& to) {
  return kernels::cuda::RmsNormQuantise(step.stream, x, weight.get(), to.rows, to.k,
                                        step.norm_eps(), out, to.codes, to.scales, to.scale_stride);
}

// cuda_plan.cc. What follows from tokens and spans alone, for all layers.
absl::Status PlanStep(CudaStep& step);

// cuda_attention.cc. x [R, d] normalised, its codes in w.x_codes -> w.f [R, d]. Appends to the
// sessions' rows.
absl::Status CudaAttentionLayer(CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                                const uint16_t* x);
// cuda_compressor.cc. The rows, and the indexer's keys, of groups that the step closes; of a layer
// without compressed rows none.
absl::Status CompressCudaRows(const CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                              const uint16_t* x);
// REQUIRES: block.ratio == 4.
absl::Status CompressCudaKeys(const CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                              const uint16_t* x);
// cuda_moe.cc. x [R, d] normalised, its codes in w.x_codes -> w.f [R, d].
absl::Status CudaMoeLayer(CudaStep& step, const CudaMoe& moe, const uint16_t* x);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_CUDA_STEP_H_
