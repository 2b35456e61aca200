// cairn-model: makes models with random weights at any scale, and shows what a model folder holds.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "engine/model/config.h"
#include "engine/model/maker.h"
#include "engine/model/presets.h"
#include "engine/model/safetensors.h"
#include "engine/model/weights.h"
#include "engine/state/kv_layout.h"
#include "engine/state/numerics.h"
#include "store/base/exit_codes.h"
#include "store/base/limits.h"

namespace cairn {
namespace {

int Fail(const absl::Status& status, int exit_code) {
  std::fprintf(stderr, "cairn-model: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kResourceExhausted ? kExitDiskFull : exit_code;
}

struct MakeArguments {
  std::string preset = "mini";
  std::string format;
  std::string out;
  uint64_t seed = 0;
  uint64_t shard_bytes = 4ull << 30;
  int threads = 1;
  // Overrides of the preset, by flag; `layers` and `mtp` change the pattern of layers too.
  std::optional<int64_t> layers, mtp;
  std::map<std::string, std::optional<int64_t>> dimensions;
};

struct Override {
  const char* flag;
  int64_t engine::ModelConfig::*member;
  const char* help;
};
constexpr Override kOverrides[] = {
    {"dim", &engine::ModelConfig::dim, "hidden size"},
    {"vocab", &engine::ModelConfig::vocab, "vocabulary"},
    {"heads", &engine::ModelConfig::heads, "query heads"},
    {"head-dim", &engine::ModelConfig::head_dim, "width of a key = value vector"},
    {"q-lora", &engine::ModelConfig::q_lora, "rank of the queries"},
    {"o-lora", &engine::ModelConfig::o_lora, "rank of the output, per group"},
    {"o-groups", &engine::ModelConfig::o_groups, "groups of the output"},
    {"index-heads", &engine::ModelConfig::index_heads, "indexer heads"},
    {"index-dim", &engine::ModelConfig::index_dim, "width of an indexer key"},
    {"index-topk", &engine::ModelConfig::index_topk, "compressed rows an indexer selects"},
    {"experts", &engine::ModelConfig::experts, "routed experts"},
    {"experts-per-token", &engine::ModelConfig::experts_per_token, "experts a token is sent to"},
    {"expert-dim", &engine::ModelConfig::expert_dim, "inner width of an expert"},
    {"hash-layers", &engine::ModelConfig::hash_layers, "layers that route by token id"},
    {"max-positions", &engine::ModelConfig::max_positions, "longest prompt"},
};

int RunMake(const MakeArguments& arguments) {
  absl::StatusOr<engine::ModelConfig> config = engine::PresetConfig(arguments.preset);
  if (!config.ok()) return Fail(config.status(), kExitUsage);
  for (const Override& field : kOverrides) {
    const std::optional<int64_t>& value = arguments.dimensions.at(field.flag);
    if (value) (*config).*field.member = *value;
  }
  engine::SetLayers(*config, arguments.layers.value_or(config->layers),
                    arguments.mtp.value_or(config->mtp_layers));
  // The released models' format, but for nano, whose widths do not fill a block of 128.
  const std::string format = !arguments.format.empty()    ? arguments.format
                             : arguments.preset == "nano" ? "bf16"
                                                          : "fp8fp4";
  const std::optional<engine::WeightFormat> parsed = engine::ParseWeightFormat(format);
  if (!parsed) {
    return Fail(absl::InvalidArgumentError("--format is bf16 or fp8fp4"), kExitUsage);
  }
  const absl::Status made = engine::MakeModel({.config = *config,
                                               .format = *parsed,
                                               .seed = arguments.seed,
                                               .shard_bytes = arguments.shard_bytes,
                                               .threads = arguments.threads},
                                              arguments.out);
  if (made.code() == absl::StatusCode::kInvalidArgument) return Fail(made, kExitUsage);
  if (!made.ok()) return Fail(made, kExitFailure);
  std::printf("%s: %s, %s, seed %" PRIu64 "\n", arguments.out.c_str(), arguments.preset.c_str(),
              format.c_str(), arguments.seed);
  return kExitOk;
}

std::string RatiosText(const engine::ModelConfig& config) {
  std::string text;
  for (int64_t ratio : config.compress_ratios) {
    absl::StrAppend(&text, text.empty() ? "" : ",", ratio);
  }
  return text;
}

void ShowShape(const engine::ModelConfig& c) {
  std::printf("layers         %" PRId64 " + %" PRId64 " MTP, compress_ratios %s\n", c.layers,
              c.mtp_layers, RatiosText(c).c_str());
  std::printf("width          dim %" PRId64 ", %" PRId64 " streams, vocab %" PRId64 "\n", c.dim,
              c.hc, c.vocab);
  std::printf("attention      %" PRId64 " heads of %" PRId64 " (rope %" PRId64 "), window %" PRId64
              ", q_lora %" PRId64 ", o %" PRId64 " x %" PRId64 "\n",
              c.heads, c.head_dim, c.rope_dim, c.window, c.q_lora, c.o_groups, c.o_lora);
  std::printf("indexer        %" PRId64 " heads of %" PRId64 ", top %" PRId64 "\n", c.index_heads,
              c.index_dim, c.index_topk);
  std::printf("experts        %" PRId64 " of width %" PRId64 ", %" PRId64 " a token, %" PRId64
              " hash layers\n",
              c.experts, c.expert_dim, c.experts_per_token, c.hash_layers);
  std::printf("positions      %" PRId64 "\n", c.max_positions);
}

void ShowTensors(const engine::TensorFile& file) {
  struct Sum {
    uint64_t tensors = 0, bytes = 0;
  };
  std::map<std::string, Sum> by_type;
  Sum all;
  for (const auto& [name, view] : file.tensors()) {
    for (Sum* sum : {&by_type[engine::DTypeName(view.dtype)], &all}) {
      ++sum->tensors;
      sum->bytes += view.bytes.size();
    }
  }
  std::printf("tensors        %" PRIu64 ", %" PRIu64 " bytes\n", all.tensors, all.bytes);
  for (const auto& [type, sum] : by_type) {
    std::printf("  %-12s %" PRIu64 ", %" PRIu64 " bytes\n", type.c_str(), sum.tensors, sum.bytes);
  }
}

void ShowKv(const engine::ModelConfig& config) {
  for (engine::Numerics numerics : {engine::Numerics::kPlain, engine::Numerics::kFull}) {
    const engine::KvLayout layout(config, numerics);
    std::printf("KV, %-10s %.2f bytes a token in rows (%" PRId64 " a block of %u), %" PRId64
                " a checkpoint\n",
                engine::NumericsName(numerics),
                static_cast<double>(layout.rows_entry_bytes()) / kBlockTokens,
                layout.rows_entry_bytes(), kBlockTokens, layout.checkpoint_bytes());
  }
}

int RunShow(const std::string& folder, bool check, int threads) {
  const absl::StatusOr<engine::ModelConfig> config = engine::LoadConfig(folder);
  if (!config.ok()) return Fail(config.status(), kExitBadConfig);
  absl::StatusOr<std::unique_ptr<engine::TensorFile>> file = engine::TensorFile::Open(folder);
  if (!file.ok()) return Fail(file.status(), kExitBadWeights);
  const absl::StatusOr<engine::Weights> weights = engine::BindWeights(*config, *std::move(file));
  if (!weights.ok()) return Fail(weights.status(), kExitBadWeights);
  ShowShape(*config);
  ShowTensors(*weights->file);
  ShowKv(*config);
  if (!check) return kExitOk;
  if (absl::Status finite = weights->CheckFinite(threads); !finite.ok()) {
    return Fail(finite, kExitBadWeights);
  }
  std::printf("identity       %s\n", weights->Identity(threads).ToHex().c_str());
  return kExitOk;
}

int Main(int argc, char** argv) {
  CLI::App app("Makes models with random weights, and shows what a model folder holds.");
  app.require_subcommand(1);
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));

