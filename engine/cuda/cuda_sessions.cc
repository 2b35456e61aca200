#include "engine/cuda/cuda_sessions.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/compressor.h"

namespace cairn::engine {
namespace {

using kernels::cuda::CompressorShape;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::IndexPool;

constexpr int64_t kRowDataBytes = 576;
constexpr int64_t kRowScaleBytes = 8;

// Enough that a token in a step's middle finds its whole window although later ones were written.
int64_t RingRows(int64_t span_tokens_max) { return (127 + span_tokens_max + 127) / 128 * 128; }

}  // namespace

absl::StatusOr<CudaPool> CudaSessions::Pool(int64_t rows, int64_t data_bytes, int64_t scale_bytes) {
  CudaPool pool;
  CAIRN_ASSIGN_OR_RETURN(pool.data,
                         DeviceBuffer<uint8_t>::Create(static_cast<size_t>(rows * data_bytes)));
  CAIRN_ASSIGN_OR_RETURN(pool.scales,
                         DeviceBuffer<uint8_t>::Create(static_cast<size_t>(rows * scale_bytes)));
  bytes_ += rows * (data_bytes + scale_bytes);
  return pool;
}

absl::Status CudaSessions::AddLayer(const ModelConfig& config, int64_t ratio) {
  const auto state = [&](int64_t dim) {
    const int64_t floats = options_.slots * CompressorShape{ratio, dim}.state_floats();
    bytes_ += floats * static_cast<int64_t>(sizeof(float));
    return DeviceBuffer<float>::Create(static_cast<size_t>(floats));
  };
  CudaLayerState layer;
  layer.ratio = ratio;
  CAIRN_ASSIGN_OR_RETURN(layer.window, Pool(options_.slots * ring_, kRowDataBytes, kRowScaleBytes));
  if (ratio > 0) {
    const int64_t rows = options_.slots * (ratio == 4 ? csa_rows() : hca_rows());
    CAIRN_ASSIGN_OR_RETURN(layer.rows, Pool(rows, kRowDataBytes, kRowScaleBytes));
    CAIRN_ASSIGN_OR_RETURN(layer.compressor, state(config.head_dim));
  }
  if (ratio == 4) {
    // And the spare row that keys of no group go to.
    CAIRN_ASSIGN_OR_RETURN(layer.index,
                           Pool(options_.slots * csa_rows() + 1, kernels::cuda::kIndexRowDataBytes,
                                kernels::cuda::kIndexRowScaleBytes));
    CAIRN_ASSIGN_OR_RETURN(layer.index_compressor, state(config.index_dim));
  }
  layers_.push_back(std::move(layer));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CudaSessions>> CudaSessions::Create(
    const ModelConfig& config, const CudaSessionOptions& options) {
  if (options.slots < 1 || options.tokens_max < 128 || options.tokens_max % 128 != 0 ||
      options.span_tokens_max < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.slots, " sequences of up to ", options.tokens_max, " tokens in steps of up to ",
        options.span_tokens_max, ": wanted are at least one and a multiple of 128 tokens"));
  }
  std::unique_ptr<CudaSessions> sessions(new CudaSessions);
  sessions->options_ = options;
  sessions->ring_ = RingRows(options.span_tokens_max);
  sessions->positions_.resize(static_cast<size_t>(options.slots), 0);
  for (int64_t i = 0; i < config.layers; ++i) {
    CAIRN_RETURN_IF_ERROR(sessions->AddLayer(config, config.ratio(i)));
  }
  std::vector<IndexPool> pools;
  std::vector<float*> csa, index, hca;
  for (const CudaLayerState& layer : sessions->layers_) {
    if (layer.ratio == 4) {
      pools.push_back(
          {layer.index.data.get(), layer.index.scales.get(), options.slots * sessions->csa_rows()});
      csa.push_back(layer.compressor.get());
      index.push_back(layer.index_compressor.get());
    } else if (layer.ratio == 128) {
      hca.push_back(layer.compressor.get());
    }
  }
  CAIRN_ASSIGN_OR_RETURN(sessions->index_pools_, DeviceBuffer<IndexPool>::Of(pools));
  CAIRN_ASSIGN_OR_RETURN(sessions->csa_states_, DeviceBuffer<float*>::Of(csa));
  CAIRN_ASSIGN_OR_RETURN(sessions->index_states_, DeviceBuffer<float*>::Of(index));
  CAIRN_ASSIGN_OR_RETURN(sessions->hca_states_, DeviceBuffer<float*>::Of(hca));
  return sessions;
}

}  // namespace cairn::engine
