// The engine and the cache together, in one process: a small model over a real core with real tiers
// in memory.
//
// Goal: whatever the cache does, a resumed answer has the bits of the cold one. Method: each case
// computes the cold logits once without a cache, then spoils one thing.
#include <thread>

#include "tests/resume/resume_rig.h"

namespace cairn::engine {
namespace {

using cache::CacheApi;

TEST(Resume, HostHitIsMappedAndBitIdentical) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(700);
  const SequenceResult cold = RunCold(prompt);
  const SequenceResult first = Engine(daemon.Connect()).Run(prompt);
  EXPECT_EQ(first.resume.prefix_tokens, 0);
  EXPECT_EQ(first.logits, cold.logits);
  const SequenceResult second = Engine(daemon.Connect()).Run(prompt);
  EXPECT_EQ(second.resume.prefix_tokens, 640);
  EXPECT_EQ(second.recomputed_tokens, 60);
  EXPECT_EQ(second.resume.copied_bytes, 0u);
  EXPECT_EQ(second.resume.disk_bytes, 0u);
  EXPECT_GT(second.resume.host_bytes, 0u);
  EXPECT_EQ(daemon.rig->Stat("fetch_calls"), 0u);  // all of it came with the match
  EXPECT_EQ(second.logits, cold.logits);
  EXPECT_EQ(second.output, cold.output);
}

TEST(Resume, EveryLengthAroundBlockEnds) {
  const Daemon daemon;
  Engine(daemon.Connect()).Run(Prompt(520));
  for (const size_t length :
       {127u, 128u, 129u, 130u, 255u, 256u, 257u, 383u, 384u, 385u, 511u, 512u, 513u}) {
    const std::vector<int32_t> prompt = Prompt(length);
    const SequenceResult warm = Engine(daemon.Connect()).Run(prompt);
    // At least one token is computed, so that there are logits to sample from.
    EXPECT_EQ(warm.resume.prefix_tokens, static_cast<int64_t>((length - 1) / 128 * 128)) << length;
    EXPECT_EQ(warm.logits, RunCold(prompt).logits) << length;
  }
}

TEST(Resume, SharedFirstHalf) {
  const Daemon daemon;
  Engine(daemon.Connect()).Run(Prompt(600));
  std::vector<int32_t> prompt = Prompt(300);
  const std::vector<int32_t> other = Prompt(250, 9);
  prompt.insert(prompt.end(), other.begin(), other.end());
  const SequenceResult warm = Engine(daemon.Connect()).Run(prompt);
  EXPECT_EQ(warm.resume.prefix_tokens, 256);
  EXPECT_EQ(warm.logits, RunCold(prompt).logits);
}

TEST(Resume, FromDiskAfterTheProcessIsGone) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(600);
  Engine(daemon.Connect()).Run(prompt);
  ASSERT_TRUE(daemon.rig->core->Flush(absl::Seconds(10)).ok());
  daemon.rig->Restart(/*crash=*/true);
  const SequenceResult warm = Engine(daemon.Connect()).Run(prompt);
  EXPECT_EQ(warm.resume.prefix_tokens, 512);
  EXPECT_EQ(warm.resume.host_bytes, 0u);
  EXPECT_GT(warm.resume.disk_bytes, 0u);
  EXPECT_EQ(warm.logits, RunCold(prompt).logits);
}

TEST(Resume, PoliciesDecideWhereToResume) {
  const std::vector<int32_t> prompt = Prompt(700);
  const SequenceResult cold = RunCold(prompt);
  const std::vector<std::pair<std::string, int64_t>> cases = {
      {"full", 640}, {"every:256", 512}, {"ends", 640}, {"every:256+ends", 640}, {"zero", 640}};
  for (const auto& [policy, expected] : cases) {
    const Daemon daemon(policy);
    Engine(daemon.Connect()).Run(prompt);
    const SequenceResult warm = Engine(daemon.Connect()).Run(prompt);
    EXPECT_EQ(warm.resume.prefix_tokens, expected) << policy;
    EXPECT_EQ(warm.logits, cold.logits) << policy;
  }
}

