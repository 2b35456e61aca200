#include "engine/model/config.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string_view>

#include "engine/model/config_fields.h"
#include "engine/model/file_io.h"
#include "engine/model/json.h"

namespace cairn::engine {
namespace {

using nlohmann::json;

constexpr uint64_t kConfigBytesMax = 1 << 20;
constexpr const char* kRatiosKey = "compress_ratios";

enum class Spelling { kModelCard, kReference };

// Keys that, with another value than these, make another architecture than the one implemented
// here.
struct Pinned {
  const char* key;
  const char* allowed;  // a JSON array of the values that are fine
};
constexpr Pinned kPinned[] = {
    {"model_type", R"(["deepseek_v4"])"},
    {"hidden_act", R"(["silu"])"},
    {"attention_bias", "[false]"},
    {"mlp_bias", "[false]"},
    {"tie_word_embeddings", "[false]"},
    {"num_key_value_heads", "[1]"},
    {"scoring_func", R"(["sqrtsoftplus"])"},
    {"score_func", R"(["sqrtsoftplus"])"},
    {"topk_method", R"(["noaux_tc"])"},
    {"norm_topk_prob", "[true]"},
    {"n_group", "[null, 1]"},
    {"topk_group", "[null, 1]"},
    {"first_k_dense_replace", "[null, 0]"},
    {"moe_layer_freq", "[null, 1]"},
    {"expert_dtype", R"([null, "fp4", "fp8", "bf16"])"},
    {"rope_parameters", "[null]"},
    {"rope_scaling.type", R"(["yarn"])"},
    {"rope_scaling.rope_type", R"(["yarn"])"},
    {"rope_scaling.mscale", "[null, 1]"},
    {"rope_scaling.mscale_all_dim", "[null, 1]"},
    {"rope_scaling.attention_factor", "[null, 1]"},
    {"quantization_config.quant_method", R"(["fp8"])"},
    {"quantization_config.fmt", R"(["e4m3"])"},
    {"quantization_config.activation_scheme", R"(["dynamic"])"},
    {"quantization_config.scale_fmt", R"(["ue8m0"])"},
    {"quantization_config.weight_block_size", "[[128, 128]]"},
    {"scale_fmt", R"([null, "ue8m0"])"},
};

// nullptr when missing; "a.b" looks for b in the object a.
const json* Find(const json& object, const std::string& key) {
  const size_t dot = key.find('.');
  const auto found = object.find(key.substr(0, dot));
  if (found == object.end()) return nullptr;
  if (dot == std::string::npos) return &*found;
  return found->is_object() ? Find(*found, key.substr(dot + 1)) : nullptr;
}

// A value as it stands in an error message.
std::string Short(const json& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

std::string Number(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.17g", value);
  return text;
}
std::string Number(int64_t value) { return std::to_string(value); }

class Reader {
 public:
  Reader(const json& object, const std::string& name) : object_(object), name_(name) {}

  absl::StatusOr<ModelConfig> Read() {
    const bool card = object_.contains("hidden_size"), reference = object_.contains("dim");
    if (card == reference) {
      return absl::InvalidArgumentError(absl::StrCat(
          name_, card ? ": has both hidden_size and dim: of which spelling is it?"
                      : ": has neither hidden_size (the model card's spelling) nor dim (the "
                        "reference's)"));
    }
    spelling_ = card ? Spelling::kModelCard : Spelling::kReference;
    CAIRN_RETURN_IF_ERROR(CheckPinned());
    CAIRN_RETURN_IF_ERROR(FindYarn());
    ModelConfig config;
    for (const auto& field : kIntFields) CAIRN_RETURN_IF_ERROR(ReadField(field, config));
    for (const auto& field : kRealFields) CAIRN_RETURN_IF_ERROR(ReadField(field, config));
    CAIRN_RETURN_IF_ERROR(ReadRatios(config));
    CAIRN_RETURN_IF_ERROR(ImplyPositions(config));
    CAIRN_RETURN_IF_ERROR(CheckConfig(config, name_));
    return config;
  }

 private:
  absl::Status Bad(const std::string& key, const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": ", key, " ", what));
  }

