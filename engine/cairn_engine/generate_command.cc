#include "engine/cairn_engine/generate_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cache/client/remote_cache.h"
#include "engine/cairn_engine/cuda_runner.h"
#include "engine/cairn_engine/failure.h"
#include "engine/cairn_engine/json_out.h"
#include "engine/cairn_engine/run_sequence.h"
#include "engine/model/safetensors.h"
#include "engine/text/chat_encoder.h"
#include "engine/text/marks.h"
#include "engine/text/tokenizer.h"
#include "store/base/exit_codes.h"

namespace cairn::engine {
namespace {

absl::StatusOr<std::string> ReadText(const std::string& path, int64_t limit) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot read the prompt file ", path));
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (limit > 0 && limit < static_cast<int64_t>(text.size()))
    text.resize(static_cast<size_t>(limit));
  return text;
}

// The text and the question are one user turn, so two prompts with the same text share everything
// before the question.
absl::StatusOr<std::vector<int32_t>> MakePrompt(const Tokenizer& tokenizer, const std::string& text,
                                                const std::string& question) {
  Message user;
  user.content = question.empty() ? text : text + "\n\n" + question;
  const PromptText prompt = EncodeChat({user}, {.mode = ThinkingMode::kNone});
  return tokenizer.Encode(prompt.text, prompt.literal);
}

std::unique_ptr<PrefixCache> AttachCache(const GenerateOptions& options, SequenceRunner& runner) {
  if (options.cache.empty()) return nullptr;
  const CachedModel model = runner.cached_model();
  const cache::NamespaceSpec spec{model.Descriptor(), options.tenant};
  PrefixCache::Options settings;
  settings.wait = absl::Seconds(options.wait_seconds);
  settings.step_tokens = options.chunk;
  settings.say = [](const std::string& line) {
    std::fprintf(stderr, "cairn-engine: %s\n", line.c_str());
  };
  cache::RemoteCacheOptions remote;
  remote.call_timeout = absl::Milliseconds(options.cache_deadline_ms);
  remote.gpu = runner.gpu();
  remote.pin = options.pin;
  remote.pin_patience = absl::Seconds(60);
  const auto connect = [&]() -> absl::StatusOr<std::unique_ptr<cache::CacheApi>> {
    CAIRN_RETURN_IF_ERROR(runner.PrepareForCache());
    return ConnectCache(options.cache, spec, remote, options.cache_tls);
  };
  return std::make_unique<PrefixCache>(connect(), model, RealClock(), settings);
}

void ShowProgress(int64_t done, int64_t total, int64_t* shown) {
  const int64_t percent = done * 100 / total;
  if (percent / 5 == *shown / 5 && done != total) return;
  *shown = percent;
  std::fprintf(stderr, "\rprefill %lld of %lld tokens (%lld %%)%s", static_cast<long long>(done),
               static_cast<long long>(total), static_cast<long long>(percent),
               done == total ? "\n" : "");
  std::fflush(stderr);
}

// Whence the prefix came.
std::string TiersOf(const ResumeReport& resume) {
  const uint64_t elsewhere = resume.host_bytes - std::min(resume.host_bytes, resume.gpu_bytes);
  std::vector<std::string> tiers;
  if (resume.gpu_bytes > 0) tiers.emplace_back("gpu");
  if (elsewhere > 0) tiers.emplace_back("host");
  if (resume.disk_bytes > 0) tiers.emplace_back("disk");
  return resume.prefix_tokens == 0 ? "none" : absl::StrJoin(tiers, "+");
}

nlohmann::json Figures(const GenerateOptions& options, const SequenceResult& r,
                       size_t prompt_tokens, bool flushed, const PrefixCache* cache) {
  const ResumeReport& resume = r.resume;
  nlohmann::json figures = {{"prompt_tokens", prompt_tokens},
                            {"prefix_tokens", resume.prefix_tokens},
                            {"recomputed_tokens", r.recomputed_tokens},
                            {"replay_token_layers", resume.replay_token_layers},
                            {"replay_rectangle_token_layers", resume.replay_rectangle_token_layers},
                            {"fetched_bytes", resume.host_bytes + resume.disk_bytes},
                            {"host_bytes", resume.host_bytes},
                            {"disk_bytes", resume.disk_bytes},
                            {"copied_bytes", resume.copied_bytes},
                            {"checksum_failures", resume.checksum_failures},
                            {"gpu_bytes", resume.gpu_bytes},
                            {"tier", TiersOf(resume)},
                            {"first_token_ms", r.first_token_seconds * 1e3},
                            {"wait_ms", resume.wait_seconds * 1e3},
                            {"match_ms", resume.match_seconds * 1e3},
                            {"fetch_ms", resume.fetch_seconds * 1e3},
                            {"restore_ms", resume.restore_seconds * 1e3},
                            {"prefill_ms", r.prefill_seconds * 1e3},
                            {"decode_ms", r.decode_seconds * 1e3},
                            {"output_tokens", r.output.size()},
                            {"cache_attached", cache != nullptr && cache->attached()},
                            {"cache", options.cache}};
  if (cache != nullptr) {
    const PutStats puts = cache->put_stats();
    figures["put_entries"] = puts.put_entries;
    figures["put_bytes"] = puts.put_bytes;
    figures["existing_entries"] = puts.existing_entries;
    figures["dropped_entries"] = puts.dropped_entries;
    figures["put_complete"] = flushed;
    if (!puts.last_error.empty()) figures["put_error"] = puts.last_error;
  }
  return figures;
}

absl::Status WriteLogits(const std::string& path, const SequenceResult& r) {
  const int64_t n = static_cast<int64_t>(r.output.size());
  const int64_t vocab = static_cast<int64_t>(r.logits.size()) / n;
  const auto bytes = [](const auto& v) {
    return std::span<const uint8_t>(reinterpret_cast<const uint8_t*>(v.data()),
                                    v.size() * sizeof(v[0]));
  };
  const NamedTensor tensors[] = {{"logits", {DType::kF32, {n, vocab}, bytes(r.logits)}},
                                 {"tokens", {DType::kI32, {n}, bytes(r.output)}}};
  return WriteTensors(path, tensors);
}

int ExitCodeOf(const absl::Status& status) {
  if (absl::IsOutOfRange(status)) return kExitPromptTooLong;
  if (absl::IsInvalidArgument(status)) return kExitTokenRange;
  return kExitFailure;
}

// The answer on stdout, logits and figures where they were asked for. An exit code.
int Report(const GenerateOptions& options, const Tokenizer& tokenizer, const SequenceResult& result,
           size_t prompt_tokens, bool flushed, const PrefixCache* cache) {
  const absl::StatusOr<std::string> answer = tokenizer.Decode(result.output, /*skip_special=*/true);
  if (options.json_out != "-" && answer.ok()) std::printf("%s\n", answer->c_str());
  if (!options.logits_out.empty()) {
    if (const absl::Status status = WriteLogits(options.logits_out, result); !status.ok()) {
      return Fail(status, kExitFailure);
    }
  }
  if (!options.json_out.empty()) {
    const nlohmann::json figures = Figures(options, result, prompt_tokens, flushed, cache);
    if (const absl::Status status = WriteJson(options.json_out, figures); !status.ok()) {
      return Fail(status, kExitFailure);
    }
  }
  return kExitOk;
}

int Generate(const GenerateOptions& options, const SequenceOptions& sequence,
             const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
             SequenceRunner& runner) {
  const std::unique_ptr<PrefixCache> cache = AttachCache(options, runner);
  const absl::StatusOr<SequenceResult> result =
      RunSequence(runner, cache.get(), RealClock(), prompt, sequence);
  if (!result.ok()) return Fail(result.status(), ExitCodeOf(result.status()));
  const bool flushed = cache == nullptr || cache->Flush(absl::Seconds(options.flush_seconds));
  return Report(options, tokenizer, *result, prompt.size(), flushed, cache.get());
}

int GenerateOnCuda(const GenerateOptions& options, const SequenceOptions& sequence,
                   const Tokenizer& tokenizer, const std::vector<int32_t>& prompt) {
  if (options.numerics.value_or(Numerics::kFull) != Numerics::kFull) {
    return Fail(absl::InvalidArgumentError("--device cuda has full numerics only"), kExitUsage);
  }
  const absl::StatusOr<std::unique_ptr<SequenceRunner>> runner =
      OpenCudaRunner(options.model, {.chunk = options.chunk,
                                     .tokens_max = std::ssize(prompt) + options.new_tokens,
                                     .threads = options.threads});
  if (absl::IsInvalidArgument(runner.status())) return Fail(runner.status(), kExitBadConfig);
  if (!runner.ok()) return Fail(runner.status(), kExitFailure);
  return Generate(options, sequence, tokenizer, prompt, **runner);
}

int GenerateOnCpu(const GenerateOptions& options, const SequenceOptions& sequence,
                  const Tokenizer& tokenizer, const std::vector<int32_t>& prompt) {
  const absl::StatusOr<std::unique_ptr<Model>> model =
      LoadModel(options.model, {.numerics = options.numerics,
                                .threads = options.threads,
                                .expert_bytes = options.expert_bytes});
  if (!model.ok()) return FailLoading(model.status());
  if (!options.quiet) SayNumerics(**model);
  Forward forward(**model, options.threads);
  return Generate(options, sequence, tokenizer, prompt, *CpuSequenceRunner(forward));
}

}  // namespace