// The second to part from a stored prompt leaves a checkpoint where it does; the third resumes
// there.
TEST(Resume, BranchesStoresACheckpointWherePromptsPart) {
  const Daemon daemon("branches");
  const auto prompt = [](size_t shared, size_t length, uint32_t seed) {
    std::vector<int32_t> tokens = Prompt(shared);
    const std::vector<int32_t> rest = Prompt(length - shared, seed);
    tokens.insert(tokens.end(), rest.begin(), rest.end());
    return tokens;
  };
  Engine(daemon.Connect()).Run(Prompt(700));
  EXPECT_EQ(daemon.rig->Stat("commit_entries"), 5u);  // rows
  const SequenceResult second = Engine(daemon.Connect()).Run(prompt(400, 700, 8));
  EXPECT_EQ(second.logits, RunCold(prompt(400, 700, 8)).logits);
  EXPECT_EQ(daemon.rig->Stat("commit_entries"), 5u + 2u + 1u);
  const SequenceResult third = Engine(daemon.Connect()).Run(prompt(400, 700, 9));
  EXPECT_EQ(third.resume.prefix_tokens, 384);
  EXPECT_EQ(third.resume.replay_token_layers, 0);
  EXPECT_EQ(third.logits, RunCold(prompt(400, 700, 9)).logits);
  EXPECT_EQ(daemon.rig->Stat("commit_entries"), 5u + 2u + 1u + 2u);
  // One that only goes on where the first ended parts from nobody.
  const std::vector<int32_t> longer = Prompt(900);
  Engine(daemon.Connect()).Run(longer);
  EXPECT_EQ(daemon.rig->Stat("commit_entries"), 5u + 2u + 1u + 2u + 2u);
}

// What a replay ends at is a state like any other.
TEST(Resume, BranchesStoresACheckpointAtTheEndOfAReplay) {
  const Daemon daemon("branches");
  Engine(daemon.Connect()).Run(Prompt(1500));
  for (const uint32_t seed : {8u, 9u}) {
    std::vector<int32_t> prompt = Prompt(1200);
    const std::vector<int32_t> other = Prompt(100, seed);
    prompt.insert(prompt.end(), other.begin(), other.end());
    const SequenceResult warm = Engine(daemon.Connect()).Run(prompt);
    EXPECT_EQ(warm.resume.prefix_tokens, 1152);
    EXPECT_EQ(warm.resume.replay_token_layers > 0, seed == 8);
    EXPECT_EQ(warm.logits, RunCold(prompt).logits);
  }
}

TEST(Resume, RowsAloneAreReplayed) {
  const Daemon daemon("zero");
  const std::vector<int32_t> prompt = Prompt(1200);
  const SequenceResult cold = RunCold(prompt);
  Engine(daemon.Connect()).Run(prompt);
  EXPECT_EQ(daemon.rig->Stat("commit_entries"), 9u);  // rows
  Engine engine(daemon.Connect());
  int64_t computed = 0;
  engine.forward.set_layer_probe([&](int64_t layer, int64_t rows, const float*) {
    if (layer == 0) computed += rows;
  });
  const SequenceResult warm = engine.Run(prompt);
  const ReplayPlan plan = ReplayPlan::To(SmallModel().config, 1152);
  EXPECT_EQ(warm.resume.prefix_tokens, 1152);
  EXPECT_EQ(warm.recomputed_tokens, 48);
  EXPECT_EQ(warm.resume.replay_token_layers, plan.TokenLayers());
  EXPECT_EQ(warm.resume.replay_rectangle_token_layers, plan.RectangleTokenLayers());
  EXPECT_LT(2 * plan.TokenLayers(), 5 * 1152);
  EXPECT_EQ(computed, 1152 - plan.WholeFrom(0) + 48 + std::ssize(warm.output) - 1);
  EXPECT_EQ(warm.logits, cold.logits);
  EXPECT_EQ(warm.output, cold.output);
  EXPECT_EQ(engine.cache.put_stats().put_entries, 0u);
}

TEST(Resume, WhatIsComputedBehindAReplayIsStoredAsEver) {
  const Daemon daemon("zero");
  Engine(daemon.Connect()).Run(Prompt(1200));
  std::vector<int32_t> prompt = Prompt(1200);
  const std::vector<int32_t> other = Prompt(400, 9);
  prompt.insert(prompt.end(), other.begin(), other.end());
  EXPECT_EQ(Engine(daemon.Connect()).Run(prompt).resume.prefix_tokens, 1152);
  const SequenceResult third = Engine(daemon.Connect()).Run(prompt);
  EXPECT_EQ(third.resume.prefix_tokens, 1536);
  EXPECT_EQ(third.logits, RunCold(prompt).logits);
}

