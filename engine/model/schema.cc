#include "engine/model/schema.h"

namespace cairn::engine {
namespace {

class Walk {
 public:
  Walk(Weights& weights, const std::function<void(const TensorSlot&)>& visit)
      : c_(weights.config), w_(weights), visit_(visit) {}

  void Run() {
    w_.layers.resize(static_cast<size_t>(c_.layers));
    w_.mtp.resize(static_cast<size_t>(c_.mtp_layers));
    Linear("embed", TensorRole::kEmbedding, c_.vocab, c_.dim, w_.embed);
    for (int64_t layer = 0; layer < c_.layers; ++layer) {
      Block(absl::StrCat("layers.", layer, "."), layer, w_.layers[static_cast<size_t>(layer)]);
    }
    HyperHead("", w_.hc_head);
    Vector("norm.weight", TensorRole::kNorm, {c_.dim}, w_.norm);
    Linear("head", TensorRole::kHead, c_.vocab, c_.dim, w_.head);
    for (size_t i = 0; i < w_.mtp.size(); ++i) Mtp(absl::StrCat("mtp.", i, "."), w_.mtp[i]);
  }

 private:
  void Vector(const std::string& name, TensorRole role, std::vector<int64_t> shape,
              TensorView& view) {
    visit_({.name = name, .role = role, .shape = std::move(shape), .vector = &view});
  }

  void Linear(const std::string& name, TensorRole role, int64_t out, int64_t in,
              LinearWeight& linear) {
    visit_({.name = name, .role = role, .shape = {out, in}, .linear = &linear});
  }

  void Hyper(const std::string& prefix, HyperConnectionWeights& hc) {
    const int64_t mixes = (2 + c_.hc) * c_.hc;
    Vector(prefix + "_fn", TensorRole::kHyperFn, {mixes, c_.hc * c_.dim}, hc.fn);
    Vector(prefix + "_base", TensorRole::kHyperBase, {mixes}, hc.base);
    Vector(prefix + "_scale", TensorRole::kHyperScale, {3}, hc.scale);
  }

  void HyperHead(const std::string& prefix, HyperConnectionWeights& hc) {
    Vector(prefix + "hc_head_fn", TensorRole::kHyperFn, {c_.hc, c_.hc * c_.dim}, hc.fn);
    Vector(prefix + "hc_head_base", TensorRole::kHyperBase, {c_.hc}, hc.base);
    Vector(prefix + "hc_head_scale", TensorRole::kHyperScale, {1}, hc.scale);
  }

  void Compressor(const std::string& prefix, int64_t ratio, int64_t width,
                  CompressorWeights& compressor) {
    const int64_t series = ratio == 4 ? 2 * width : width;  // ratio 4 overlaps: two series
    Vector(prefix + "ape", TensorRole::kPosition, {ratio, series}, compressor.ape);
    Linear(prefix + "wkv", TensorRole::kPlain, series, c_.dim, compressor.wkv);
    Linear(prefix + "wgate", TensorRole::kScorer, series, c_.dim, compressor.wgate);
    Vector(prefix + "norm.weight", TensorRole::kNorm, {width}, compressor.norm);
  }

  void Attention(const std::string& prefix, int64_t ratio, AttentionWeights& attn) {
    const int64_t heads_dim = c_.heads * c_.head_dim, groups_dim = c_.o_groups * c_.o_lora;
    Vector(prefix + "attn_sink", TensorRole::kSink, {c_.heads}, attn.sink);
    Linear(prefix + "wq_a", TensorRole::kLinear, c_.q_lora, c_.dim, attn.wq_a);
    Vector(prefix + "q_norm.weight", TensorRole::kNorm, {c_.q_lora}, attn.q_norm);
    Linear(prefix + "wq_b", TensorRole::kLinear, heads_dim, c_.q_lora, attn.wq_b);
    Linear(prefix + "wkv", TensorRole::kLinear, c_.head_dim, c_.dim, attn.wkv);
    Vector(prefix + "kv_norm.weight", TensorRole::kNorm, {c_.head_dim}, attn.kv_norm);
    Linear(prefix + "wo_a", TensorRole::kLinear, groups_dim, heads_dim / c_.o_groups, attn.wo_a);
    Linear(prefix + "wo_b", TensorRole::kLinear, c_.dim, groups_dim, attn.wo_b);
    if (ratio == 0) return;
    Compressor(prefix + "compressor.", ratio, c_.head_dim, attn.compressor);
    if (ratio != 4) return;
    const std::string indexer = prefix + "indexer.";
    Linear(indexer + "wq_b", TensorRole::kLinear, c_.index_heads * c_.index_dim, c_.q_lora,
           attn.indexer.wq_b);
    Linear(indexer + "weights_proj", TensorRole::kScorer, c_.index_heads, c_.dim,
           attn.indexer.weights_proj);
    Compressor(indexer + "compressor.", ratio, c_.index_dim, attn.indexer.compressor);
  }

