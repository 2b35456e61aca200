// cairn-engine: DeepSeek-V4 on the command line, with Cairn as its prefix cache.
#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "absl/synchronization/mutex.h"
#include "engine/cairn_engine/compare_command.h"
#include "engine/cairn_engine/failure.h"
#include "engine/cairn_engine/generate_command.h"
#include "engine/cairn_engine/logits_command.h"
#include "engine/cairn_engine/serve_command.h"
#include "engine/cairn_engine/verify_command.h"
#include "store/base/exit_codes.h"

namespace cairn::engine {
namespace {

std::optional<Numerics> NumericsFlag(const std::string& text) {
  return text.empty() ? std::nullopt : ParseNumerics(text);
}

int Main(int argc, char** argv) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("f16c")) {
    return Fail(absl::FailedPreconditionError(
                    "this processor lacks AVX2, FMA or F16C, which the kernels need"),
                kExitFailure);
  }
  // gRPC's locks: Debian builds absl with its search for cycles of locks on, a tenth of each call.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  CLI::App app("cairn-engine: DeepSeek-V4 inference with a shared prefix cache");
  app.require_subcommand(1);
  std::string numerics;
  std::optional<uint64_t> expert_bytes;
  bool bf16_rope = false;
  const auto model_flags = [&](CLI::App* command) {
    command
        ->add_option("--expert-cache", expert_bytes,
                     "memory for routed experts; those that do not fit are read when a step needs "
                     "them (default: for all, or else what the machine has left)")
        ->transform(CLI::AsSizeValue(false));
    command
        ->add_option("--numerics", numerics,
                     "roundings: plain, kvq, full or full-amx (default: for FP8 weights full-amx "
                     "where the processor has AMX or AVX-512's BF16, else full; for others plain)")
        ->check(CLI::IsMember({"plain", "kvq", "full", "full-amx"}));
  };

  LogitsOptions logits;
  CLI::App* logits_app = app.add_subcommand(
      "logits", "prefill some tokens, decode the others as given, write all logits");
  logits_app->add_option("--model", logits.model, "directory of config.json and safetensors")
      ->required();
  logits_app->add_option("--tokens", logits.tokens, "safetensors file with an I32 tensor 'tokens'")
      ->required();
  logits_app->add_option("--prefill", logits.prefill, "how many of the tokens to prefill")
      ->required();
  logits_app->add_option("--out", logits.out, "safetensors file to write")->required();
  logits_app->add_option("--json", logits.json_out, "file for what the experts cost; - is stdout");
  logits_app->add_option("--chunk", logits.chunk, "prefill tokens a step")
      ->check(CLI::PositiveNumber);
  logits_app->add_option("--threads", logits.threads, "compute threads")->check(CLI::Range(1, 256));
  logits_app->add_flag("--bf16-rope", bf16_rope,
                       "round the rope dims of stored rows to BF16, as `generate` does");
  model_flags(logits_app);

  GenerateOptions generate;
  CLI::App* generate_app =
      app.add_subcommand("generate", "read a text, then a question, and generate");
  AddGenerateOptions(generate_app, generate);
  model_flags(generate_app);

  VerifyOptions verify;
  CLI::App* verify_app = app.add_subcommand(
      "verify", "is what the cache gives what a prefill gives, to the bit, on these prompts?");
  AddVerifyOptions(verify_app, verify);
  model_flags(verify_app);

  ServeOptions serve;
  CLI::App* serve_app = app.add_subcommand("serve", "answer requests in OpenAI's API");
  AddServeOptions(serve_app, serve);
  model_flags(serve_app);

  CompareOptions compare;
  CLI::App* compare_app =
      app.add_subcommand("compare", "are the tensors of two files the same, to the bit?");
  compare_app->add_option("first", compare.first)->required();
  compare_app->add_option("second", compare.second)->required();

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (bf16_rope) logits.rope_rows = RopeRows::kBf16;
  logits.numerics = generate.numerics = verify.numerics = serve.numerics = NumericsFlag(numerics);
  logits.expert_bytes = generate.expert_bytes = verify.expert_bytes = serve.expert_bytes =
      expert_bytes;
  if (*logits_app) return RunLogitsCommand(logits);
  if (*generate_app) return RunGenerateCommand(generate);
  if (*verify_app) return RunVerifyCommand(verify);
  if (*serve_app) return RunServeCommand(serve);
  return RunCompareCommand(compare);
}

}  // namespace
}  // namespace cairn::engine

int main(int argc, char** argv) { return cairn::engine::Main(argc, argv); }
