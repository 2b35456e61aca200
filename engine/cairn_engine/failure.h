// failure.h: how cairn-engine says that it cannot go on: one line on stderr, one exit status; and
// which numerics it goes on with.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_FAILURE_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_FAILURE_H_

#include <cstdint>
#include <span>

#include "engine/forward/model.h"
#include "engine/model/config.h"
#include "store/base/status.h"

namespace cairn::engine {

// Prints "cairn-engine: <message>" and returns `exit_code`.
int Fail(const absl::Status& status, int exit_code);

// The same for what LoadModel said.
int FailLoading(const absl::Status& status);

// "numerics full-amx, with AMX", on stderr: what it is where nobody asked for one, and that one is
// slow.
void SayNumerics(const Model& model);

// INVALID_ARGUMENT naming the first token outside of the vocabulary and its position.
absl::Status CheckTokens(const ModelConfig& config, std::span<const int32_t> tokens);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_FAILURE_H_
