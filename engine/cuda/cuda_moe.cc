// Spec section 2.7.
#include "engine/cuda/cuda_step.h"
#include "kernels/cuda/routing.h"

namespace cairn::engine {
namespace {

using kernels::cuda::ExpertRows;
using kernels::cuda::Linear;
using kernels::cuda::QuantisedRows;

absl::Status RunShared(const CudaStep& step, const CudaMoe& moe, const QuantisedRows& input) {
  const ModelConfig& c = step.model.config;
  CudaWorkspace& w = step.w;
  CAIRN_RETURN_IF_ERROR(Linear(step.stream, moe.shared_gate_up.view, input,
                               {w.shared_gate_up.get(), 2 * c.expert_dim}));
  const QuantisedRows middle = w.shared_codes.Rows(step.rows, c.expert_dim);
  CAIRN_RETURN_IF_ERROR(kernels::cuda::QuantiseSwiGlu(step.stream, w.shared_gate_up.get(), nullptr,
                                                      static_cast<float>(c.swiglu_limit), middle));
  return Linear(step.stream, moe.shared_down.view, middle, {w.shared.get(), c.dim});
}

// w.made [P, d]: of the sorted pairs.
absl::Status RunExperts(CudaStep& step, const CudaMoe& moe, const uint16_t* x,
                        const ExpertRows& experts) {
  const ModelConfig& c = step.model.config;
  CudaWorkspace& w = step.w;
  const kernels::cuda::Stream stream = step.stream;
  const int64_t pairs = experts.rows;
  const QuantisedRows input = w.pair_codes.Rows(pairs, c.dim);
  CAIRN_RETURN_IF_ERROR(kernels::cuda::QuantiseRows(stream, x, w.token_of.get(), input));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::ExpertLinear(stream, moe.gate_up.view, input, experts,
                                                    {w.gate_up.get(), 2 * c.expert_dim}));
  const QuantisedRows middle = w.middle_codes.Rows(pairs, c.expert_dim);
  CAIRN_RETURN_IF_ERROR(kernels::cuda::QuantiseSwiGlu(stream, w.gate_up.get(), w.weight_of.get(),
                                                      static_cast<float>(c.swiglu_limit), middle));
  return kernels::cuda::ExpertLinear(stream, moe.down.view, middle, experts, {w.made.get(), c.dim});
}

}  // namespace

absl::Status CudaMoeLayer(CudaStep& step, const CudaMoe& moe, const uint16_t* x) {
  const ModelConfig& c = step.model.config;
  CudaWorkspace& w = step.w;
  const kernels::cuda::Stream stream = step.stream;
  CAIRN_ASSIGN_OR_RETURN(const CudaStep beside, step.Fork(CudaBranch::kShared));
  CAIRN_RETURN_IF_ERROR(RunShared(beside, moe, w.x_codes.Rows(step.rows, c.dim)));

  const int64_t experts = PaddedExperts(c.experts);
  CAIRN_RETURN_IF_ERROR(Linear(stream, moe.gate.view,
                               kernels::cuda::Bf16Rows{x, step.rows, c.dim, 1},
                               {w.gate.get(), experts}));
  const kernels::cuda::RouteShape shape{step.rows, experts, c.experts_per_token,
                                        static_cast<float>(c.route_scale)};
  kernels::cuda::RouteChoice choice;
  if (moe.tid2eid.get() != nullptr) {
    choice.table = moe.tid2eid.get();
    choice.token_ids = w.tokens.get();
  } else {
    choice.bias = moe.bias.get();
  }
  const ExpertRows rows{w.offsets.get(), c.experts, step.rows * c.experts_per_token, w.tiles.get()};
  CAIRN_RETURN_IF_ERROR(kernels::cuda::RouteExperts(
      stream, w.gate.get(), choice, shape, {w.expert_ids.get(), w.expert_weights.get()},
      {w.offsets.get(), w.token_of.get(), w.weight_of.get(), w.place_of.get()}, rows));
  CAIRN_RETURN_IF_ERROR(RunExperts(step, moe, x, rows));
  CAIRN_RETURN_IF_ERROR(step.Join(CudaBranch::kShared));
  CAIRN_RETURN_IF_ERROR(step.Join(CudaBranch::kMixing));
  return kernels::cuda::CombineExperts(stream, w.made.get(), w.place_of.get(), w.shared.get(),
                                       shape, c.dim, w.f.get());
}

}  // namespace cairn::engine
