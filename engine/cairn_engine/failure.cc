#include "engine/cairn_engine/failure.h"

#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "store/base/exit_codes.h"

namespace cairn::engine {

int Fail(const absl::Status& status, int exit_code) {
  const std::string message(status.message());
  std::fprintf(stderr, "cairn-engine: %s\n", message.c_str());
  return exit_code;
}

int FailLoading(const absl::Status& status) {
  return Fail(status, absl::IsResourceExhausted(status) ? kExitFailure : kExitBadWeights);
}

void SayNumerics(const Model& model) {
  std::fprintf(stderr, "cairn-engine: numerics %s\n", AboutNumerics(model).c_str());
}

absl::Status CheckTokens(const ModelConfig& config, std::span<const int32_t> tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= config.vocab) {
      return absl::InvalidArgumentError(absl::StrCat("token ", tokens[i], " at position ", i,
                                                     " is outside of the vocabulary of ",
                                                     config.vocab));
    }
  }
  return absl::OkStatus();
}

}  // namespace cairn::engine
