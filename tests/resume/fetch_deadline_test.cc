// Goal: a fetch gets as long as it can be worth and no longer, and what was too slow is remembered.
// Method: the engine over a real core; a wrapper sees the deadlines and moves the clock.
#include "tests/resume/resume_rig.h"

namespace cairn::engine {
namespace {

using cache::CacheApi;

TEST(Resume, AFetchMayTakeAsLongAsItCanBeWorth) {
  const std::vector<int32_t> prompt = Prompt(600);
  // Seconds a token that prefilling took, and what the fetch of 512 is given.
  const std::vector<std::pair<double, absl::Duration>> cases = {
      {1e-4, absl::Milliseconds(500)},
      {4e-3, absl::Seconds(2 * 512 * 4e-3)},
      {1, absl::Seconds(30)}};
  for (const auto& [seconds_a_token, expected] : cases) {
    const Daemon daemon;
    Engine(daemon.Connect()).Run(prompt);
    daemon.rig->DropFromHost();
    auto api = Wrap(daemon);
    absl::Duration deadline;
    api->on_fetch_deadline = [&](absl::Duration asked) { deadline = asked; };
    Engine engine(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)));
    engine.cache.ObservePrefill(1000, 1000, 1000 * seconds_a_token);
    SessionState session(SmallModel().config, *SmallModel().layout);
    EXPECT_EQ(engine.cache.Resume(prompt, session).prefix_tokens, 512);
    EXPECT_LT(absl::AbsDuration(deadline - expected), absl::Microseconds(1));
  }
}

TEST(Resume, AFetchOverItsDeadlineCostsThatPrefixAndIsRemembered) {
  const std::vector<int32_t> prompt = Prompt(600);
  const Daemon daemon;
  Engine(daemon.Connect()).Run(prompt);
  ASSERT_TRUE(daemon.rig->core->Flush(absl::Seconds(10)).ok());
  daemon.rig->DropFromHost();
  auto api = Wrap(daemon);
  FakeClock clock;
  int fetches = 0;
  Wrapped& wrapped = *api;
  wrapped.fail_late = [&](absl::Duration deadline) {
    ++fetches;
    clock.Advance(deadline);
    return absl::DeadlineExceededError("late");
  };
  PrefixCache cache(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)),
                    SmallModel().cached(), clock, {});
  cache.ObservePrefill(600, 600, 0.6);
  int declined = 0;
  for (int i = 0; i < 20; ++i) {
    SessionState session(SmallModel().config, *SmallModel().layout);
    const ResumeReport report = cache.Resume(prompt, session);
    EXPECT_EQ(report.prefix_tokens, 0);
    EXPECT_NE(report.fetch_was_late, report.recompute_was_cheaper);
    declined += report.recompute_was_cheaper ? 1 : 0;
  }
  EXPECT_TRUE(cache.attached()) << "slow is not dead";
  EXPECT_LE(fetches, 5);
  EXPECT_EQ(fetches + declined, 20);
  wrapped.fail_late = nullptr;
  for (int i = 0; i < 30; ++i) cache.ObservePrefill(600, 600, 60);
  SessionState session(SmallModel().config, *SmallModel().layout);
  EXPECT_EQ(cache.Resume(prompt, session).prefix_tokens, 512) << "worth it by now";
}

}  // namespace
}  // namespace cairn::engine
