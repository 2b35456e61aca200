// cuda_model.h: a model in GPU memory, as kernels/cuda take its weights: FP8 linears, FP4 routed
// experts, BF16 and F32 for the rest, as released (spec section 4). The MTP block is left out.
//
// Three changes to what is on disk, all at loading: wo_a is expanded from FP8 to BF16, as the
// reference does; gate and up projections lie in one matrix, and so do a compressor's two; heads
// are padded with zeros to a multiple of 64 and the gate's experts to one of 8, which the kernels
// take.
//
// Threads:   immutable after loading. Ownership: owns its device memory.
// Errors:    UNAVAILABLE: no GPU. INVALID_ARGUMENT: a shape or format that the kernels do not take,
//            naming it, before memory is taken. RESOURCE_EXHAUSTED: it does not fit.
#ifndef CAIRN_ENGINE_CUDA_CUDA_MODEL_H_
#define CAIRN_ENGINE_CUDA_CUDA_MODEL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/model/weights.h"
#include "kernels/cuda/compressor.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/hyper_connection.h"
#include "kernels/cuda/linear.h"

namespace cairn::engine {

// Heads as the kernels take them.
constexpr int64_t PaddedHeads(int64_t heads) { return (heads + 63) / 64 * 64; }

constexpr int64_t PaddedExperts(int64_t experts) { return (experts + 7) / 8 * 8; }

struct MatrixRequest;

struct CudaMatrix {
  kernels::cuda::DeviceMatrix view;
  kernels::cuda::DeviceBuffer<uint8_t> values, scales;
  void SetView(const MatrixRequest& request);
};

struct CudaHyperConnection {
  kernels::cuda::DeviceBuffer<float> fn, base, scale;
  kernels::cuda::HcWeights view() const { return {fn.get(), base.get(), scale.get()}; }
};

struct CudaCompressor {
  kernels::cuda::CompressorShape shape;
  CudaMatrix kv_score;  // [2 * width, dim]: kv, then score
  kernels::cuda::DeviceBuffer<float> ape;
  kernels::cuda::DeviceBuffer<uint16_t> norm;
};

struct CudaAttention {
  CudaMatrix wq_a, wq_b, wkv, wo_a, wo_b;
  kernels::cuda::DeviceBuffer<uint16_t> q_norm, kv_norm;
  kernels::cuda::DeviceBuffer<float> sink;
  CudaCompressor compressor;             // ratio 4 and 128
  CudaMatrix index_wq_b, index_weights;  // ratio 4
  CudaCompressor index_compressor;
};

struct CudaMoe {
  CudaMatrix gate;
  CudaMatrix gate_up, down;  // of all routed experts
  CudaMatrix shared_gate_up, shared_down;
  kernels::cuda::DeviceBuffer<float> bias;       // empty in hash layers
  kernels::cuda::DeviceBuffer<int32_t> tid2eid;  // hash layers
};

struct CudaBlock {
  int64_t ratio = 0;
  CudaHyperConnection hc_attn, hc_ffn;
  kernels::cuda::DeviceBuffer<uint16_t> attn_norm, ffn_norm;
  CudaAttention attn;
  CudaMoe ffn;
};

struct CudaModel {
  ModelConfig config;
  kernels::cuda::DeviceBuffer<float> rope_window, rope_compressed;  // frequencies
  kernels::cuda::DeviceBuffer<uint16_t> embed;                      // [vocab, dim]
  std::vector<CudaBlock> layers;
  CudaHyperConnection hc_head;
  kernels::cuda::DeviceBuffer<uint16_t> norm;
  CudaMatrix head;

  const kernels::cuda::DeviceBuffer<float>& rope(int64_t ratio) const {
    return ratio == 0 ? rope_window : rope_compressed;
  }
};

// Whether the kernels take such a model.
absl::Status CheckCudaConfig(const ModelConfig& config);

// Weights of released formats, copied to the GPU.
absl::StatusOr<std::unique_ptr<CudaModel>> LoadCudaModel(const Weights& weights);

// Random ones of a config, made on the device: for benchmarks of shapes that no file holds.
absl::StatusOr<std::unique_ptr<CudaModel>> RandomCudaModel(const ModelConfig& config,
                                                           uint64_t seed);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_CUDA_MODEL_H_
