#include "engine/forward/model.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/forward/expert_files.h"
#include "kernels/cpu/cpu_path.h"
#include "kernels/cpu/formats.h"
#include "store/device/shared_memory.h"

namespace cairn::engine {
namespace {

using kernels::PackedMatrix;
using kernels::RawMatrix;
using kernels::WeightFormat;

std::vector<float> Vector(const TensorView& tensor) {
  RawMatrix raw{FormatOf(tensor.dtype), 1, 1, tensor.bytes.data(), nullptr};
  for (const int64_t d : tensor.shape) raw.k *= d;
  std::vector<float> out(static_cast<size_t>(raw.k));
  for (int64_t i = 0; i < raw.k; ++i) out[static_cast<size_t>(i)] = RawValue(raw, 0, i);
  return out;
}

class Packer {
 public:
  Packer(const Weights& weights, Numerics numerics)
      : weights_(weights), config_(weights.config), numerics_(numerics) {}

  absl::Status status() const { return status_; }

  LinearOp Linear(const LinearWeight& w) {
    const absl::StatusOr<LinearKind> kind = KindOf(w, numerics_);
    if (status_.ok()) status_ = kind.status();
    return {kind.value_or(LinearKind{}), PackedMatrix(RawOf(w), 0, w.out)};
  }

  HyperConnectionOp Hc(const HyperConnectionWeights& w, int64_t outputs) {
    const RawMatrix raw{WeightFormat::kF32, outputs, config_.hc * config_.dim, w.fn.bytes.data(),
                        nullptr};
    return {PackedMatrix(raw, 0, outputs), Vector(w.base), Vector(w.scale)};
  }

  BlockOp Block(const BlockWeights& w, int64_t index) {
    BlockOp op;
    op.index = index;
    op.ratio = config_.ratio(index);
    const int64_t mixes = (2 + config_.hc) * config_.hc;
    op.hc_attn = Hc(w.hc_attn, mixes);
    op.hc_ffn = Hc(w.hc_ffn, mixes);
    op.attn_norm = Vector(w.attn_norm);
    op.ffn_norm = Vector(w.ffn_norm);
    op.attn = Attention(w.attn, op.ratio);
    op.ffn = Moe(w.ffn);
    op.ffn.layer = index;
    return op;
  }

  HeadOp Head(const HyperConnectionWeights& hc, const TensorView& norm) {
    return {Hc(hc, config_.hc), Vector(norm)};
  }

 private:
  CompressorOp Compressor(const CompressorWeights& w, int64_t ratio, int64_t dim) {
    CompressorOp op;
    op.ratio = ratio;
    op.dim = dim;
    op.width = ratio == 4 ? 2 * dim : dim;
    op.ape = Vector(w.ape);
    op.wkv = Linear(w.wkv);
    op.wgate = Linear(w.wgate);
    op.norm = Vector(w.norm);
    return op;
  }

  AttentionOp Attention(const AttentionWeights& w, int64_t ratio) {
    AttentionOp op;
    op.wq_a = Linear(w.wq_a);
    op.wq_b = Linear(w.wq_b);
    op.wkv = Linear(w.wkv);
    op.wo_b = Linear(w.wo_b);
    for (int64_t g = 0; g < config_.o_groups; ++g) {
      op.wo_a.push_back(
          {OutputKind(numerics_), PackedMatrix(RawOf(w.wo_a), g * config_.o_lora, config_.o_lora)});
    }
    op.q_norm = Vector(w.q_norm);
    op.kv_norm = Vector(w.kv_norm);
    op.sink = Vector(w.sink);
    if (ratio > 0) op.compressor = Compressor(w.compressor, ratio, config_.head_dim);
    if (ratio == 4) {
      op.indexer.wq_b = Linear(w.indexer.wq_b);
      op.indexer.weights_proj = Linear(w.indexer.weights_proj);
      op.indexer.compressor = Compressor(w.indexer.compressor, ratio, config_.index_dim);
    }
    return op;
  }

  ExpertOp Expert(const ExpertWeights& w) { return {Linear(w.w1), Linear(w.w2), Linear(w.w3)}; }

  MoeOp Moe(const MoeWeights& w) {
    MoeOp op;
    op.gate = Linear(w.gate);
    if (!w.bias.empty()) op.bias = Vector(w.bias);
    if (!w.tid2eid.empty()) op.tid2eid = TokenExperts(w.tid2eid);
    op.shared = Expert(w.shared);
    return op;
  }

  std::vector<int32_t> TokenExperts(const TensorView& tensor) {
    const size_t size = static_cast<size_t>(DTypeBytes(tensor.dtype));
    std::vector<int32_t> ids(tensor.bytes.size() / size);
    for (size_t i = 0; i < ids.size(); ++i) {
      int64_t wide = 0;  // little-endian; experts are few, so the low bytes decide
      std::memcpy(&wide, tensor.bytes.data() + i * size, size);
      if ((wide < 0 || wide >= config_.experts) && status_.ok()) {
        status_ = absl::InvalidArgumentError(absl::StrCat("ffn.gate.tid2eid names expert ", wide,
                                                          "; the model has ", config_.experts));
        wide = 0;
      }
      ids[i] = static_cast<int32_t>(wide);
    }
    return ids;
  }

