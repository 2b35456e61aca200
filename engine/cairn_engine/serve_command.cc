#include "engine/cairn_engine/serve_command.h"

#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>

#include "cache/client/remote_cache.h"
#include "engine/cairn_engine/cuda_batch_runner.h"
#include "engine/cairn_engine/embedded_cache.h"
#include "engine/cairn_engine/failure.h"
#include "engine/serve/api.h"
#include "engine/serve/cache_slots.h"
#include "engine/serve/task_pool.h"
#include "store/base/exit_codes.h"
#include "store/device/tls_stream.h"

namespace cairn::engine {
namespace {

constexpr absl::Duration kFlushDeadline = absl::Seconds(10);
// Beside the connections of requests that run or wait: to be refused, or to ask for /metrics.
constexpr int64_t kSpareConnections = 32;
// Unless told otherwise: a slot on the GPU has its memory whether it is used or not.
constexpr int64_t kCudaContext = 32768;
constexpr int64_t kCudaStepTokens = 1024;

// SIGTERM and SIGINT, blocked in every thread that is made from now on.
sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

absl::StatusOr<std::unique_ptr<EmbeddedCache>> Embed(const ServeOptions& options) {
  if (options.embedded_bytes == 0) return nullptr;
  CAIRN_ASSIGN_OR_RETURN(const cache::CheckpointPolicy policy,
                         cache::CheckpointPolicy::Parse(options.embedded_policy));
  return EmbeddedCache::Create({.bytes = options.embedded_bytes, .policy = policy, .eviction = ""});
}

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

bool WantsCache(const ServeOptions& options) {
  return !options.cache.empty() || options.embedded_bytes > 0;
}

// `gpu` and `embedded` may be null.
std::unique_ptr<CacheSlots> AttachSlots(const ServeOptions& options, const CachedModel& model,
                                        store::Gpu* gpu, EmbeddedCache* embedded) {
  const cache::NamespaceSpec spec{model.Descriptor(), options.tenant};
  cache::RemoteCacheOptions remote;
  remote.gpu = gpu;
  remote.pin = options.pin;
  remote.pin_patience = absl::Seconds(60);
  CacheSlots::Options slots;
  slots.wait = absl::Seconds(options.wait_seconds);
  slots.step_tokens = options.scheduler.step_tokens;
  slots.say = [](const std::string& line) {
    std::fprintf(stderr, "cairn-engine: %s\n", line.c_str());
  };
  return std::make_unique<CacheSlots>(
      [target = options.cache, tls = options.cache_tls, spec, remote, embedded] {
        return embedded == nullptr ? ConnectCache(target, spec, remote, tls)
                                   : embedded->Connect(spec);
      },
      model, RealClock(), std::move(slots));
}

ServedModel Served(const ServeOptions& options, const ModelConfig& config) {
  if (!options.model_name.empty()) return {options.model_name, config.vocab};
  std::filesystem::path folder = std::filesystem::absolute(options.model).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // "nano/"
  return {folder.filename().string(), config.vocab};
}

// `signals` are blocked; `slots` may be null.
int Serve(const ServeOptions& options, const sigset_t& signals, BatchRunner& runner,
          CacheSlots* slots, const Tokenizer& tokenizer) {
  Metrics metrics;
  auto tasks = std::make_unique<TaskPool>(
      slots == nullptr ? 0 : static_cast<int>(options.scheduler.sequences_max));
  Scheduler scheduler(
      runner, tokenizer, slots,
      [&tasks](std::function<void()> task) { tasks->Add(std::move(task)); }, RealClock(), metrics,
      options.scheduler);
  Api api(scheduler, tokenizer, slots, metrics, RealClock(), SystemRandom(),
          {.model = Served(options, runner.config()),
           .max_positions = runner.tokens_max(),
           .answer_tokens_default = options.answer_tokens_default});
  HttpServer::Options http = options.http;
  http.connections_max = static_cast<int>(options.scheduler.sequences_max +
                                          options.scheduler.queue_max + kSpareConnections);
  absl::StatusOr<std::unique_ptr<HttpServer>> server = HttpServer::Listen(api, RealClock(), http);
  if (!server.ok()) return Fail(server.status(), kExitFailure);
  std::thread steps([&] { scheduler.Run(); });
  if (http.keys.empty() && options.tls_client_ca.empty() && !IsLoopback(http.host)) {
    std::fputs("cairn-engine: whoever reaches this may ask: --api-keys would ask for a key\n",
               stderr);
  }
  std::printf("serving on %s:%d\n", http.host.c_str(), (*server)->port());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  (*server)->SetDraining();
  scheduler.Drain(absl::Seconds(options.drain_seconds));
  scheduler.Stop();
  steps.join();
  tasks.reset();  // before the scheduler, which its last task may still be leaving
  server->reset();
  if (slots != nullptr) slots->Flush(kFlushDeadline);
  return kExitOk;
}

int ServeOnCpu(ServeOptions options, const Tokenizer& tokenizer, EmbeddedCache* embedded) {
  if (options.kv_bytes.has_value()) options.scheduler.kv_bytes_max = *options.kv_bytes;
  const absl::StatusOr<std::unique_ptr<Model>> model = LoadModel(
      options.model, {.numerics = options.numerics,
                      .threads = options.threads,
                      .expert_bytes = options.expert_bytes,
                      .reserved_bytes = options.embedded_bytes +
                                        static_cast<uint64_t>(options.scheduler.kv_bytes_max)});
  if (!model.ok()) return FailLoading(model.status());
  SayNumerics(**model);
  if (options.scheduler.speculate && (*model)->mtp == nullptr) {
    return Fail(absl::InvalidArgumentError("--speculate: the model has no MTP block"), kExitUsage);
  }
  const sigset_t signals = BlockStopSignals();
  Forward forward(**model, options.threads);
  std::unique_ptr<CacheSlots> slots;
  if (WantsCache(options)) slots = AttachSlots(options, (*model)->cached(), nullptr, embedded);
  return Serve(options, signals, *CpuBatchRunner(forward), slots.get(), tokenizer);
}

absl::Status CheckForCuda(const ServeOptions& options) {
  if (options.numerics.value_or(Numerics::kFull) != Numerics::kFull) {
    return absl::InvalidArgumentError("--device cuda has full numerics only");
  }
  if (options.scheduler.speculate) {
    return absl::InvalidArgumentError("--speculate is for --device cpu: cuda has no MTP block");
  }
  if (options.expert_bytes.has_value()) {
    return absl::InvalidArgumentError(
        "--expert-cache is for --device cpu: cuda has all experts in GPU memory");
  }
  if (options.kv_bytes.has_value()) {
    return absl::InvalidArgumentError(
        "--kv-bytes is for --device cpu: cuda takes --sequences times --context");
  }
  return absl::OkStatus();
}

int ServeOnCuda(ServeOptions options, const Tokenizer& tokenizer, EmbeddedCache* embedded) {
  // From the start, as the driver has threads of its own: what comes while the model is loaded is
  // taken after that.
  const sigset_t signals = BlockStopSignals();
  const absl::StatusOr<std::unique_ptr<CudaBatchRunner>> runner =
      OpenCudaBatchRunner(options.model, {.sequences_max = options.scheduler.sequences_max,
                                          .tokens_max = options.context.value_or(kCudaContext),
                                          .step_tokens = options.scheduler.step_tokens,
                                          .threads = options.threads});
  if (absl::IsInvalidArgument(runner.status())) return Fail(runner.status(), kExitBadConfig);
  if (!runner.ok()) return Fail(runner.status(), kExitFailure);
  options.scheduler.kv_bytes_max = (*runner)->kv_bytes();
  std::unique_ptr<CacheSlots> slots;
  if (WantsCache(options)) {
    if (const absl::Status status = (*runner)->PrepareForCache(); !status.ok()) {
      return Fail(status, kExitFailure);
    }
    slots = AttachSlots(options, (*runner)->cached_model(), (*runner)->gpu(), embedded);
  }
  return Serve(options, signals, **runner, slots.get(), tokenizer);
}

// Keys and TLS, read from their files.
absl::Status Guard(ServeOptions& options) {
  if (!options.api_keys.empty()) {
    CAIRN_ASSIGN_OR_RETURN(options.http.keys, ApiKeys::Load(options.api_keys));
  }
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key go together");
  }
  if (options.tls_cert.empty()) {
    return options.tls_client_ca.empty()
               ? absl::OkStatus()
               : absl::InvalidArgumentError("--tls-client-ca needs --tls-cert");
  }
  CAIRN_ASSIGN_OR_RETURN(const store::TlsCredentials credentials,
                         store::ReadTls(options.tls_cert, options.tls_key, options.tls_client_ca));
  CAIRN_ASSIGN_OR_RETURN(options.http.tls, store::TlsOver(credentials));
  return absl::OkStatus();
}

// What no device takes, and what the other one takes.
absl::Status CheckOptions(const ServeOptions& options) {
  if (options.scheduler.step_tokens < options.scheduler.sequences_max) {
    return absl::InvalidArgumentError("--step-tokens: must be at least --sequences");
  }
  const bool cuda = options.device == "cuda";
  if (options.pin && (!cuda || options.cache.empty())) {
    return absl::InvalidArgumentError("--pin is for --device cuda with --cache");
  }
  if (options.context.has_value() && !cuda) {
    return absl::InvalidArgumentError("--context is for --device cuda");
  }
  return cuda ? CheckForCuda(options) : absl::OkStatus();
}

}  // namespace