TEST(Resume, RowsBeyondTheLastCheckpointAreReplayedWhereThatIsCheaper) {
  const Daemon daemon("every:1152");
  Engine(daemon.Connect()).Run(Prompt(2300));
  // 1,024 tokens behind the checkpoint are more than nano's replay, 128 are fewer.
  for (const auto& [length, prefix, replay] :
       {std::tuple{2200u, 2176, true}, std::tuple{1300u, 1152, false}}) {
    const std::vector<int32_t> prompt = Prompt(length);
    const SequenceResult warm = Engine(daemon.Connect()).Run(prompt);
    EXPECT_EQ(warm.resume.prefix_tokens, prefix);
    EXPECT_EQ(warm.resume.replay_token_layers > 0, replay);
    EXPECT_EQ(warm.logits, RunCold(prompt).logits);
  }
}

TEST(Resume, RowsThatAreDamagedAreNotReplayed) {
  const Daemon daemon("zero");
  const std::vector<int32_t> prompt = Prompt(1200);
  Engine(daemon.Connect()).Run(prompt);
  auto api = Wrap(daemon);
  api->on_fetch = [](cache::FetchedPrefix& f) { Writable(f.rows[7].payload)[3] ^= 1; };
  Engine engine(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)));
  const SequenceResult warm = engine.Run(prompt);
  EXPECT_EQ(warm.resume.prefix_tokens, 0);
  EXPECT_EQ(warm.resume.checksum_failures, 1u);
  EXPECT_EQ(warm.resume.replay_token_layers, 0);
  EXPECT_EQ(warm.logits, RunCold(prompt).logits);
}

TEST(Resume, EndsAlsoStoresTheOutputsEnd) {
  const Daemon daemon("ends");
  const std::vector<int32_t> prompt = Prompt(200);
  Engine first(daemon.Connect());
  auto turn = RunSequence(first.forward, &first.cache, RealClock(), prompt,
                          {.chunk = 200, .new_tokens = 250});
  ASSERT_TRUE(turn.ok());
  ASSERT_TRUE(first.cache.Flush(absl::Seconds(20)));
  // The next turn: prompt, answer, another question. 449 tokens were computed, three whole blocks.
  std::vector<int32_t> next = prompt;
  next.insert(next.end(), turn->output.begin(), turn->output.end());
  const std::vector<int32_t> question = Prompt(40, 7);
  next.insert(next.end(), question.begin(), question.end());
  const SequenceResult warm = Engine(daemon.Connect()).Run(next);
  EXPECT_EQ(warm.resume.prefix_tokens, 384);
  EXPECT_EQ(warm.logits, RunCold(next).logits);
  // Of the blocks in between none has a checkpoint: the prompt's end, the output's, and the second
  // prompt's.
  EXPECT_EQ(daemon.rig->Stat("commit_entries"), 3u + 2u);
}

// ---- a cache that misbehaves ----

TEST(Resume, NoDaemonPrefillsAndSaysSoOnce) {
  const std::vector<int32_t> prompt = Prompt(300);
  Engine engine(absl::StatusOr<std::unique_ptr<CacheApi>>(
      absl::UnavailableError("nobody listens on that socket")));
  const SequenceResult cold = RunCold(prompt);
  EXPECT_EQ(engine.Run(prompt).logits, cold.logits);
  EXPECT_EQ(engine.Run(prompt).logits, cold.logits);
  ASSERT_EQ(engine.said.size(), 1u);
  EXPECT_NE(engine.said[0].find("nobody listens"), std::string::npos);
}

TEST(Resume, DaemonGoneOrHungAtAnyCallCostsNoAnswer) {
  const std::vector<int32_t> prompt = Prompt(300);
  const SequenceResult cold = RunCold(prompt);
  const Daemon full;
  Engine(full.Connect()).Run(prompt);
  for (const std::string call : {"match", "reserve", "fetch", "stage", "commit"}) {
    for (const absl::Status& status :
         {absl::UnavailableError("gone"), absl::DeadlineExceededError("hung")}) {
      const Daemon empty;
      auto api = Wrap(call == "fetch" ? full : empty);
      api->fail_on = {call};
      api->fail_with = status;
      Engine engine(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)));
      auto result = RunSequence(engine.forward, &engine.cache, RealClock(), prompt,
                                {.chunk = 200, .new_tokens = 4});
      ASSERT_TRUE(result.ok());
      EXPECT_EQ(result->logits, cold.logits) << call;
      engine.cache.Flush(absl::Seconds(10));
      // One late answer costs what was to be put, or the prefix.
      const bool stays = absl::IsDeadlineExceeded(status) &&
                         (call == "stage" || call == "commit" || call == "fetch");
      EXPECT_EQ(engine.cache.attached(), stays) << call;
      EXPECT_EQ(engine.said.size(), stays ? 0u : 1u) << call;
      EXPECT_EQ(engine.cache.put_stats().dropped_entries > 0, call == "stage" || call == "commit");
    }
  }
}

