#include "engine/cuda/cuda_step.h"
#include "kernels/cuda/norms.h"

namespace cairn::engine {

using kernels::cuda::CompressorShape;

absl::Status PlanStep(CudaStep& step) {
  CudaWorkspace& w = step.w;
  const kernels::cuda::StepShape& shape = step.shape;
  const kernels::cuda::Stream stream = step.stream;
  const kernels::cuda::StepSpan* spans = w.spans.get();
  CAIRN_RETURN_IF_ERROR(
      kernels::cuda::FillTokenPlan(stream, shape, spans,
                                   {w.position.get(), w.window_row.get(), w.visible.get(),
                                    w.window_list.get(), w.csa_list.get(), w.hca_list.get()}));
  const kernels::cuda::GroupPlan csa{w.csa_row.get(), w.csa_position.get()};
  const kernels::cuda::GroupPlan hca{w.hca_row.get(), w.hca_position.get()};
  CAIRN_RETURN_IF_ERROR(kernels::cuda::FillGroupPlan(stream, shape, 4, spans, csa));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::FillGroupPlan(stream, shape, 128, spans, hca));

  const CudaSessions& s = step.sessions;
  const int64_t dim = step.model.config.head_dim;
  const int64_t index_dim = step.model.config.index_dim;
  CAIRN_RETURN_IF_ERROR(kernels::cuda::FillCompressorSpans(
      stream, shape, 4, spans, s.csa_states(), s.csa_layers(),
      CompressorShape{4, dim}.state_floats(), w.csa_spans.get()));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::FillCompressorSpans(
      stream, shape, 4, spans, s.index_states(), s.csa_layers(),
      CompressorShape{4, index_dim}.state_floats(), w.index_spans.get()));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::FillCompressorSpans(
      stream, shape, 128, spans, s.hca_states(), s.hca_layers(),
      CompressorShape{128, dim}.state_floats(), w.hca_spans.get()));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::FillIndexPlan(stream, shape, spans, csa, s.index_pools(),
                                                     s.csa_layers(), w.index_slots.get(),
                                                     w.index_groups.get()));

  const auto angles = [&](const int32_t* positions, int64_t count,
                          const kernels::cuda::DeviceBuffer<float>& frequencies, float* out) {
    return kernels::cuda::RopeAngles(stream, positions, count, frequencies.get(),
                                     step.model.config.rope_dim / 2, out);
  };
  const CudaModel& model = step.model;
  CAIRN_RETURN_IF_ERROR(
      angles(w.position.get(), step.rows, model.rope_window, w.angles_window.get()));
  CAIRN_RETURN_IF_ERROR(
      angles(w.position.get(), step.rows, model.rope_compressed, w.angles_compressed.get()));
  CAIRN_RETURN_IF_ERROR(angles(w.csa_position.get(), shape.spans * shape.groups_max(4),
                               model.rope_compressed, w.angles_csa.get()));
  return angles(w.hca_position.get(), shape.spans * shape.groups_max(128), model.rope_compressed,
                w.angles_hca.get());
}

}  // namespace cairn::engine
