// Goal: layers are computed while those behind them arrive, and whatever becomes of the rest, the
// answer has the bits of the cold one. Method: a prefix that arrives group by group when the layer
// that needs it is awaited; until then its memory holds nothing of it.
#include "tests/resume/arriving_rig.h"

namespace cairn::engine {
namespace {

using cache::CacheApi;

// An engine over a distant cache that takes everything in groups.
struct Distance {
  explicit Distance(const Daemon& daemon, ArrivingByHand::Hooks hooks,
                    Clock& clock_used = RealClock(), bool always_load = false)
      : clock(clock_used),
        owned(Distant(daemon, std::move(hooks))),
        api(*owned),
        cache(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(owned)), SmallModel().cached(),
              clock,
              {.always_load = always_load,
               .overlap_bytes_min = 0,
               .costs = costs,
               .say = [this](const std::string& line) { said.push_back(line); }}) {}
  SequenceResult Run(const std::vector<int32_t>& prompt, int64_t chunk = 200) {
    auto result = RunSequence(forward, &cache, clock, prompt, {.chunk = chunk, .new_tokens = 4});
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(cache.Flush(absl::Seconds(20)));
    return *std::move(result);
  }

  Clock& clock;
  std::shared_ptr<CostModel> costs = std::make_shared<CostModel>();
  std::vector<std::string> said;
  Forward forward{SmallModel(), 1};
  std::unique_ptr<DistantCache> owned;
  DistantCache& api;
  PrefixCache cache;
};

void LetIt(ArrivingByHand& prefix, size_t groups) { prefix.Let(groups); }

TEST(Arriving, EachLayerIsComputedBeforeTheNextGroupIsAwaited) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(700);
  Engine(daemon.Connect()).Run(prompt);
  std::string log;
  Distance engine(daemon, {.on_await = [&](ArrivingByHand& prefix, size_t groups) {
                    absl::StrAppend(&log, "g", groups, " ");
                    prefix.Let(groups);
                  }});
  engine.forward.set_layer_probe([&](int64_t layer, int64_t, const float*) {
    if (engine.api.last != nullptr) absl::StrAppend(&log, layer, " ");
  });
  const SequenceResult warm = engine.Run(prompt);
  EXPECT_TRUE(warm.resume.arriving);
  EXPECT_EQ(warm.resume.prefix_tokens, 640);
  EXPECT_EQ(warm.resume.checksum_failures, 0u);
  EXPECT_EQ(warm.logits, RunCold(prompt).logits);
  // The layers of a group are awaited together, the MTP block's come last.
  std::string expected;
  const auto groups = SmallModel().layout->Groups(5, engine.api.groups_asked.at(0));
  for (size_t g = 0, layer = 0; g < groups.size(); ++g) {
    if (g > 0) absl::StrAppend(&expected, "g", g + 1, " ");
    for (; static_cast<int64_t>(layer) < groups[g].layers; ++layer) {
      if (static_cast<int64_t>(layer) < SmallModel().config.layers) {
        absl::StrAppend(&expected, layer, " ");
      }
    }
  }
  EXPECT_GE(groups.size(), 3u);
  EXPECT_EQ(log.substr(0, expected.size()), expected);
  EXPECT_EQ(log.substr(expected.size()).find('g'), std::string::npos) << "later steps wait no more";
}

TEST(Arriving, EveryLengthAndChunkGivesTheColdBits) {
  const Daemon daemon;
  Engine(daemon.Connect()).Run(Prompt(520));
  for (const size_t length : {129u, 130u, 256u, 257u, 385u, 512u, 513u, 700u}) {
    const std::vector<int32_t> prompt = Prompt(length);
    for (const int64_t chunk : {1, 3, 200}) {
      Distance engine(daemon, {.on_await = LetIt});
      const SequenceResult warm = engine.Run(prompt, chunk);
      EXPECT_EQ(warm.resume.arriving, warm.resume.prefix_tokens > 0);
      EXPECT_GT(warm.resume.prefix_tokens, 0);
      EXPECT_EQ(warm.logits, RunCold(prompt).logits) << length << ", chunk " << chunk;
    }
  }
}

