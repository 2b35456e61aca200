// divergence.h: where a resumed run parts from the cold one: first the restored state, component by
// component in the layout's order, then the streams, layer by layer.
//
// Threads: one caller a Forward. Errors: those of Forward::Run.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_DIVERGENCE_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_DIVERGENCE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "engine/forward/forward.h"
#include "engine/resume/prefix_cache.h"
#include "engine/state/session_state.h"

namespace cairn::engine {

// component: a layout component ("layer.2.csa_rows"), "layer.2.partial", "layer.2.streams",
//   "chunks" (the cold run itself depends on where its steps end), or "none" (it did not happen
//   again). position: of the token from which it shows; for rows the first of their block.
struct Divergence {
  std::string component;
  int64_t position = 0;
  std::string detail;
};

// REQUIRES: both at the same whole block.
std::optional<Divergence> FirstStateDifference(const SessionState& cold, const SessionState& warm,
                                               const Model& model);

// Feeds `tokens` to both, one by one. REQUIRES: both at the same position.
absl::StatusOr<std::optional<Divergence>> FirstStreamDifference(Forward& forward,
                                                                std::span<const int32_t> tokens,
                                                                SessionState& cold,
                                                                SessionState& warm);

// Resumes `prompt` again, and computes it again from nothing in steps of `chunk`.
absl::StatusOr<Divergence> FindDivergence(Forward& forward, PrefixCache& cache,
                                          std::span<const int32_t> prompt, int64_t chunk);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_DIVERGENCE_H_
