#include "engine/cuda/cuda_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/cuda/weight_source.h"
#include "kernels/cpu/rope.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/indexer.h"
#include "kernels/cuda/packed_fp4.h"

namespace cairn::engine {
namespace {

using kernels::WeightFormat;
using kernels::cuda::DeviceBuffer;

// Of experts that are not there: never chosen.
constexpr float kNever = -1e30f;

class Builder {
 public:
  Builder(const ModelConfig& config, WeightSource& source) : config_(config), source_(source) {}

  absl::StatusOr<std::unique_ptr<CudaModel>> Build(const Weights& weights) {
    auto model = std::make_unique<CudaModel>();
    model->config = config_;
    CAIRN_ASSIGN_OR_RETURN(model->rope_window, Frequencies(false));
    CAIRN_ASSIGN_OR_RETURN(model->rope_compressed, Frequencies(true));
    CAIRN_ASSIGN_OR_RETURN(model->embed,
                           source_.Bf16(weights.embed.weight, config_.vocab * config_.dim, false));
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      CAIRN_ASSIGN_OR_RETURN(CudaBlock block,
                             Block(weights.layers[i], config_.ratio(static_cast<int64_t>(i)),
                                   static_cast<int64_t>(i) < config_.hash_layers));
      model->layers.push_back(std::move(block));
    }
    CAIRN_ASSIGN_OR_RETURN(model->hc_head, Hc(weights.hc_head, config_.hc, 1));
    CAIRN_ASSIGN_OR_RETURN(model->norm, source_.Bf16(weights.norm, config_.dim, true));
    CAIRN_ASSIGN_OR_RETURN(
        model->head,
        source_.Matrix({WeightFormat::kBf16, config_.vocab, config_.dim, 1, {&weights.head}}));
    return model;
  }

 private:
  absl::StatusOr<DeviceBuffer<float>> Frequencies(bool compressed) {
    kernels::RopeOptions options{.dim = config_.rope_dim, .base = config_.rope_theta};
    if (compressed) {
      options = {config_.rope_dim,    config_.compress_rope_theta, config_.rope_original_len,
                 config_.rope_factor, config_.beta_fast,           config_.beta_slow};
    }
    return DeviceBuffer<float>::Of(kernels::RopeTable(options).frequencies());
  }

  absl::StatusOr<CudaHyperConnection> Hc(const HyperConnectionWeights& w, int64_t mixes,
                                         int64_t scales) {
    CudaHyperConnection hc;
    CAIRN_ASSIGN_OR_RETURN(hc.fn, source_.Floats(w.fn, mixes * config_.hc * config_.dim));
    CAIRN_ASSIGN_OR_RETURN(hc.base, source_.Floats(w.base, mixes));
    CAIRN_ASSIGN_OR_RETURN(hc.scale, source_.Floats(w.scale, scales));
    return hc;
  }

  absl::StatusOr<CudaCompressor> Compressor(const CompressorWeights& w, int64_t ratio,
                                            int64_t dim) {
    CudaCompressor compressor;
    compressor.shape = {ratio, dim};
    const int64_t width = compressor.shape.width();
    CAIRN_ASSIGN_OR_RETURN(
        compressor.kv_score,
        source_.Matrix({WeightFormat::kBf16, 2 * width, config_.dim, 1, {&w.wkv, &w.wgate}}));
    CAIRN_ASSIGN_OR_RETURN(compressor.ape, source_.Floats(w.ape, ratio * width));
    CAIRN_ASSIGN_OR_RETURN(compressor.norm, source_.Bf16(w.norm, dim, true));
    return compressor;
  }

  absl::StatusOr<CudaMatrix> Fp8(const LinearWeight& w, int64_t n, int64_t k) {
    return source_.Matrix({WeightFormat::kFp8, n, k, 1, {&w}});
  }

