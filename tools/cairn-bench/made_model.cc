#include "tools/cairn-bench/made_model.h"

#include <algorithm>
#include <thread>

#include "engine/model/presets.h"

namespace cairn::bench {

int EngineThreads() { return static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u)); }

absl::StatusOr<std::unique_ptr<engine::Model>> MakeAndLoad(const engine::ModelConfig& config,
                                                           engine::WeightFormat format,
                                                           std::optional<engine::Numerics> numerics,
                                                           const std::string& folder) {
  engine::MakeOptions options;
  options.config = config;
  options.format = format;
  options.seed = 1;
  options.threads = EngineThreads();
  CAIRN_RETURN_IF_ERROR(engine::MakeModel(options, folder));
  return engine::LoadModel(folder, {.numerics = numerics, .threads = EngineThreads()});
}

absl::StatusOr<engine::ModelConfig> WideConfig() {
  CAIRN_ASSIGN_OR_RETURN(engine::ModelConfig config, engine::PresetConfig("mini"));
  config.vocab = 4096;
  config.dim = 4096;
  config.heads = 64;
  config.q_lora = config.o_lora = 1024;
  config.o_groups = 8;
  config.index_heads = 64;
  config.index_topk = 512;
  config.experts = 16;
  config.experts_per_token = 6;
  config.expert_dim = 2048;
  engine::SetLayers(config, 4, 0);
  return config;
}

}  // namespace cairn::bench
