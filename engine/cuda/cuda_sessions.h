// cuda_sessions.h: what sequences carry between steps, in GPU memory: every layer's window rings,
// compressed rows, indexer keys and compressor states of a fixed number of slots.
//
// A row's bytes are those of the rows entries and checkpoints (state/kv_layout.h); here a layer's
// rows lie side by side, data apart from scales, so that a kernel reads a layer of a sequence as
// one array.
//
// Threads:   externally synchronised. Ownership: owns its device memory.
// Errors:    as DeviceBuffer; INVALID_ARGUMENT for sizes that cannot be.
#ifndef CAIRN_ENGINE_CUDA_CUDA_SESSIONS_H_
#define CAIRN_ENGINE_CUDA_CUDA_SESSIONS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/model/config.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/kv_writer.h"
#include "kernels/cuda/step_plan.h"

namespace cairn::engine {

struct CudaSessionOptions {
  int64_t slots = 1;
  int64_t tokens_max = 4096;       // of a sequence; a multiple of 128
  int64_t span_tokens_max = 4096;  // of a sequence in one step
};

struct CudaPool {
  kernels::cuda::DeviceBuffer<uint8_t> data, scales;
};

struct CudaLayerState {
  int64_t ratio = 0;
  CudaPool window, rows, index;
  kernels::cuda::DeviceBuffer<float> compressor, index_compressor;  // [slots][state_floats]
};

class CudaSessions {
 public:
  static absl::StatusOr<std::unique_ptr<CudaSessions>> Create(const ModelConfig& config,
                                                              const CudaSessionOptions& options);

  const CudaSessionOptions& options() const { return options_; }
  int64_t ring() const { return ring_; }
  int64_t csa_rows() const { return options_.tokens_max / 4; }
  int64_t hca_rows() const { return options_.tokens_max / 128; }
  const CudaLayerState& layer(int64_t i) const { return layers_[static_cast<size_t>(i)]; }
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  int64_t bytes() const { return bytes_; }

  // Tokens processed; the next token's position.
  int64_t position(int64_t slot) const { return positions_[static_cast<size_t>(slot)]; }
  void set_position(int64_t slot, int64_t position) {
    positions_[static_cast<size_t>(slot)] = position;
  }

  // For FillIndexPlan and FillCompressorSpans: of all layers that have one, in their order.
  const kernels::cuda::IndexPool* index_pools() const { return index_pools_.get(); }
  float* const* csa_states() const { return csa_states_.get(); }
  float* const* index_states() const { return index_states_.get(); }
  float* const* hca_states() const { return hca_states_.get(); }
  int64_t csa_layers() const { return static_cast<int64_t>(index_pools_.count()); }
  int64_t hca_layers() const { return static_cast<int64_t>(hca_states_.count()); }

 private:
  CudaSessions() = default;
  absl::StatusOr<CudaPool> Pool(int64_t rows, int64_t data_bytes, int64_t scale_bytes);
  absl::Status AddLayer(const ModelConfig& config, int64_t ratio);

  CudaSessionOptions options_;
  int64_t ring_ = 0;
  int64_t bytes_ = 0;
  std::vector<CudaLayerState> layers_;
  std::vector<int64_t> positions_;
  kernels::cuda::DeviceBuffer<kernels::cuda::IndexPool> index_pools_;
  kernels::cuda::DeviceBuffer<float*> csa_states_, index_states_, hca_states_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_CUDA_SESSIONS_H_