// What was computed behind a prefix that arrived is put, and is right.
TEST(Arriving, WhatIsComputedBehindItIsPut) {
  const Daemon daemon;
  Engine(daemon.Connect()).Run(Prompt(300));
  const std::vector<int32_t> longer = Prompt(900);
  Distance(daemon, {.on_await = LetIt}).Run(longer);
  const SequenceResult warm = Engine(daemon.Connect()).Run(longer);
  EXPECT_EQ(warm.resume.prefix_tokens, 896);
  EXPECT_EQ(warm.logits, RunCold(longer).logits);
}

// Every way in which the rest does not come, at every group.
TEST(Arriving, WhatDoesNotArriveIsComputedFromNothing) {
  const std::vector<int32_t> prompt = Prompt(700);
  const SequenceResult cold = RunCold(prompt);
  const std::vector<absl::Status> ends = {absl::DataLossError("damaged"),
                                          absl::UnavailableError("cut off"),
                                          absl::DeadlineExceededError("late")};
  for (const absl::Status& end : ends) {
    for (size_t at = 2;; ++at) {
      const Daemon daemon;
      Engine(daemon.Connect()).Run(Prompt(400));
      const uint64_t put = daemon.rig->Stat("commit_entries");
      bool all = true;
      Distance engine(daemon, {.on_await = [&](ArrivingByHand& prefix, size_t groups) {
                        prefix.Let(groups - 1);
                        if (groups < at) {
                          prefix.Let(groups);
                        } else {
                          all = false;
                          prefix.End(end);
                        }
                      }});
      const SequenceResult warm = engine.Run(prompt);
      EXPECT_EQ(warm.logits, cold.logits) << end << " at " << at;
      EXPECT_EQ(warm.output, cold.output);
      if (all) {
        EXPECT_GE(at, 4u);
        break;
      }
      EXPECT_EQ(warm.resume.prefix_tokens, 0);
      EXPECT_EQ(warm.recomputed_tokens, 700);
      EXPECT_EQ(warm.resume.checksum_failures, 1u);
      EXPECT_EQ(daemon.rig->Stat("commit_entries"), put) << "nothing of it is put";
      EXPECT_TRUE(engine.cache.attached());
      EXPECT_TRUE(engine.said.empty());
    }
  }
}

// Damage that shows before anything was computed is a miss like any other.
TEST(Arriving, DamageInTheFirstGroupIsAMiss) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(300);
  Engine(daemon.Connect()).Run(prompt);
  Distance engine(daemon, {});
  engine.api.end_at_once = absl::DataLossError("damaged");
  SessionState session(SmallModel().config, *SmallModel().layout);
  const ResumeReport report = engine.cache.Resume(prompt, session);
  EXPECT_EQ(report.prefix_tokens, 0);
  EXPECT_GE(report.checksum_failures, 1u);
  EXPECT_EQ(session.position(), 0);
  EXPECT_TRUE(engine.cache.attached());
}

// The time that is learned is the transfer's, however long the steps took meanwhile.
TEST(Arriving, WhatABytesCostsIsTheTransfersTime) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(2000);
  Engine(daemon.Connect()).Run(prompt);
  for (const bool late : {false, true}) {
    FakeClock clock;
    Distance engine(daemon,
                    {.on_await =
                         [&](ArrivingByHand& prefix, size_t groups) {
                           clock.Advance(absl::Seconds(100));  // computing
                           prefix.seconds = 0.5;
                           if (late && groups == prefix.groups()) {
                             prefix.End(absl::DeadlineExceededError("late"));
                           } else {
                             prefix.Let(groups);
                           }
                         }},
                    clock);
    const SequenceResult warm = engine.Run(prompt);
    ASSERT_TRUE(warm.resume.arriving);
    const uint64_t bytes = warm.resume.host_bytes;
    // A small fetch weighs in proportion.
    const double share = std::min(static_cast<double>(bytes) / (1 << 20), 1.0);
    EXPECT_NEAR(engine.costs->FetchSeconds(bytes, 0), 1e-3 + share * 0.5, 0.05 * share);
  }
}