  absl::StatusOr<CudaAttention> Attention(const AttentionWeights& w, int64_t ratio) {
    const ModelConfig& c = config_;
    const int64_t heads = PaddedHeads(c.heads);
    const int64_t latent = c.o_groups * c.o_lora;
    CudaAttention attn;
    CAIRN_ASSIGN_OR_RETURN(attn.wq_a, Fp8(w.wq_a, c.q_lora, c.dim));
    CAIRN_ASSIGN_OR_RETURN(attn.wq_b, Fp8(w.wq_b, heads * c.head_dim, c.q_lora));
    CAIRN_ASSIGN_OR_RETURN(attn.wkv, Fp8(w.wkv, c.head_dim, c.dim));
    CAIRN_ASSIGN_OR_RETURN(
        attn.wo_a,
        source_.Matrix(
            {WeightFormat::kBf16, latent, c.heads / c.o_groups * c.head_dim, 1, {&w.wo_a}}));
    CAIRN_ASSIGN_OR_RETURN(attn.wo_b, Fp8(w.wo_b, c.dim, latent));
    CAIRN_ASSIGN_OR_RETURN(attn.q_norm, source_.Bf16(w.q_norm, c.q_lora, true));
    CAIRN_ASSIGN_OR_RETURN(attn.kv_norm, source_.Bf16(w.kv_norm, c.head_dim, true));
    CAIRN_ASSIGN_OR_RETURN(attn.sink, source_.Floats(w.sink, heads));
    if (ratio > 0) {
      CAIRN_ASSIGN_OR_RETURN(attn.compressor, Compressor(w.compressor, ratio, c.head_dim));
    }
    if (ratio == 4) {
      CAIRN_ASSIGN_OR_RETURN(
          attn.index_wq_b, Fp8(w.indexer.wq_b, kernels::cuda::kIndexHeads * c.index_dim, c.q_lora));
      CAIRN_ASSIGN_OR_RETURN(attn.index_weights, source_.Matrix({WeightFormat::kBf16,
                                                                 kernels::cuda::kIndexHeads,
                                                                 c.dim,
                                                                 1,
                                                                 {&w.indexer.weights_proj}}));
      CAIRN_ASSIGN_OR_RETURN(attn.index_compressor,
                             Compressor(w.indexer.compressor, ratio, c.index_dim));
    }
    return attn;
  }

  absl::StatusOr<CudaMoe> Moe(const MoeWeights& w, bool hash) {
    const ModelConfig& c = config_;
    CudaMoe moe;
    CAIRN_ASSIGN_OR_RETURN(
        moe.gate,
        source_.Matrix({WeightFormat::kBf16, PaddedExperts(c.experts), c.dim, 1, {&w.gate}}));
    MatrixRequest gate_up{WeightFormat::kFp4, 2 * c.expert_dim, c.dim, c.experts, {}};
    MatrixRequest down{WeightFormat::kFp4, c.dim, c.expert_dim, c.experts, {}};
    for (const ExpertWeights& expert : w.experts) {
      gate_up.parts.push_back(&expert.w1);
      gate_up.parts.push_back(&expert.w3);
      down.parts.push_back(&expert.w2);
    }
    CAIRN_ASSIGN_OR_RETURN(moe.gate_up, source_.Matrix(gate_up));
    CAIRN_ASSIGN_OR_RETURN(moe.down, source_.Matrix(down));
    CAIRN_ASSIGN_OR_RETURN(
        moe.shared_gate_up,
        source_.Matrix(
            {WeightFormat::kFp8, 2 * c.expert_dim, c.dim, 1, {&w.shared.w1, &w.shared.w3}}));
    CAIRN_ASSIGN_OR_RETURN(moe.shared_down, Fp8(w.shared.w2, c.dim, c.expert_dim));
    if (hash) {
      CAIRN_ASSIGN_OR_RETURN(moe.tid2eid,
                             source_.Table(w.tid2eid, c.vocab * c.experts_per_token, c.experts));
    } else {
      CAIRN_ASSIGN_OR_RETURN(moe.bias, source_.Floats(w.bias, PaddedExperts(c.experts), kNever));
    }
    return moe;
  }

  absl::StatusOr<CudaBlock> Block(const BlockWeights& w, int64_t ratio, bool hash) {
    const int64_t mixes = (2 + config_.hc) * config_.hc;
    CudaBlock block;
    block.ratio = ratio;
    CAIRN_ASSIGN_OR_RETURN(block.hc_attn, Hc(w.hc_attn, mixes, 3));
    CAIRN_ASSIGN_OR_RETURN(block.hc_ffn, Hc(w.hc_ffn, mixes, 3));
    CAIRN_ASSIGN_OR_RETURN(block.attn_norm, source_.Bf16(w.attn_norm, config_.dim, true));
    CAIRN_ASSIGN_OR_RETURN(block.ffn_norm, source_.Bf16(w.ffn_norm, config_.dim, true));
    CAIRN_ASSIGN_OR_RETURN(block.attn, Attention(w.attn, ratio));
    CAIRN_ASSIGN_OR_RETURN(block.ffn, Moe(w.ffn, hash));
    return block;
  }

  const ModelConfig& config_;
  WeightSource& source_;
};

absl::Status Unfit(const char* field, int64_t is, const char* wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("the CUDA kernels take a ", field, " of ", wanted, "; the model's is ", is));
}

}  // namespace

void CudaMatrix::SetView(const MatrixRequest& request) {
  view = {request.format, request.n, request.k, request.count, values.get(), scales.get()};
}

