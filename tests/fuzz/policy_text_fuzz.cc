// Checkpoint policies as text (CheckpointPolicy of cache/client/cache_api.h).
#include "cache/client/cache_api.h"
#include "store/base/limits.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using cairn::cache::CheckpointPolicy;
  const std::string text = cairn::fuzz::FuzzInput(data, size).TakeRestText();
  const absl::StatusOr<CheckpointPolicy> policy = CheckpointPolicy::Parse(text);
  if (!policy.ok()) {
    cairn::fuzz::CheckRefusal(policy.status());
    return 0;
  }
  FUZZ_CHECK(policy->every_tokens % cairn::kBlockTokens == 0);
  FUZZ_CHECK(policy->every_tokens <= cairn::kBlocksPerPrefixMax * cairn::kBlockTokens);
  FUZZ_CHECK(!policy->Wants(0, true, true));
  for (const bool is_branch : {false, true}) {
    const absl::Duration ttl = policy->TtlAt(1, is_branch);
    FUZZ_CHECK(ttl >= absl::Seconds(1));
    FUZZ_CHECK(ttl == absl::InfiniteDuration() || policy->has_ttl());
  }
  FUZZ_CHECK(!policy->WithoutTtls().has_ttl());
  const absl::StatusOr<CheckpointPolicy> again = CheckpointPolicy::Parse(policy->ToString());
  FUZZ_CHECK_OK(again.status());
  FUZZ_CHECK(*again == *policy);
  return 0;
}
