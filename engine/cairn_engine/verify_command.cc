#include "engine/cairn_engine/verify_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "cache/client/remote_cache.h"
#include "engine/cairn_engine/embedded_cache.h"
#include "engine/cairn_engine/failure.h"
#include "engine/cairn_engine/json_out.h"
#include "engine/cairn_engine/prompts_file.h"
#include "engine/cairn_engine/run_sequence.h"
#include "engine/model/config.h"
#include "store/base/exit_codes.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

// Nobody waits for a first token here.
constexpr absl::Duration kPatience = absl::Seconds(10);

constexpr uint64_t kEmbeddedBytesMax = 4ull << 30;  // unless the longest prompt needs more

// Another identity than the model's own: of these names no engine that serves ever asks.
cache::NamespaceSpec VerifyNamespace(const Model& model, const std::string& tenant) {
  cache::LayoutDescriptor layout = model.layout->Descriptor(model.weights_identity);
  constexpr std::string_view kLabel = "cairn.verify.1";
  layout.weights = HmacSha256({reinterpret_cast<const uint8_t*>(kLabel.data()), kLabel.size()},
                              layout.weights.bytes);
  return {std::move(layout), tenant};
}

// So large that prompts do not drive each other out, where that is possible: a prompt that shares
// its beginning with one that lost some of its checkpoints cannot be cut there.
absl::StatusOr<std::unique_ptr<EmbeddedCache>> CacheFor(const cache::LayoutDescriptor& layout,
                                                        const std::vector<FilePrompt>& prompts) {
  uint64_t longest = 0, all = 0;
  for (const FilePrompt& prompt : prompts) {
    const uint64_t blocks = prompt.tokens.size() / kBlockTokens + 1;
    longest = std::max(longest, blocks);
    all += blocks;
  }
  cache::CheckpointPolicy full;
  full.full = true;
  return EmbeddedCache::Create(
      {.bytes = std::max(EmbeddedCache::BytesFor(layout, longest),
                         std::min(EmbeddedCache::BytesFor(layout, all), kEmbeddedBytesMax)),
       .policy = full,
       .eviction = "lru"});
}

absl::Status CheckPrompts(const ModelConfig& config, const std::vector<FilePrompt>& prompts) {
  for (const FilePrompt& prompt : prompts) {
    // The put generates a token.
    const absl::Status status = CheckPrompt(config, prompt.tokens, 1);
    if (status.ok()) continue;
    return absl::Status(status.code(),
                        absl::StrCat("line ", prompt.line, ": ", std::string(status.message())));
  }
  return absl::OkStatus();
}

nlohmann::ordered_json FiguresJson(const VerifyFigures& f, double seconds) {
  return {{"prompts", f.prompts},
          {"too_short", f.too_short},
          {"prompt_tokens", f.prompt_tokens},
          {"boundaries", f.boundaries},
          {"pairs", f.pairs},
          {"hits", f.hits()},
          {"equal", f.equal},
          {"differing", f.differing},
          {"missed", f.missed},
          {"taken_back", f.taken_back},
          {"shorter_hits", f.shorter},
          {"hit_tokens", f.hit_tokens},
          {"recomputed_tokens", f.recomputed_tokens},
          {"replayed", f.replayed},
          {"replay_token_layers", f.replay_token_layers},
          {"replay_rectangle_token_layers", f.replay_rectangle_token_layers},
          {"host_bytes", f.host_bytes},
          {"disk_bytes", f.disk_bytes},
          {"checksum_failures", f.checksum_failures},
          {"seconds", seconds}};
}

nlohmann::ordered_json DifferencesJson(const std::vector<Difference>& differences,
                                       const std::vector<FilePrompt>& prompts) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Difference& d : differences) {
    out.push_back({{"line", prompts[static_cast<size_t>(d.prompt - 1)].line},
                   {"tokens", d.cut},
                   {"prefix_tokens", d.prefix_tokens},
                   {"component", d.first.component},
                   {"position", d.first.position},
                   {"detail", d.first.detail}});
  }
  return out;
}

void PrintText(const VerifyFigures& f, const std::vector<Difference>& differences,
               const std::vector<FilePrompt>& prompts) {
  const auto n = [](auto value) { return static_cast<long long>(value); };
  std::printf("%lld prompts (%lld too short for a hit) of %lld tokens, %lld block ends\n",
              n(f.prompts), n(f.too_short), n(f.prompt_tokens), n(f.boundaries));
  std::printf(
      "%lld pairs: %lld served (%lld tokens from the cache, %lld computed), %lld missed, "
      "%lld taken back\n",
      n(f.pairs), n(f.hits()), n(f.hit_tokens), n(f.recomputed_tokens), n(f.missed),
      n(f.taken_back));
  if (f.replayed > 0) {
    std::printf("%lld of them replayed from rows alone: %lld token-layers, as a rectangle %lld\n",
                n(f.replayed), n(f.replay_token_layers), n(f.replay_rectangle_token_layers));
  }
  std::printf("%lld equal, %lld differing\n", n(f.equal), n(f.differing));
  for (const Difference& d : differences) {
    std::printf(
        "line %zu, first %lld tokens, %lld from the cache: %s differs at position %lld "
        "(%s)\n",
        prompts[static_cast<size_t>(d.prompt - 1)].line, n(d.cut), n(d.prefix_tokens),
        d.first.component.c_str(), n(d.first.position), d.first.detail.c_str());
  }
}