absl::StatusOr<Fp4Packer> Fp4Packer::Create(const MatrixRequest& request) {
  Fp4Packer packer(request);
  const size_t blocks =
      static_cast<size_t>(request.count * kernels::cuda::Fp4Blocks(request.n, request.k));
  CAIRN_ASSIGN_OR_RETURN(packer.values_, DeviceBuffer<uint8_t>::Create(
                                             static_cast<size_t>(request.n * request.k / 2)));
  CAIRN_ASSIGN_OR_RETURN(packer.scales_, DeviceBuffer<uint8_t>::Create(
                                             static_cast<size_t>(request.n * request.k / 32)));
  CAIRN_ASSIGN_OR_RETURN(packer.unfit_, DeviceBuffer<int32_t>::Create(1));
  CAIRN_ASSIGN_OR_RETURN(packer.packed_.values,
                         DeviceBuffer<uint8_t>::Create(blocks * kernels::cuda::kFp4BlockBytes));
  CAIRN_ASSIGN_OR_RETURN(packer.packed_.scales, DeviceBuffer<uint8_t>::Create(blocks));
  return packer;
}

absl::Status Fp4Packer::Pack(int64_t i) {
  const int64_t blocks = kernels::cuda::Fp4Blocks(request_.n, request_.k);
  CAIRN_RETURN_IF_ERROR(
      kernels::cuda::PackFp4(nullptr, values_.get(), scales_.get(), request_.n, request_.k,
                             packed_.values.get() + i * blocks * kernels::cuda::kFp4BlockBytes,
                             packed_.scales.get() + i * blocks, unfit_.get()));
  CAIRN_ASSIGN_OR_RETURN(const std::vector<int32_t> unfit, unfit_.Read());
  return kernels::cuda::Fp4Fits(unfit[0]);
}

CudaMatrix Fp4Packer::Take() && {
  packed_.SetView(request_);
  return std::move(packed_);
}

absl::Status CheckCudaConfig(const ModelConfig& c) {
  if (c.head_dim != kernels::cuda::kAttentionDim) return Unfit("head_dim", c.head_dim, "512");
  if (c.rope_dim != kernels::cuda::kAttentionRope) return Unfit("rope_dim", c.rope_dim, "64");
  if (c.window != 128) return Unfit("window", c.window, "128");
  if (c.hc != kernels::cuda::kHcStreams) return Unfit("hc", c.hc, "4");
  if (c.index_dim != kernels::cuda::kIndexDim) return Unfit("index_dim", c.index_dim, "128");
  if (c.index_heads > kernels::cuda::kIndexHeads) {
    return Unfit("index_heads", c.index_heads, "at most 64");
  }
  if (c.dim % 128 != 0) return Unfit("dim", c.dim, "a multiple of 128");
  if (c.q_lora % 128 != 0) return Unfit("q_lora", c.q_lora, "a multiple of 128");
  if (c.expert_dim % 128 != 0) return Unfit("expert_dim", c.expert_dim, "a multiple of 128");
  if (c.o_groups * c.o_lora % 128 != 0) {
    return Unfit("o_groups * o_lora", c.o_groups * c.o_lora, "a multiple of 128");
  }
  if (c.experts > 512) return Unfit("experts", c.experts, "at most 512");
  if (c.experts_per_token > 8) return Unfit("experts_per_token", c.experts_per_token, "at most 8");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CudaModel>> BuildCudaModel(const Weights& weights,
                                                          WeightSource& source) {
  CAIRN_RETURN_IF_ERROR(kernels::cuda::DevicePresent());
  CAIRN_RETURN_IF_ERROR(CheckCudaConfig(weights.config));
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<CudaModel> model,
                         Builder(weights.config, source).Build(weights));
  // Weights are made on the default stream, for which no other stream waits.
  CAIRN_RETURN_IF_ERROR(kernels::cuda::Synchronize(nullptr));
  return model;
}

absl::StatusOr<std::unique_ptr<CudaModel>> LoadCudaModel(const Weights& weights) {
  const std::unique_ptr<WeightSource> source = FileWeightSource();
  return BuildCudaModel(weights, *source);
}

absl::StatusOr<std::unique_ptr<CudaModel>> RandomCudaModel(const ModelConfig& config,
                                                           uint64_t seed) {
  Weights sized;
  sized.config = config;
  sized.layers.resize(static_cast<size_t>(config.layers));
  for (BlockWeights& layer : sized.layers) {
    layer.ffn.experts.resize(static_cast<size_t>(config.experts));
  }
  const std::unique_ptr<WeightSource> source = RandomWeightSource(seed);
  return BuildCudaModel(sized, *source);
}

}  // namespace cairn::engine
