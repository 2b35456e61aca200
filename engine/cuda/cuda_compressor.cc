// Spec section 2.5.
#include "engine/cuda/cuda_step.h"
#include "kernels/cuda/kv_writer.h"
#include "kernels/cuda/norms.h"

namespace cairn::engine {
namespace {

using kernels::cuda::CompressorSpan;

// pooled [groups, dim]: of the groups that the step closes. projected: room for kv and scores.
absl::Status Pool(const CudaStep& step, const CudaCompressor& op, const CompressorSpan* spans,
                  const uint16_t* x, float* projected, float* pooled) {
  const int64_t width = op.shape.width();
  CAIRN_RETURN_IF_ERROR(kernels::cuda::Linear(
      step.stream, op.kv_score.view,
      kernels::cuda::Bf16Rows{x, step.rows, step.model.config.dim, 1}, {projected, 2 * width}));
  return kernels::cuda::PoolGroups(step.stream, op.shape,
                                   {projected, projected + width, 2 * width, op.ape.get()}, spans,
                                   step.shape.spans, step.shape.groups_max(op.shape.ratio), pooled);
}

}  // namespace

absl::Status CompressCudaRows(const CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                              const uint16_t* x) {
  if (block.ratio == 0) return absl::OkStatus();
  CudaWorkspace& w = step.w;
  const CudaLayerState& state = step.sessions.layer(place.index);
  const bool csa = block.ratio == 4;
  const int64_t spans = step.shape.spans;
  const int64_t groups = spans * step.shape.groups_max(block.ratio);
  CAIRN_RETURN_IF_ERROR(Pool(step, block.attn.compressor,
                             (csa ? w.csa_spans : w.hca_spans).get() + place.of_kind * spans, x,
                             w.projected.get(), w.pooled.get()));
  return kernels::cuda::WriteKvRows(step.stream, w.pooled.get(), block.attn.compressor.norm.get(),
                                    (csa ? w.angles_csa : w.angles_hca).get(),
                                    (csa ? w.csa_row : w.hca_row).get(), groups, step.norm_eps(),
                                    {state.rows.data.get(), state.rows.scales.get()});
}

absl::Status CompressCudaKeys(const CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                              const uint16_t* x) {
  CudaWorkspace& w = step.w;
  const int64_t spans = step.shape.spans;
  const int64_t groups = spans * step.shape.groups_max(block.ratio);
  CAIRN_RETURN_IF_ERROR(Pool(step, block.attn.index_compressor,
                             w.index_spans.get() + place.of_kind * spans, x,
                             w.index_projected.get(), w.index_pooled.get()));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::NormRotateKeys(
      step.stream, w.index_pooled.get(), block.attn.index_compressor.norm.get(), w.angles_csa.get(),
      groups, step.norm_eps(), w.keys.get()));
  return kernels::cuda::WriteIndexKeys(w.keys.get(), groups,
                                       w.index_slots.get() + place.of_kind * groups, step.stream);
}

}  // namespace cairn::engine
