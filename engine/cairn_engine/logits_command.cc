#include "engine/cairn_engine/logits_command.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/cairn_engine/failure.h"
#include "engine/cairn_engine/json_out.h"
#include "engine/model/safetensors.h"
#include "engine/model/tokens_file.h"
#include "store/base/exit_codes.h"

namespace cairn::engine {
namespace {

constexpr int64_t kMtpPositions = 8;

NamedTensor Named(const char* name, const std::vector<float>& values, int64_t vocab) {
  const int64_t rows = static_cast<int64_t>(values.size()) / vocab;
  return {name,
          {DType::kF32,
           {rows, vocab},
           {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)}}};
}

nlohmann::json Figures(const ExpertStats& stats) {
  return {{"experts", stats.experts},
          {"expert_places", stats.places},
          {"expert_hits", stats.hits},
          {"expert_misses", stats.misses},
          {"expert_evictions", stats.evictions},
          {"expert_reads", stats.reads},
          {"expert_read_bytes", stats.read_bytes},
          {"expert_wait_ms", static_cast<double>(stats.wait_nanos) * 1e-6}};
}

absl::Status CheckRequest(const ModelConfig& config, const LogitsOptions& options,
                          std::span<const int32_t> tokens) {
  const int64_t count = static_cast<int64_t>(tokens.size());
  if (options.prefill < 1 || options.prefill > count) {
    return absl::InvalidArgumentError(absl::StrCat("--prefill ", options.prefill,
                                                   " must be between 1 and the ", count,
                                                   " tokens of the file"));
  }
  if (count > config.max_positions) {
    return absl::OutOfRangeError(absl::StrCat(
        "the file has ", count, " tokens; the model's maximum is ", config.max_positions));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LogitsResult> ComputeLogits(Forward& forward, std::span<const int32_t> tokens,
                                           int64_t prefill, int64_t chunk, SessionState& session) {
  LogitsResult result;
  const int64_t total = static_cast<int64_t>(tokens.size());
  while (session.position() < total) {
    const int64_t from = session.position();
    const bool prefilling = from < prefill;
    const int64_t count = prefilling ? std::min(std::max<int64_t>(chunk, 1), prefill - from) : 1;
    StepItem item;
    item.session = &session;
    item.tokens = tokens.subspan(static_cast<size_t>(from), static_cast<size_t>(count));
    item.want = WantLogits::kAll;
    item.mtp_from = std::max<int64_t>(prefill - kMtpPositions, 0);
    item.on_mtp = [&](int64_t position, std::span<const float> logits) {
      if (position < prefill) result.mtp.insert(result.mtp.end(), logits.begin(), logits.end());
    };
    // Beyond the first decoded token no MTP row is asked for.
    if (from > prefill) item.mtp_from = INT64_MAX;
    CAIRN_RETURN_IF_ERROR(forward.Run({&item, 1}));
    std::vector<float>& out = prefilling ? result.prefill : result.decode;
    out.insert(out.end(), item.logits.begin(), item.logits.end());
  }
  return result;
}

int RunLogitsCommand(const LogitsOptions& options) {
  absl::StatusOr<std::vector<int32_t>> tokens = ReadTokensFile(options.tokens);
  if (!tokens.ok()) return Fail(tokens.status(), kExitBadTokens);
  absl::StatusOr<ModelConfig> config = LoadConfig(options.model);
  if (!config.ok()) return Fail(config.status(), kExitBadConfig);
  if (const absl::Status status = CheckRequest(*config, options, *tokens); !status.ok()) {
    return Fail(status, absl::IsOutOfRange(status) ? kExitPromptTooLong : kExitUsage);
  }
  if (const absl::Status status = CheckTokens(*config, *tokens); !status.ok())
    return Fail(status, kExitTokenRange);
  absl::StatusOr<std::unique_ptr<Model>> model =
      LoadModel(options.model, {.numerics = options.numerics,
                                .threads = options.threads,
                                .rope_rows = options.rope_rows,
                                .expert_bytes = options.expert_bytes});
  if (!model.ok()) return FailLoading(model.status());
  SayNumerics(**model);
  Forward forward(**model, options.threads);
  SessionState session((*model)->config, *(*model)->layout);
  absl::StatusOr<LogitsResult> result =
      ComputeLogits(forward, *tokens, options.prefill, options.chunk, session);
  if (!result.ok()) return Fail(result.status(), kExitFailure);
  const int64_t vocab = (*model)->config.vocab;
  std::vector<NamedTensor> tensors = {Named("prefill.logits", result->prefill, vocab),
                                      Named("decode.logits", result->decode, vocab)};
  if ((*model)->mtp != nullptr) tensors.push_back(Named("prefill.mtp_logits", result->mtp, vocab));
  if (const absl::Status status = WriteTensors(options.out, tensors); !status.ok())
    return Fail(status, kExitFailure);
  if (options.json_out.empty()) return kExitOk;
  const absl::Status said = WriteJson(options.json_out, Figures((*model)->experts->stats()));
  return said.ok() ? kExitOk : Fail(said, kExitFailure);
}

}  // namespace cairn::engine