TEST(Resume, ADaemonThatMissesEveryDeadlineOfThePutsIsLeft) {
  const Daemon daemon;
  auto api = Wrap(daemon);
  api->fail_on = {"abort", "commit"};
  api->fail_with = absl::DeadlineExceededError("hung");
  Engine engine(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)));
  // How many calls the puts of one prompt are is the queue's affair; at least one.
  for (uint32_t seed = 1; seed <= kDeadlinesMissedMax && engine.cache.attached(); ++seed) {
    const std::vector<int32_t> prompt = Prompt(300, seed);
    auto result = RunSequence(engine.forward, &engine.cache, RealClock(), prompt,
                              {.chunk = 400, .new_tokens = 1});
    ASSERT_TRUE(result.ok());
    EXPECT_FALSE(engine.cache.Flush(absl::Seconds(10)));
  }
  EXPECT_FALSE(engine.cache.attached());
  EXPECT_EQ(engine.said.size(), 1u);
}

TEST(Resume, LiesAreCaughtAndCostOnlyTheHit) {
  const std::vector<int32_t> prompt = Prompt(700);
  const SequenceResult cold = RunCold(prompt);
  const Daemon daemon;
  Engine(daemon.Connect()).Run(prompt);
  const std::vector<std::function<void(Wrapped&)>> lies = {
      [](Wrapped& w) { w.on_match = [](cache::MatchResult& m) { m.rows_blocks += 100; }; },
      [](Wrapped& w) { w.on_match = [](cache::MatchResult& m) { m.checkpoints[0].blocks = 90; }; },
      [](Wrapped& w) { w.on_match = [](cache::MatchResult& m) { m.checkpoints[0].blocks = 0; }; },
      [](Wrapped& w) { w.on_fetch = [](cache::FetchedPrefix& f) { f.rows.pop_back(); }; },
      [](Wrapped& w) { w.on_fetch = [](cache::FetchedPrefix& f) { f.checkpoint.reset(); }; },
      [](Wrapped& w) {
        w.on_fetch = [](cache::FetchedPrefix& f) {
          if (f.rows.size() > 1) std::swap(f.rows[0].payload, f.rows[1].payload);
        };
      },
      [](Wrapped& w) {
        w.on_fetch = [](cache::FetchedPrefix& f) {
          f.rows.back().payload = f.rows.back().payload.first(100);
        };
      },
      [](Wrapped& w) {
        w.on_fetch = [](cache::FetchedPrefix& f) {
          f.rows.back().part_bytes = f.rows.back().part_bytes.first(1);
        };
      },
      [](Wrapped& w) {
        w.on_fetch = [](cache::FetchedPrefix& f) {
          if (f.rows.size() > 1) std::swap(f.rows[0].part_table, f.rows[1].part_table);
        };
      },
      [](Wrapped& w) {
        w.on_fetch = [](cache::FetchedPrefix& f) { f.checkpoint->payload = f.rows[0].payload; };
      },
  };
  for (size_t i = 0; i < lies.size(); ++i) {
    auto api = Wrap(daemon);
    lies[i](*api);
    Engine engine(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)));
    EXPECT_EQ(engine.Run(prompt).logits, cold.logits) << "lie " << i;
  }
}

TEST(Resume, WhatTheClientCheckedAsItArrivedIsNotCheckedAgain) {
  const std::vector<int32_t> prompt = Prompt(700);
  const Daemon daemon;
  Engine(daemon.Connect()).Run(prompt);
  for (const bool verified : {true, false}) {
    auto api = Wrap(daemon);
    api->on_fetch = [verified](cache::FetchedPrefix& f) {
      f.copied_bytes = f.payload_bytes();
      f.verified = verified;
      for (cache::EntryView& row : f.rows) row.table_xxh3 = 0;  // fails whoever looks
    };
    Engine engine(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)));
    const SequenceResult warm = engine.Run(prompt);
    EXPECT_EQ(warm.resume.prefix_tokens, verified ? 640 : 0);
    EXPECT_EQ(warm.logits, RunCold(prompt).logits);
  }
}