  void Expert(const std::string& prefix, TensorRole role, ExpertWeights& expert) {
    Linear(prefix + "w1", role, c_.expert_dim, c_.dim, expert.w1);
    Linear(prefix + "w2", role, c_.dim, c_.expert_dim, expert.w2);
    Linear(prefix + "w3", role, c_.expert_dim, c_.dim, expert.w3);
  }

  void Moe(const std::string& prefix, bool hashed, MoeWeights& ffn) {
    Linear(prefix + "gate", TensorRole::kRouter, c_.experts, c_.dim, ffn.gate);
    if (hashed) {
      Vector(prefix + "gate.tid2eid", TensorRole::kTokenTable, {c_.vocab, c_.experts_per_token},
             ffn.tid2eid);
    } else {
      Vector(prefix + "gate.bias", TensorRole::kRouterBias, {c_.experts}, ffn.bias);
    }
    ffn.experts.resize(static_cast<size_t>(c_.experts));
    for (size_t e = 0; e < ffn.experts.size(); ++e) {
      Expert(absl::StrCat(prefix, "experts.", e, "."), TensorRole::kExpert, ffn.experts[e]);
    }
    Expert(prefix + "shared_experts.", TensorRole::kLinear, ffn.shared);
  }

  void Block(const std::string& prefix, int64_t layer, BlockWeights& block) {
    Hyper(prefix + "hc_attn", block.hc_attn);
    Vector(prefix + "attn_norm.weight", TensorRole::kNorm, {c_.dim}, block.attn_norm);
    Attention(prefix + "attn.", c_.ratio(layer), block.attn);
    Hyper(prefix + "hc_ffn", block.hc_ffn);
    Vector(prefix + "ffn_norm.weight", TensorRole::kNorm, {c_.dim}, block.ffn_norm);
    Moe(prefix + "ffn.", layer < c_.hash_layers, block.ffn);
  }

  void Mtp(const std::string& prefix, MtpWeights& mtp) {
    Vector(prefix + "enorm.weight", TensorRole::kNorm, {c_.dim}, mtp.enorm);
    Linear(prefix + "e_proj", TensorRole::kLinear, c_.dim, c_.dim, mtp.e_proj);
    Vector(prefix + "hnorm.weight", TensorRole::kNorm, {c_.dim}, mtp.hnorm);
    Linear(prefix + "h_proj", TensorRole::kLinear, c_.dim, c_.dim, mtp.h_proj);
    Block(prefix, c_.layers, mtp.block);
    HyperHead(prefix, mtp.hc_head);
    Vector(prefix + "norm.weight", TensorRole::kNorm, {c_.dim}, mtp.norm);
  }

  const ModelConfig& c_;
  Weights& w_;
  const std::function<void(const TensorSlot&)>& visit_;
};

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::span<const DType> TypesOf(TensorRole role) {
  static constexpr DType kFloats[] = {DType::kBF16, DType::kF32};
  static constexpr DType kSingle[] = {DType::kF32};
  static constexpr DType kLinears[] = {DType::kBF16, DType::kF32, DType::kF8E4M3};
  static constexpr DType kExperts[] = {DType::kBF16, DType::kF32, DType::kF8E4M3, DType::kI8};
  static constexpr DType kIds[] = {DType::kI64, DType::kI32};
  switch (role) {
    case TensorRole::kLinear:
      return kLinears;
    case TensorRole::kExpert:
      return kExperts;
    case TensorRole::kTokenTable:
      return kIds;
    case TensorRole::kSink:
    case TensorRole::kPosition:
    case TensorRole::kRouterBias:
    case TensorRole::kHyperFn:
    case TensorRole::kHyperBase:
    case TensorRole::kHyperScale:
      return kSingle;
    case TensorRole::kEmbedding:
    case TensorRole::kHead:
    case TensorRole::kNorm:
    case TensorRole::kPlain:
    case TensorRole::kScorer:
    case TensorRole::kRouter:
      break;
  }
  return kFloats;
}

void VisitTensors(Weights& weights, const std::function<void(const TensorSlot&)>& visit) {
  Walk(weights, visit).Run();
}

std::vector<int64_t> StoredShape(DType type, const std::vector<int64_t>& logical) {
  if (type != DType::kI8) return logical;
  return {logical[0], CeilDiv(logical[1], 2)};
}

std::vector<int64_t> ScaleShape(DType type, const std::vector<int64_t>& logical) {
  if (type == DType::kF8E4M3) {
    return {CeilDiv(logical[0], kFp8Block), CeilDiv(logical[1], kFp8Block)};
  }
  if (type == DType::kI8) return {logical[0], CeilDiv(logical[1], kFp4Group)};
  return {};
}

}  // namespace cairn::engine
