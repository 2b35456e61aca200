// logits_command.h: `cairn-engine logits`: prefill some tokens, decode the others as given, write
// all logits.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_LOGITS_COMMAND_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_LOGITS_COMMAND_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/forward/forward.h"
#include "store/base/status.h"

namespace cairn::engine {

struct LogitsOptions {
  std::string model;
  std::string tokens;  // safetensors with an I32 (or I64) tensor `tokens`
  std::string out;
  std::string json_out;  // what the experts cost, for programs; "-" is stdout
  int64_t prefill = 0;
  int64_t chunk = 256;
  int threads = 2;
  std::optional<Numerics> numerics;
  std::optional<uint64_t> expert_bytes;  // LoadOptions::expert_bytes
  // Results are for comparing the arithmetic with a reference, so nothing is rounded that the
  // numerics do not name.
  RopeRows rope_rows = RopeRows::kF32;
};

struct LogitsResult {
  std::vector<float> prefill;  // [prefill, vocab]
  std::vector<float> decode;   // [tokens - prefill, vocab]
  std::vector<float> mtp;  // [n, vocab], the last n <= 8 prefill positions whose following token is
                           // given; empty without MTP
};

// Prefills tokens[0, prefill) in steps of `chunk`, then feeds the others one by one.
absl::StatusOr<LogitsResult> ComputeLogits(Forward& forward, std::span<const int32_t> tokens,
                                           int64_t prefill, int64_t chunk, SessionState& session);

// Returns an exit code (store/base/exit_codes.h), having said on stderr what was wrong.
int RunLogitsCommand(const LogitsOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_LOGITS_COMMAND_H_
