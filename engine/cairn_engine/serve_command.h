// serve_command.h: `cairn-engine serve`: the OpenAI-compatible API over a model, with --cache
// through Cairn.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_SERVE_COMMAND_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_SERVE_COMMAND_H_

#include <cstdint>
#include <optional>
#include <string>

#include "engine/cairn_engine/cache_tls.h"
#include "engine/serve/http_server.h"
#include "engine/serve/scheduler.h"
#include "engine/state/numerics.h"

namespace CLI {
class App;
}

namespace cairn::engine {

struct ServeOptions {
  std::string model;
  std::string tokenizer;   // a tokenizer.json; empty: the model's, else bytes
  std::string model_name;  // as requests name it; empty: the folder's name
  int threads = 2;
  std::string device = "cpu";      // or "cuda"
  std::optional<int64_t> context;  // on cuda: tokens of a request, with its answer
  std::optional<Numerics> numerics;
  std::optional<uint64_t> expert_bytes;  // LoadOptions::expert_bytes
  std::string cache;                     // "unix:PATH" or "HOST:PORT"; empty: none
  CacheTls cache_tls;
  bool pin = false;             // of the daemon's memory, for the GPU
  uint64_t embedded_bytes = 0;  // of a cache in this process; 0: none
  std::string embedded_policy = "every:2048+ends";
  std::string tenant;
  double wait_seconds = 30;   // for another engine that is prefilling the same
  double drain_seconds = 30;  // at SIGTERM, for what is running and waiting
  int64_t answer_tokens_default = 4096;
  std::optional<int64_t> step_tokens;            // unset: as the device likes it
  std::optional<int64_t> kv_bytes;               // on the cpu
  Scheduler::Options scheduler;                  // but for these two
  std::string api_keys;                          // file; empty: no keys are asked for
  std::string tls_cert, tls_key, tls_client_ca;  // PEM files
  HttpServer::Options http;
};

void AddServeOptions(CLI::App* app, ServeOptions& options);

// Serves until SIGTERM or SIGINT, then finishes what it can in drain_seconds and fails the rest.
// Says "serving on HOST:PORT" on stdout once it does. Returns an exit code
// (store/base/exit_codes.h).
int RunServeCommand(const ServeOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_SERVE_COMMAND_H_