  absl::Status CheckPinned() const {
    for (const Pinned& pinned : kPinned) {
      const json* value = Find(object_, pinned.key);
      if (value == nullptr) continue;
      const json allowed = json::parse(pinned.allowed, nullptr, /*allow_exceptions=*/false);
      if (std::find(allowed.begin(), allowed.end(), *value) == allowed.end()) {
        return Bad(pinned.key, absl::StrCat("is ", Short(*value), "; only ", pinned.allowed,
                                            " is the architecture implemented here"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status FindYarn() {
    if (spelling_ == Spelling::kReference) {
      const json* length = Find(object_, "original_seq_len");
      yarn_ = length != nullptr && *length != 0;
      return absl::OkStatus();
    }
    const json* scaling = Find(object_, "rope_scaling");
    if (scaling == nullptr || scaling->is_null()) return absl::OkStatus();
    if (!scaling->is_object()) return Bad("rope_scaling", "is not an object");
    if (!scaling->contains("type") && !scaling->contains("rope_type")) {
      return Bad("rope_scaling.type", "is missing");
    }
    const json* length = Find(*scaling, "original_max_position_embeddings");
    yarn_ = length == nullptr || *length != 0;
    return absl::OkStatus();
  }

  static bool HasKind(const json& value, int64_t) { return value.is_number_integer(); }
  static bool HasKind(const json& value, double) { return value.is_number(); }

  template <typename T>
  absl::Status ReadField(const ConfigField<T>& field, ModelConfig& config) const {
    const std::string key = spelling_ == Spelling::kModelCard ? field.card : field.reference;
    const bool of_yarn =
        field.presence == Presence::kYarn || field.presence == Presence::kYarnOptional;
    if (of_yarn && !yarn_) return absl::OkStatus();
    const json* value = Find(object_, key);
    if (value == nullptr) {
      if (field.presence == Presence::kOptional || field.presence == Presence::kYarnOptional) {
        return absl::OkStatus();
      }
      return Bad(key, "is missing");
    }
    // An integer above 2^63 would wrap to a negative one.
    const bool wraps = value->is_number_unsigned() && value->get<uint64_t>() > (1ull << 62);
    if (!HasKind(*value, T{}) || wraps) {
      return Bad(key, absl::StrCat("is ", Short(*value), "; it must be a number from ",
                                   Number(field.least), " to ", Number(field.most)));
    }
    const T number = value->get<T>();
    if (!(number >= field.least && number <= field.most)) {  // a NaN fails too
      return Bad(key, absl::StrCat("is ", Short(*value), "; it must be from ", Number(field.least),
                                   " to ", Number(field.most)));
    }
    config.*field.member = number;
    return absl::OkStatus();
  }

  absl::Status ReadRatios(ModelConfig& config) const {
    const json* ratios = Find(object_, kRatiosKey);
    if (ratios == nullptr) return Bad(kRatiosKey, "is missing");
    if (!ratios->is_array()) return Bad(kRatiosKey, "is not a list of numbers");
    // Files of models without an MTP block may still list its entry.
    const size_t most = static_cast<size_t>(config.layers) + 1;
    const size_t needed = static_cast<size_t>(config.layers + config.mtp_layers);
    if (ratios->size() != needed && ratios->size() != most) {
      return Bad(kRatiosKey,
                 absl::StrCat("has ", ratios->size(), " numbers; ", config.layers, " layers and ",
                              config.mtp_layers, " MTP blocks need ", needed));
    }
    for (size_t layer = 0; layer < needed; ++layer) {
      const json& ratio = (*ratios)[layer];
      if (ratio != 0 && ratio != 4 && ratio != 128) {
        return Bad(kRatiosKey,
                   absl::StrCat("[", layer, "] is ", Short(ratio), "; it must be 0, 4 or 128"));
      }
      config.compress_ratios.push_back(ratio.get<int64_t>());
    }
    return absl::OkStatus();
  }

  absl::Status ImplyPositions(ModelConfig& config) const {
    if (config.max_positions != 0) return absl::OkStatus();
    const double implied = static_cast<double>(config.rope_original_len) * config.rope_factor;
    if (implied < 1 || implied > static_cast<double>(kPositionsMax)) {
      return Bad(spelling_ == Spelling::kModelCard ? "max_position_embeddings" : "max_seq_len",
                 "is missing and no original length times factor implies it");
    }
    config.max_positions = static_cast<int64_t>(implied);
    return absl::OkStatus();
  }

  const json& object_;
  const std::string& name_;
  Spelling spelling_ = Spelling::kModelCard;
  bool yarn_ = false;
};

template <typename T>
absl::Status CheckBounds(const ConfigField<T>& field, const ModelConfig& config,
                         const std::string& name) {
  const T value = config.*field.member;
  if (value >= field.least && value <= field.most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", field.card, " (", field.reference,
                                                 ") is ", Number(value), "; it must be from ",
                                                 Number(field.least), " to ", Number(field.most)));
}

absl::Status CheckRatios(const ModelConfig& c, const std::string& name) {
  if (std::ssize(c.compress_ratios) != c.layers + c.mtp_layers) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", kRatiosKey, " has ",
                                                   c.compress_ratios.size(), " numbers; ",
                                                   c.layers + c.mtp_layers, " are needed"));
  }
  for (int64_t ratio : c.compress_ratios) {
    if (ratio != 0 && ratio != 4 && ratio != 128) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": ", kRatiosKey, " holds ", ratio, "; it must be 0, 4 or 128"));
    }
  }
  if (c.mtp_layers == 1 && c.ratio(c.layers) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", kRatiosKey, " gives the MTP block ",
                                                   c.ratio(c.layers),
                                                   "; it has no compressor, so it must be 0"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckConfig(const ModelConfig& c, const std::string& name) {
  for (const auto& field : kIntFields) CAIRN_RETURN_IF_ERROR(CheckBounds(field, c, name));
  for (const auto& field : kRealFields) CAIRN_RETURN_IF_ERROR(CheckBounds(field, c, name));
  CAIRN_RETURN_IF_ERROR(CheckRatios(c, name));
  const struct {
    bool holds;
    const char* law;
  } laws[] = {
      {c.rope_dim % 2 == 0, "qk_rope_head_dim (rope_head_dim) must be even: RoPE turns pairs"},
      {c.rope_dim <= c.head_dim, "qk_rope_head_dim (rope_head_dim) must not exceed head_dim"},
      {c.rope_dim <= c.index_dim,
       "qk_rope_head_dim (rope_head_dim) must not exceed index_head_dim"},
      {(c.index_dim & (c.index_dim - 1)) == 0,
       "index_head_dim must be a power of two: indexer keys go through a Hadamard transform"},
      {c.heads % c.o_groups == 0, "num_attention_heads (n_heads) must be a multiple of o_groups"},
      {c.experts_per_token <= c.experts,
       "num_experts_per_tok (n_activated_experts) must not exceed n_routed_experts"},
      {c.hash_layers <= c.layers,
       "num_hash_layers (n_hash_layers) must not exceed num_hidden_layers (n_layers)"},
      {c.beta_fast >= c.beta_slow, "beta_fast must not be below beta_slow"},
  };
  for (const auto& [holds, law] : laws) {
    if (!holds) return absl::InvalidArgumentError(absl::StrCat(name, ": ", law));
  }
  return absl::OkStatus();
}

std::string ModelConfig::Canonical() const {
  std::string text = "deepseek_v4";
  for (const auto& field : kIntFields) {
    // How long a prompt may get changes no value, so it must not part the caches of two
    // deployments.
    if (field.member == &ModelConfig::max_positions) continue;
    absl::StrAppend(&text, " ", field.reference, "=", Number(this->*field.member));
  }
  for (const auto& field : kRealFields) {
    absl::StrAppend(&text, " ", field.reference, "=", Number(this->*field.member));
  }
  absl::StrAppend(&text, " ", kRatiosKey, "=");
  const char* separator = "";
  for (int64_t ratio : compress_ratios) {
    absl::StrAppend(&text, separator, ratio);
    separator = ",";
  }
  return text;
}

std::string ModelCardJson(const ModelConfig& config, bool quantised) {
  nlohmann::ordered_json out = {{"architectures", {"DeepseekV4ForCausalLM"}},
                                {"model_type", "deepseek_v4"}};
  const auto put = [&](const auto& field) {
    const std::string key = field.card;
    const size_t dot = key.find('.');
    if (dot == std::string::npos) {
      out[key] = config.*field.member;
    } else if (config.rope_original_len != 0) {
      out[key.substr(0, dot)][key.substr(dot + 1)] = config.*field.member;
    }
  };
  if (config.rope_original_len != 0) out["rope_scaling"]["type"] = "yarn";
  for (const auto& field : kIntFields) put(field);
  for (const auto& field : kRealFields) put(field);
  out[kRatiosKey] = config.compress_ratios;
  out["num_key_value_heads"] = 1;
  out["hidden_act"] = "silu";
  out["attention_bias"] = false;
  out["tie_word_embeddings"] = false;
  out["scoring_func"] = "sqrtsoftplus";
  out["topk_method"] = "noaux_tc";
  out["norm_topk_prob"] = true;
  out["torch_dtype"] = "bfloat16";
  if (quantised) {
    out["expert_dtype"] = "fp4";
    out["quantization_config"] = {{"quant_method", "fp8"},
                                  {"fmt", "e4m3"},
                                  {"activation_scheme", "dynamic"},
                                  {"scale_fmt", "ue8m0"},
                                  {"weight_block_size", {128, 128}}};
  }
  return out.dump(2) + "\n";
}

absl::StatusOr<ModelConfig> ParseConfig(const std::string& text, const std::string& name) {
  CAIRN_ASSIGN_OR_RETURN(const json object, ParseJsonObject(text, name));
  return Reader(object, name).Read();
}

absl::StatusOr<ModelConfig> LoadConfig(const std::string& path) {
  const std::string file = IsDirectory(path) ? absl::StrCat(path, "/config.json") : path;
  CAIRN_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(file, kConfigBytesMax));
  return ParseConfig(text, file);
}

}  // namespace cairn::engine