  const Weights& weights_;
  const ModelConfig& config_;
  Numerics numerics_;
  absl::Status status_;
};

kernels::RopeTable Rope(const ModelConfig& config, bool compressed) {
  kernels::RopeOptions options;
  options.dim = config.rope_dim;
  options.base = compressed ? config.compress_rope_theta : config.rope_theta;
  if (compressed) {
    options.original_len = config.rope_original_len;
    options.factor = config.rope_factor;
    options.beta_fast = config.beta_fast;
    options.beta_slow = config.beta_slow;
  }
  return kernels::RopeTable(options);
}

// Which of the two full ones is the faster here.
Numerics DefaultNumerics(DType type) {
  if (type != DType::kF8E4M3) return Numerics::kPlain;
  const bool pairs = kernels::ChosenPairPath() != kernels::PairPath::kVectors;
  return pairs ? Numerics::kFullAmx : Numerics::kFull;
}

absl::Status CheckNumerics(const ModelConfig& config, Numerics numerics) {
  if (numerics == Numerics::kPlain) return absl::OkStatus();
  if ((config.head_dim - config.rope_dim) % 64 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV quantisation works in groups of 64: head_dim - rope_head_dim is ",
                     config.head_dim - config.rope_dim, "; use --numerics plain"));
  }
  if (config.index_dim % 32 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("indexer quantisation works in groups of 32: index_head_dim is ",
                     config.index_dim, "; use --numerics plain"));
  }
  return absl::OkStatus();
}

uint64_t PackedDenseBytes(const Weights& weights, const ExpertFiles& experts) {
  uint64_t bytes = 0;
  for (const auto& [name, view] : weights.file->tensors()) bytes += view.bytes.size();
  return bytes - experts.stored_bytes() - weights.embed.weight.bytes.size();
}

// Those of a step are in memory or can be read; all that fit are if they all do.
absl::StatusOr<std::unique_ptr<ExpertCache>> OpenExperts(std::shared_ptr<ExpertFiles> files,
                                                         int64_t places) {
  const ExpertCache::Options options{.layers = files->layers(),
                                     .experts = files->experts(),
                                     .places = places,
                                     .readers = kExpertReaders};
  auto cache = std::make_unique<ExpertCache>(
      options, [files](int64_t layer, int64_t expert, ReadRoom& room, ExpertOp& into) {
        return files->Load(layer, expert, room, into);
      });
  if (places == options.layers * options.experts) CAIRN_RETURN_IF_ERROR(cache->LoadAll());
  return cache;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> PackModel(const Weights& weights,
                                                 const LoadOptions& options) {
  const ModelConfig& config = weights.config;
  const DType type = weights.layers.front().attn.wq_a.weight.dtype;
  const Numerics numerics = options.numerics.value_or(DefaultNumerics(type));
  CAIRN_RETURN_IF_ERROR(CheckNumerics(config, numerics));
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<ExpertFiles> files,
                         ExpertFiles::Open(options.files, weights, numerics));
  CAIRN_ASSIGN_OR_RETURN(const int64_t places,
                         ExpertPlaces(*files, config.experts_per_token,
                                      {.asked = options.expert_bytes,
                                       .available = store::AvailableMemoryBytes(),
                                       .dense = PackedDenseBytes(weights, *files),
                                       .reserved = options.reserved_bytes}));
  Packer packer(weights, numerics);
  auto model = std::make_unique<Model>(
      Model{.config = config,
            .numerics = numerics,
            .layout = std::make_unique<KvLayout>(config, numerics, options.rope_rows),
            .rope_window = Rope(config, false),
            .rope_compressed = Rope(config, true),
            .embed = Embedding(weights),
            .vocab_head = packer.Linear(weights.head),
            .head = packer.Head(weights.hc_head, weights.norm),
            .layers = {},
            .mtp = nullptr,
            .weights_identity = weights.Identity(options.threads),
            .experts = nullptr});
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    model->layers.push_back(packer.Block(weights.layers[i], static_cast<int64_t>(i)));
  }
  if (!weights.mtp.empty()) {
    const MtpWeights& w = weights.mtp.front();
    model->mtp = std::make_unique<MtpOp>(MtpOp{
        packer.Block(w.block, config.layers), packer.Linear(w.e_proj), packer.Linear(w.h_proj),
        Vector(w.enorm), Vector(w.hnorm), packer.Head(w.hc_head, w.norm)});
  }
  CAIRN_RETURN_IF_ERROR(packer.status());
  for (const auto& file : weights.file->files()) file->DropPages();
  CAIRN_ASSIGN_OR_RETURN(model->experts, OpenExperts(std::move(files), places));
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& directory,
                                                 const LoadOptions& options) {
  CAIRN_ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(directory));
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<TensorFile> file, TensorFile::Open(directory));
  CAIRN_ASSIGN_OR_RETURN(const Weights weights, BindWeights(config, std::move(file)));
  return PackModel(weights, options);
}

std::string AboutNumerics(const Model& model) {
  if (model.numerics != Numerics::kFullAmx) return NumericsName(model.numerics);
  const char* with = ", without AMX or AVX-512's BF16: the same bits, slower than full";
  if (kernels::ChosenPairPath() == kernels::PairPath::kAmx) with = ", with AMX";
  if (kernels::ChosenPairPath() == kernels::PairPath::kBf16) with = ", with AVX-512's BF16";
  return absl::StrCat(NumericsName(model.numerics), with);
}

}  // namespace cairn::engine
