#include "tools/cairn-bench/gpu_flash_model.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "kernels/cuda/device.h"

namespace cairn::bench {
namespace {

using engine::ModelConfig;
using kernels::cuda::CudaStatus;

// Spec section 1, without the MTP block.
ModelConfig FlashConfig(int64_t experts) {
  ModelConfig c;
  c.vocab = kFlashVocab;
  c.dim = 4096;
  c.layers = 43;
  c.heads = 64;
  c.head_dim = 512;
  c.rope_dim = 64;
  c.q_lora = 1024;
  c.o_lora = 1024;
  c.o_groups = 8;
  c.window = 128;
  c.index_heads = 64;
  c.index_dim = 128;
  c.index_topk = 512;
  c.experts = experts;
  c.shared_experts = 1;
  c.experts_per_token = 6;
  c.expert_dim = 2048;
  c.hash_layers = 3;
  c.route_scale = 1.5;
  c.swiglu_limit = 10.0;
  c.rope_factor = 16.0;
  c.rope_original_len = 65536;
  c.max_positions = 1 << 20;
  for (int64_t i = 0; i < c.layers; ++i) {
    c.compress_ratios.push_back(i < 2 ? 0 : i % 2 == 0 ? 4 : 128);
  }
  return c;
}

// Experts a layer for which there is room beside everything else, in steps of 32.
absl::StatusOr<int64_t> ExpertsThatFit(int64_t other_bytes) {
  size_t free = 0, total = 0;
  CAIRN_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "asking for free memory"));
  constexpr double kExpert = 13.4e6 * 43;  // one in every layer, packed FP4
  const double room = static_cast<double>(free) - static_cast<double>(other_bytes);
  const auto experts = static_cast<int64_t>(room / kExpert) / 32 * 32;
  if (experts < 32) return absl::ResourceExhaustedError("too little GPU memory for 32 experts");
  return std::min<int64_t>(experts, 256);
}

}  // namespace

absl::StatusOr<std::unique_ptr<engine::CudaModel>> RandomFlashModel(int64_t other_bytes) {
  CAIRN_RETURN_IF_ERROR(kernels::cuda::DevicePresent());
  CAIRN_ASSIGN_OR_RETURN(const int64_t experts, ExpertsThatFit(other_bytes));
  return engine::RandomCudaModel(FlashConfig(experts), 1);
}

}  // namespace cairn::bench