int Verify(const VerifyOptions& options, const Model& model,
           const std::vector<FilePrompt>& prompts) {
  const cache::NamespaceSpec spec = VerifyNamespace(model, options.tenant);
  std::unique_ptr<EmbeddedCache> embedded;
  absl::StatusOr<std::unique_ptr<cache::CacheApi>> api = absl::UnknownError("");
  if (options.cache.empty()) {
    auto created = CacheFor(spec.layout, prompts);
    if (!created.ok()) return Fail(created.status(), kExitFailure);
    embedded = std::move(*created);
    api = embedded->Connect(spec);
  } else {
    api = ConnectCache(options.cache, spec, {.call_timeout = kPatience}, options.cache_tls);
  }
  if (!api.ok()) return Fail(api.status(), kExitFailure);

  PrefixCache::Options settings;
  settings.always_load = true;
  settings.say = [](const std::string& line) {
    std::fprintf(stderr, "cairn-engine: %s\n", line.c_str());
  };
  PrefixCache cache(std::move(api), model.cached(), RealClock(), settings);
  Forward forward(model, options.threads);
  PairVerifier::Options pairs{.chunk = options.chunk};
  if (!options.quiet) {
    pairs.progress = [&](const VerifyFigures& f) {
      std::fprintf(stderr, "\rprompt %lld of %zu, %lld pairs, %lld missed, %lld differing",
                   static_cast<long long>(f.prompts), prompts.size(),
                   static_cast<long long>(f.pairs), static_cast<long long>(f.missed),
                   static_cast<long long>(f.differing));
      if (f.prompts == static_cast<int64_t>(prompts.size())) std::fputc('\n', stderr);
    };
  }
  PairVerifier verifier(forward, cache, RealClock(), pairs);
  const int64_t start = RealClock().NowNanos();
  for (const FilePrompt& prompt : prompts) {
    if (const absl::Status status = verifier.Add(prompt.tokens); !status.ok()) {
      return Fail(status, kExitFailure);
    }
  }
  const double seconds = static_cast<double>(RealClock().NowNanos() - start) * 1e-9;
  if (options.json_out != "-") PrintText(verifier.figures(), verifier.differences(), prompts);
  if (!options.json_out.empty()) {
    nlohmann::ordered_json figures = FiguresJson(verifier.figures(), seconds);
    figures["differences"] = DifferencesJson(verifier.differences(), prompts);
    if (const absl::Status status = WriteJson(options.json_out, figures); !status.ok()) {
      return Fail(status, kExitFailure);
    }
  }
  return Verdict(verifier.figures());
}

}  // namespace

void AddVerifyOptions(CLI::App* app, VerifyOptions& o) {
  app->add_option("--model", o.model, "directory of config.json and safetensors")->required();
  app->add_option("--prompts", o.prompts,
                  "one prompt a line: its text, or {\"prompt\": a text or token ids}")
      ->required();
  app->add_option("--tokenizer", o.tokenizer,
                  "tokenizer.json; default: the model's own, else bytes are the tokens");
  app->add_option("--cache", o.cache,
                  "cairnd to use: unix:PATH or HOST:PORT; default: a cache in this process");
  AddCacheTlsOptions(app, o.cache_tls);
  app->add_option("--tenant", o.tenant, "of the daemon; empty: the default tenant");
  app->add_option("--chunk", o.chunk, "prefill tokens a step")->check(CLI::PositiveNumber);
  app->add_option("--threads", o.threads, "compute threads")->check(CLI::Range(1, 256));
  app->add_option("--json", o.json_out, "file for the figures; - is stdout");
  app->add_flag("--quiet", o.quiet, "no progress");
}

int Verdict(const VerifyFigures& f) {
  if (f.differing > 0) {
    return Fail(absl::InternalError(absl::StrCat(f.differing, " of ", f.hits(),
                                                 " resumed results differ from the cold ones")),
                kExitMismatch);
  }
  if (f.hits() == 0) {
    return Fail(absl::FailedPreconditionError("the cache served nothing, so nothing is proved"),
                kExitFailure);
  }
  return kExitOk;
}

int RunVerifyCommand(const VerifyOptions& options) {
  if (const auto tls = ReadCacheTls(options.cache_tls); !tls.ok()) {
    return Fail(tls.status(), kExitUsage);
  }
  absl::StatusOr<ModelConfig> config = LoadConfig(options.model);
  if (!config.ok()) return Fail(config.status(), kExitBadConfig);
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      TokenizerOf(options.model, options.tokenizer, config->vocab);
  if (!tokenizer.ok()) return Fail(tokenizer.status(), kExitBadConfig);
  const absl::StatusOr<std::vector<FilePrompt>> prompts =
      ReadPromptsFile(options.prompts, **tokenizer);
  if (!prompts.ok()) return Fail(prompts.status(), kExitUsage);
  if (const absl::Status status = CheckPrompts(*config, *prompts); !status.ok()) {
    return Fail(status, absl::IsOutOfRange(status) ? kExitPromptTooLong : kExitTokenRange);
  }
  absl::StatusOr<std::unique_ptr<Model>> model =
      LoadModel(options.model, {.numerics = options.numerics,
                                .threads = options.threads,
                                .expert_bytes = options.expert_bytes});
  if (!model.ok()) return FailLoading(model.status());
  SayNumerics(**model);
  return Verify(options, **model, *prompts);
}

}  // namespace cairn::engine