void AddServeOptions(CLI::App* app, ServeOptions& o) {
  app->add_option("--model", o.model, "directory of config.json and safetensors")->required();
  app->add_option("--tokenizer", o.tokenizer,
                  "tokenizer.json; default: the model's own, else bytes are the tokens");
  app->add_option("--model-name", o.model_name, "as requests name it; default: the folder's name");
  app->add_option("--host", o.http.host, "address to listen on");
  app->add_option("--port", o.http.port, "0: any that is free")->check(CLI::Range(0, 65535));
  app->add_option("--tls-cert", o.tls_cert,
                  "PEM file: TLS 1.3 by this certificate and what leads to its authority");
  app->add_option("--tls-key", o.tls_key, "PEM file: its key");
  app->add_option("--tls-client-ca", o.tls_client_ca,
                  "PEM file: clients must show a certificate that these authorities gave");
  app->add_option("--api-keys", o.api_keys,
                  "file of keys, one a line, mode 0600: requests must show one of them");
  app->add_option("--body-bytes", o.http.body_bytes_max, "longest body of a request")
      ->transform(CLI::AsSizeValue(false));
  app->add_option("--threads", o.threads, "compute threads")->check(CLI::Range(1, 256));
  app->add_option("--device", o.device,
                  "cpu, or cuda: FP8 and FP4 weights as released, in full numerics")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app->add_option(
         "--context", o.context,
         "with --device cuda: longest prompt and answer of a request, in tokens, for which "
         "each of --sequences has memory (default: the model's maximum, at most 32768)")
      ->check(CLI::PositiveNumber);
  app->add_option("--cache", o.cache, "cairnd to use: unix:PATH or HOST:PORT");
  app->add_flag("--pin", o.pin,
                "with --device cuda: pin the daemon's memory first, so that the GPU reads hits "
                "there (seconds, at the start)");
  app->add_option("--embedded-cache", o.embedded_bytes,
                  "without a daemon: a cache of this process's own, with so many bytes of memory")
      ->transform(CLI::AsSizeValue(false))
      ->excludes("--cache");
  app->add_option("--embedded-policy", o.embedded_policy, "the checkpoints that it keeps")
      ->capture_default_str();
  AddCacheTlsOptions(app, o.cache_tls);
  app->add_option("--tenant", o.tenant, "whose prefixes; empty: the default tenant's");
  app->add_option("--wait", o.wait_seconds,
                  "seconds to wait for another engine's prefill of the same prefix");
  app->add_option("--sequences", o.scheduler.sequences_max, "requests computed at once")
      ->check(CLI::Range(1, 512));
  app->add_option("--queue", o.scheduler.queue_max, "requests that may wait")
      ->check(CLI::Range(0, 4096));
  app->add_option("--step-tokens", o.step_tokens,
                  "tokens a step of the model (default: 256; with --device cuda 1024)")
      ->check(CLI::Range(1, 65536));
  app->add_flag("--speculate", o.scheduler.speculate,
                "guess a token ahead with the model's MTP block; answers stay the same");
  app->add_option("--kv-bytes", o.kv_bytes, "memory for the requests' states (default: 4 GiB)")
      ->transform(CLI::AsSizeValue(false));
  app->add_option("--answer-tokens", o.answer_tokens_default,
                  "longest answer of a chat that says nothing about it")
      ->check(CLI::PositiveNumber);
  app->add_option("--drain", o.drain_seconds, "seconds that SIGTERM leaves to running requests")
      ->check(CLI::NonNegativeNumber);
}

