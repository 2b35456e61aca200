// made_model.h: models with random weights, made for a comparison.
//
// Threads: one. Errors: of making and loading (engine/model/).
#ifndef CAIRN_TOOLS_CAIRN_BENCH_MADE_MODEL_H_
#define CAIRN_TOOLS_CAIRN_BENCH_MADE_MODEL_H_

#include <memory>
#include <optional>
#include <string>

#include "engine/forward/model.h"
#include "engine/model/maker.h"

namespace cairn::bench {

// At least one.
int EngineThreads();

// Makes it in `folder` and loads it from there.
absl::StatusOr<std::unique_ptr<engine::Model>> MakeAndLoad(const engine::ModelConfig& config,
                                                           engine::WeightFormat format,
                                                           std::optional<engine::Numerics> numerics,
                                                           const std::string& folder);

// Flash's widths (specification, section 1) in so few layers and experts that it is made in a
// minute: a layer of either kind behind the two with a window alone, 0.3 GB each.
absl::StatusOr<engine::ModelConfig> WideConfig();

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_MADE_MODEL_H_
