// verify_command.h: `cairn-engine verify`: is what the cache gives what a prefill gives, to the
// bit, on these prompts? With --cache through the fleet's daemon, in a namespace of its own, so
// that an engine that is wrong spoils nobody's prefixes; else through a cache in this process.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_VERIFY_COMMAND_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_VERIFY_COMMAND_H_

#include <cstdint>
#include <optional>
#include <string>

#include "engine/cairn_engine/cache_tls.h"
#include "engine/cairn_engine/verify_pairs.h"
#include "engine/state/numerics.h"

namespace CLI {
class App;
}

namespace cairn::engine {

struct VerifyOptions {
  std::string model;
  std::string prompts;    // prompts_file.h
  std::string tokenizer;  // a tokenizer.json; empty: the model's, else bytes
  std::string cache;      // "unix:PATH" or "HOST:PORT"; empty: in this process
  CacheTls cache_tls;
  std::string tenant;
  int64_t chunk = 256;
  int threads = 2;
  std::optional<Numerics> numerics;
  std::optional<uint64_t> expert_bytes;  // LoadOptions::expert_bytes
  std::string json_out;                  // the figures, for programs; "-" is stdout
  bool quiet = false;
};

void AddVerifyOptions(CLI::App* app, VerifyOptions& options);

// 0: every pair that was served is equal. kExitMismatch: one is not. kExitFailure: the cache served
// nothing, so nothing is proved. What is wrong is said.
int Verdict(const VerifyFigures& figures);

// The verdict, or an exit code of its own (store/base/exit_codes.h).
int RunVerifyCommand(const VerifyOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_VERIFY_COMMAND_H_
