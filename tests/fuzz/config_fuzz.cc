// A model's config.json, in both spellings (engine/model/config.h).
#include "engine/model/config.h"

#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::engine;
  const std::string text = cairn::fuzz::FuzzInput(data, size).TakeRestText();
  const absl::StatusOr<ModelConfig> config = ParseConfig(text, "config.json");
  if (!config.ok()) {
    cairn::fuzz::CheckRefusal(config.status());
    FUZZ_CHECK(absl::IsInvalidArgument(config.status()));
    return 0;
  }
  FUZZ_CHECK_OK(CheckConfig(*config, "config.json"));
  // Written and read again it is the same model: the caches' keys hang on that.
  const absl::StatusOr<ModelConfig> again =
      ParseConfig(ModelCardJson(*config, /*quantised=*/true), "again");
  FUZZ_CHECK_OK(again.status());
  FUZZ_CHECK(again->Canonical() == config->Canonical());
  FUZZ_CHECK(again->max_positions == config->max_positions);
  return 0;
}