TEST(Resume, AFlippedByteAnywhereIsACountedMiss) {
  const std::vector<int32_t> prompt = Prompt(300);
  const SequenceResult cold = RunCold(prompt);
  const Daemon daemon;
  Engine(daemon.Connect()).Run(prompt);
  const size_t rows = static_cast<size_t>(SmallModel().layout->rows_entry_bytes());
  const size_t state = static_cast<size_t>(SmallModel().layout->checkpoint_bytes());
  for (size_t k = 0; k < 12; ++k) {
    const bool in_rows = k % 2 == 0;
    const size_t at = (in_rows ? rows : state) * k / 12;
    auto api = Wrap(daemon);
    std::span<uint8_t> spoiled;
    api->on_fetch = [&](cache::FetchedPrefix& f) {
      if (f.rows.size() != 2) return;
      spoiled = Writable(in_rows ? f.rows[1].payload : f.checkpoint->payload);
      spoiled[at] ^= 0x10;
    };
    Engine engine(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)));
    const SequenceResult warm = engine.Run(prompt);
    EXPECT_EQ(warm.logits, cold.logits) << at;
    EXPECT_EQ(warm.resume.checksum_failures, 1u) << at;
    EXPECT_EQ(warm.resume.prefix_tokens, 128) << "the checkpoint before is whole";
    spoiled[at] ^= 0x10;
  }
}

TEST(Resume, RowsTakenBackWhileInUseAreNoticedAndNothingComputedFromThemIsPut) {
  const std::vector<int32_t> base = Prompt(300);
  const Daemon daemon;
  Engine(daemon.Connect()).Run(base);
  std::vector<int32_t> prompt = Prompt(300);
  const std::vector<int32_t> more = Prompt(300, 3);
  prompt.insert(prompt.end(), more.begin(), more.end());
  const SequenceResult cold = RunCold(prompt);

  auto api = Wrap(daemon);
  cache::FetchedPrefix* fetched = nullptr;
  api->on_fetch = [&](cache::FetchedPrefix& f) { fetched = &f; };
  Engine engine(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)));
  // After the first prefill step another entry's bytes appear where the rows were.
  bool spoiled = false;
  std::vector<uint8_t> saved;
  SequenceOptions options{.chunk = 100, .new_tokens = 4};
  options.progress = [&](int64_t, int64_t) {
    if (spoiled || fetched == nullptr) return;
    spoiled = true;
    saved.assign(fetched->rows[0].payload.begin(), fetched->rows[0].payload.end());
    for (uint8_t& byte : Writable(fetched->rows[0].payload))
      byte = static_cast<uint8_t>(byte * 3 + 1);
  };
  auto result = RunSequence(engine.forward, &engine.cache, RealClock(), prompt, options);
  ASSERT_TRUE(result.ok());
  ASSERT_TRUE(spoiled);
  EXPECT_EQ(result->logits, cold.logits);
  EXPECT_EQ(result->resume.checksum_failures, 1u);
  engine.cache.Flush(absl::Seconds(10));
  EXPECT_EQ(engine.cache.put_stats().put_entries, 0u);
  // What it had reserved is free again while its session lives on: nobody waits for it.
  EXPECT_EQ(daemon.rig->Stat("open_reservations"), 0u);
}

TEST(Resume, SettledRowsAreTheSessionsOwn) {
  const std::vector<int32_t> prompt = Prompt(300);
  const Daemon daemon;
  Engine(daemon.Connect()).Run(prompt);
  Engine engine(daemon.Connect());
  SessionState session(SmallModel().config, *SmallModel().layout);
  ASSERT_EQ(engine.cache.Resume(prompt, session).prefix_tokens, 256);
  const uint8_t* mapped = session.rows().Read(0);
  const std::vector<uint8_t> before(mapped, mapped + SmallModel().layout->rows_entry_bytes());
  ASSERT_TRUE(engine.cache.Settle(session));
  EXPECT_NE(session.rows().Read(0), mapped);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), session.rows().Read(0)));
  EXPECT_EQ(daemon.rig->Stat("open_leases"), 0u);
}

TEST(Resume, OfManyEnginesWithOnePromptOnePrefills) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(600);
  const SequenceResult cold = RunCold(prompt);
  std::vector<SequenceResult> results(4);
  std::vector<std::thread> engines;
  for (SequenceResult& result : results) {
    engines.emplace_back([&] { result = Engine(daemon.Connect()).Run(prompt); });
  }
  for (std::thread& engine : engines) engine.join();
  int64_t computed = 0;
  for (const SequenceResult& result : results) {
    EXPECT_EQ(result.logits, cold.logits);
    computed += result.recomputed_tokens;
  }
  // One computes all of it, the others their last 88 tokens.
  EXPECT_EQ(computed, 600 + 3 * 88);
}

}  // namespace
}  // namespace cairn::engine