int RunServeCommand(const ServeOptions& asked) {
  ServeOptions options = asked;
  if (const auto tls = ReadCacheTls(options.cache_tls); !tls.ok()) {
    return Fail(tls.status(), kExitUsage);
  }
  if (const absl::Status status = Guard(options); !status.ok()) return Fail(status, kExitUsage);
  absl::StatusOr<ModelConfig> config = LoadConfig(options.model);
  if (!config.ok()) return Fail(config.status(), kExitBadConfig);
  const bool cuda = options.device == "cuda";
  options.scheduler.step_tokens =
      options.step_tokens.value_or(cuda ? std::max(kCudaStepTokens, options.scheduler.sequences_max)
                                        : options.scheduler.step_tokens);
  if (const absl::Status status = CheckOptions(options); !status.ok()) {
    return Fail(status, kExitUsage);
  }
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      TokenizerOf(options.model, options.tokenizer, config->vocab);
  if (!tokenizer.ok()) return Fail(tokenizer.status(), kExitBadConfig);
  const absl::StatusOr<std::unique_ptr<EmbeddedCache>> embedded = Embed(options);
  if (!embedded.ok()) return Fail(embedded.status(), kExitUsage);
  const auto serve = cuda ? ServeOnCuda : ServeOnCpu;
  return serve(options, **tokenizer, embedded->get());
}

}  // namespace cairn::engine