  MakeArguments make;
  make.threads = cores;
  CLI::App* make_command = app.add_subcommand("make", "write a model with random weights");
  make_command->add_option("--preset", make.preset, "nano, mini or small")->capture_default_str();
  make_command->add_option("--seed", make.seed, "same seed, same weights")->capture_default_str();
  make_command->add_option("--out", make.out, "folder to write to")->required();
  make_command->add_option("--format", make.format,
                           "bf16 or fp8fp4 (default: nano bf16, else fp8fp4)");
  make_command->add_option("--shard-bytes", make.shard_bytes, "largest shard")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  make_command->add_option("--threads", make.threads)->check(CLI::Range(1, 1024));
  make_command->add_option("--layers", make.layers, "main layers; the pattern goes on");
  make_command->add_option("--mtp", make.mtp, "MTP blocks")->check(CLI::Range(0, 1));
  for (const Override& field : kOverrides) {
    make_command->add_option(absl::StrCat("--", field.flag), make.dimensions[field.flag],
                             field.help);
  }

  std::string folder;
  bool check = false;
  int threads = cores;
  CLI::App* show_command = app.add_subcommand("show", "shape, tensors and bytes of KV of a model");
  show_command->add_option("folder", folder, "folder with config.json and weights")->required();
  show_command->add_flag("--check", check,
                         "read every byte: find NaN and infinities, print the identity");
  show_command->add_option("--threads", threads)->check(CLI::Range(1, 1024));

  try {  // CLI11 reports by exception, --help included
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  return make_command->parsed() ? RunMake(make) : RunShow(folder, check, threads);
}

}  // namespace
}  // namespace cairn

int main(int argc, char** argv) { return cairn::Main(argc, argv); }