void AddGenerateOptions(CLI::App* app, GenerateOptions& o) {
  app->add_option("--model", o.model, "directory of config.json and safetensors")->required();
  app->add_option("--prompt-file", o.prompt_file, "text to read")->required();
  app->add_option("--tokenizer", o.tokenizer,
                  "tokenizer.json; default: the model's own, else bytes are the tokens");
  app->add_option("--question", o.question, "asked after the text");
  app->add_option("--prompt-bytes", o.prompt_bytes,
                  "use only the first so many bytes of the text; 0: all");
  app->add_option("--new-tokens", o.new_tokens, "tokens to generate")->check(CLI::PositiveNumber);
  app->add_option("--chunk", o.chunk, "prefill tokens a step")->check(CLI::PositiveNumber);
  app->add_option("--threads", o.threads, "compute threads")->check(CLI::Range(1, 256));
  app->add_option("--device", o.device,
                  "cpu, or cuda: FP8 and FP4 weights as released, in full numerics")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app->add_option("--cache", o.cache, "cairnd to use: unix:PATH or HOST:PORT");
  app->add_flag(
      "--pin", o.pin,
      "with --device cuda: pin the daemon's memory first, so that the GPU reads hits there "
      "(seconds; for many requests, or to see what they get)");
  AddCacheTlsOptions(app, o.cache_tls);
  app->add_option("--tenant", o.tenant, "whose prefixes; empty: the default tenant's");
  app->add_option("--wait", o.wait_seconds,
                  "seconds to wait for another engine's prefill of the same prefix");
  app->add_option("--cache-deadline", o.cache_deadline_ms,
                  "milliseconds that cairnd has to answer, or the engine goes on without it")
      ->check(CLI::Range(1.0, 60'000.0));
  app->add_option("--flush", o.flush_seconds,
                  "seconds to wait at the end for puts in the background");
  app->add_option("--logits-out", o.logits_out,
                  "safetensors file for the output's tokens and logits");
  app->add_option("--json", o.json_out, "file for the figures; - is stdout");
  app->add_flag("--quiet", o.quiet, "no progress");
}

int RunGenerateCommand(const GenerateOptions& options) {
  if (const auto tls = ReadCacheTls(options.cache_tls); !tls.ok()) {
    return Fail(tls.status(), kExitUsage);
  }
  if (options.pin && (options.device != "cuda" || options.cache.empty())) {
    return Fail(absl::InvalidArgumentError("--pin is for --device cuda with --cache"), kExitUsage);
  }
  absl::StatusOr<std::string> text = ReadText(options.prompt_file, options.prompt_bytes);
  if (!text.ok()) return Fail(text.status(), kExitUsage);
  absl::StatusOr<ModelConfig> config = LoadConfig(options.model);
  if (!config.ok()) return Fail(config.status(), kExitBadConfig);
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      TokenizerOf(options.model, options.tokenizer, config->vocab);
  if (!tokenizer.ok()) return Fail(tokenizer.status(), kExitBadConfig);
  absl::StatusOr<std::vector<int32_t>> prompt = MakePrompt(**tokenizer, *text, options.question);
  if (!prompt.ok()) return Fail(prompt.status(), kExitTokenRange);
  SequenceOptions sequence;
  sequence.chunk = options.chunk;
  sequence.new_tokens = options.new_tokens;
  sequence.stop_token = (*tokenizer)->Mark(kEos).value_or(-1);
  int64_t shown = -1;
  if (!options.quiet) {
    sequence.progress = [&](int64_t done, int64_t total) { ShowProgress(done, total, &shown); };
  }
  if (const absl::Status status = CheckPrompt(*config, *prompt, options.new_tokens); !status.ok()) {
    return Fail(status, ExitCodeOf(status));
  }
  const auto generate = options.device == "cuda" ? GenerateOnCuda : GenerateOnCpu;
  return generate(options, sequence, **tokenizer, *prompt);
}

}  // namespace cairn::engine