TEST(Arriving, OnlyWhereItPays) {
  const std::vector<int32_t> prompt = Prompt(700);
  const auto asked = [&](const Daemon& daemon, bool mapped, uint64_t bytes_min) {
    Engine(daemon.Connect()).Run(prompt);
    auto api = Distant(daemon, {.on_await = LetIt});
    DistantCache& distant = *api;
    if (mapped) distant.SetMapped();
    PrefixCache cache(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)),
                      SmallModel().cached(), RealClock(), {.overlap_bytes_min = bytes_min});
    SessionState session(SmallModel().config, *SmallModel().layout);
    const ResumeReport report = cache.Resume(prompt, session);
    EXPECT_EQ(report.prefix_tokens, 640);
    EXPECT_EQ(distant.groups_asked.size(), 1u);
    EXPECT_EQ(report.arriving, distant.groups_asked[0] > 0);
    return distant.groups_asked[0] > 0;
  };
  EXPECT_TRUE(asked(Daemon(), false, 0));
  EXPECT_FALSE(asked(Daemon(), true, 0)) << "mapped";
  EXPECT_FALSE(asked(Daemon(), false, 1 << 30)) << "small";
  EXPECT_FALSE(asked(Daemon("zero"), false, 0)) << "a replay begins with all rows";
}

// A step that begins too soon would keep others waiting; one that begins too late, this one.
TEST(Arriving, AStepIsWorthStartingWhenTheRestComesWhileItComputes) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(700);
  Engine(daemon.Connect()).Run(prompt);
  // Computing the 60 tokens behind it takes so much of what all groups take to come.
  for (const double computing : {1e-6, 0.2, 0.5, 0.9, 3.0}) {
    Distance engine(daemon,
                    {.on_await =
                         [&](ArrivingByHand& prefix, size_t groups) {
                           prefix.seconds =
                               static_cast<double>(groups) / static_cast<double>(prefix.groups());
                           prefix.Let(groups);
                         }},
                    RealClock(), /*always_load=*/true);
    SessionState session(SmallModel().config, *SmallModel().layout);
    ASSERT_TRUE(engine.cache.Resume(prompt, session).arriving);
    ArrivingByHand& prefix = *engine.api.last;
    const double groups = static_cast<double>(prefix.groups());
    prefix.seconds = 1 / groups;
    engine.costs->ObservePrefill(0, 6000, 6000 * computing / 60);
    engine.cache.AwaitStart(60);
    const double left = 1 - static_cast<double>(prefix.arrived()) / groups;
    EXPECT_LE(left, computing + 1e-9);
    EXPECT_GE(left + 1 / groups, std::min(computing, 1 - 1 / groups) - 1e-9) << computing;
  }
}

// Given up before its first step: nobody waits for what is still on its way.
TEST(Arriving, FinishWaitsForNothing) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(700);
  Engine(daemon.Connect()).Run(prompt);
  bool dropped = false;
  Distance engine(daemon, {.on_await = [](ArrivingByHand&, size_t) { FAIL() << "awaited"; },
                           .on_drop = [&] { dropped = true; }});
  auto session = std::make_unique<SessionState>(SmallModel().config, *SmallModel().layout);
  EXPECT_TRUE(engine.cache.Resume(prompt, *session).arriving);
  EXPECT_TRUE(session->arriving() && session->on_its_way());
  engine.cache.Finish();
  EXPECT_FALSE(dropped) << "the session reads there";
  session.reset();
  EXPECT_TRUE(dropped);
}

}  // namespace
}  // namespace cairn::engine
