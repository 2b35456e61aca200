// generate_command.h: `cairn-engine generate`: read a text, then a question, answer greedily; with
// --cache through Cairn.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_GENERATE_COMMAND_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_GENERATE_COMMAND_H_

#include <cstdint>
#include <optional>
#include <string>

#include "engine/cairn_engine/cache_tls.h"
#include "engine/state/numerics.h"

namespace CLI {
class App;
}

namespace cairn::engine {

struct GenerateOptions {
  std::string model;
  std::string tokenizer;  // a tokenizer.json; empty: the model's, else bytes
  std::string prompt_file;
  std::string question;      // appended to it
  int64_t prompt_bytes = 0;  // use only the first so many bytes of the file; 0: all
  int64_t new_tokens = 16;
  int64_t chunk = 256;
  int threads = 2;
  std::string device = "cpu";  // or "cuda"
  std::optional<Numerics> numerics;
  std::optional<uint64_t> expert_bytes;  // LoadOptions::expert_bytes
  std::string cache;                     // "unix:PATH" or "HOST:PORT"; empty: none
  CacheTls cache_tls;
  bool pin = false;
  std::string tenant;
  double wait_seconds = 30;       // for another engine that is prefilling the same
  double flush_seconds = 30;      // for the background put before leaving
  double cache_deadline_ms = 50;  // what a hung daemon may cost a request
  std::string logits_out;         // safetensors: tokens I32 [n], logits F32 [n, vocab]
  std::string json_out;           // the figures, for programs; "-" is stdout
  bool quiet = false;
};

void AddGenerateOptions(CLI::App* app, GenerateOptions& options);

// Returns an exit code (store/base/exit_codes.h). A cache that cannot be used is said on stderr
// once and is no failure.
int RunGenerateCommand(const GenerateOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_GENERATE_COMMAND_H_
