// Goal: a session that copies what it restores, and replays nothing, as one in GPU memory does, is
// served by the same cache with the same promises. Method: such a session in host memory, whose
// memory a test can let fail.
#include "tests/resume/resume_rig.h"

namespace cairn::engine {
namespace {

using cache::CacheApi;

class CopyingSession final : public CachedSession {
 public:
  int64_t position() const override { return state_.position(); }
  absl::Status Restore(const StoredPrefix& prefix) override {
    if (!fail_restore.ok()) return fail_restore;
    std::vector<std::shared_ptr<std::vector<uint8_t>>> copies;
    const auto copy = [&](const cache::EntryView& entry) {
      copies.push_back(std::make_shared<std::vector<uint8_t>>(entry.payload.size()));
      return entry.CopyOut(*copies.back());
    };
    for (const cache::EntryView& entry : prefix.rows) CAIRN_RETURN_IF_ERROR(copy(entry));
    CAIRN_RETURN_IF_ERROR(copy(*prefix.checkpoint));
    for (size_t i = 0; i < prefix.rows.size(); ++i) {
      state_.rows().Adopt(copies[i]->data(), copies[i]);
    }
    state_.LoadCheckpoint(std::ssize(prefix.rows), *copies.back());
    return absl::OkStatus();
  }
  absl::StatusOr<std::shared_ptr<const uint8_t>> ShareRows(int64_t block) override {
    if (!fail_share.ok()) return fail_share;
    return state_.ShareRows(block);
  }
  absl::StatusOr<std::shared_ptr<const uint8_t>> ShareCheckpoint() override {
    return state_.ShareCheckpoint();
  }

  SessionState& state() { return state_; }
  absl::Status fail_restore, fail_share;

 private:
  SessionState state_{SmallModel().config, *SmallModel().layout};
};

class CopyingRunner final : public SequenceRunner {
 public:
  const ModelConfig& config() const override { return SmallModel().config; }
  CachedModel cached_model() const override {
    CachedModel model = SmallModel().cached();
    model.replays = false;
    return model;
  }
  void StartOver() override {
    session_ = std::make_unique<CopyingSession>();
    session_->fail_restore = fail_restore;
    session_->fail_share = fail_share;
  }
  CachedSession& session() override { return *session_; }
  absl::StatusOr<int64_t> Prefill(std::span<const int32_t> tokens, bool) override {
    item_.session = &session_->state();
    item_.tokens = tokens;
    item_.want = WantLogits::kLast;
    CAIRN_RETURN_IF_ERROR(forward_.Run({&item_, 1}));
    return std::ssize(tokens);
  }
  absl::Status Decode(int32_t token) override { return Prefill({&token, 1}, true).status(); }
  absl::StatusOr<NextToken> Next() override {
    const auto best = std::max_element(item_.logits.begin(), item_.logits.end());
    return NextToken{static_cast<int32_t>(best - item_.logits.begin()), item_.logits};
  }

  absl::Status fail_restore, fail_share;

 private:
  Forward forward_{SmallModel(), 1};
  std::unique_ptr<CopyingSession> session_;
  StepItem item_;
};

class CopiedSession : public testing::Test {
 protected:
  SequenceResult Run(
      const std::vector<int32_t>& prompt, absl::StatusOr<std::unique_ptr<CacheApi>> api,
      CopyingRunner& runner, const std::function<void()>& after_each_step = [] {}) {
    PrefixCache::Options settings;
    settings.say = [this](const std::string& line) { said_.push_back(line); };
    PrefixCache cache(std::move(api), runner.cached_model(), RealClock(), settings);
    SequenceOptions options{.chunk = 200, .new_tokens = 4};
    options.progress = [&](int64_t, int64_t) { after_each_step(); };
    auto result = RunSequence(runner, &cache, RealClock(), prompt, options);
    EXPECT_TRUE(result.ok()) << result.status();
    cache.Flush(absl::Seconds(20));
    puts_ = cache.put_stats();
    return *std::move(result);
  }

  const std::vector<int32_t> prompt_ = Prompt(700);
  const SequenceResult cold_ = RunCold(prompt_);
  CopyingRunner runner_;
  std::vector<std::string> said_;
  PutStats puts_;
};

TEST_F(CopiedSession, IsStoredAndResumedAsAnyOther) {
  const Daemon daemon;
  EXPECT_EQ(Run(prompt_, daemon.Connect(), runner_).logits, cold_.logits);
  EXPECT_EQ(puts_.put_entries, 10u);
  const SequenceResult warm = Run(prompt_, daemon.Connect(), runner_);
  EXPECT_EQ(warm.resume.prefix_tokens, 640);
  EXPECT_EQ(warm.recomputed_tokens, 60);
  EXPECT_EQ(warm.resume.copied_bytes, warm.resume.host_bytes) << "on their way into the session";
  EXPECT_EQ(warm.logits, cold_.logits);
  EXPECT_EQ(warm.output, cold_.output);
}

// The lease is let go before anything is computed, so nothing that becomes of the entries matters.
TEST_F(CopiedSession, WhatIsTakenBackAfterTheRestoreIsNotMissed) {
  const Daemon daemon;
  Engine(daemon.Connect()).Run(Prompt(300));
  std::vector<int32_t> prompt = Prompt(300);
  const std::vector<int32_t> more = Prompt(300, 3);
  prompt.insert(prompt.end(), more.begin(), more.end());
  auto api = Wrap(daemon);
  std::vector<std::span<uint8_t>> fetched;
  api->on_fetch = [&](cache::FetchedPrefix& f) {
    fetched = {Writable(f.rows[0].payload), Writable(f.checkpoint->payload)};
  };
  const SequenceResult warm =
      Run(prompt, absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)), runner_, [&] {
        EXPECT_EQ(daemon.rig->Stat("open_leases"), 0u);
        for (const std::span<uint8_t> bytes : fetched) std::ranges::fill(bytes, uint8_t{0x5a});
      });
  EXPECT_EQ(fetched.size(), 2u);
  EXPECT_EQ(warm.resume.prefix_tokens, 256);
  EXPECT_EQ(warm.resume.checksum_failures, 0u);
  EXPECT_EQ(warm.logits, RunCold(prompt).logits);
  EXPECT_GT(puts_.put_entries, 0u);
}

TEST_F(CopiedSession, ADamagedEntryCostsTheHitAndIsCounted) {
  const Daemon daemon;
  Engine(daemon.Connect()).Run(Prompt(300));
  for (const bool in_rows : {true, false}) {
    auto api = Wrap(daemon);
    std::span<uint8_t> spoiled;
    api->on_fetch = [&](cache::FetchedPrefix& f) {
      if (f.rows.size() != 2) return;
      spoiled = Writable(in_rows ? f.rows[1].payload : f.checkpoint->payload);
      spoiled[77] ^= 0x10;
    };
    const SequenceResult warm =
        Run(Prompt(300), absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)), runner_);
    EXPECT_EQ(warm.resume.checksum_failures, 1u);
    EXPECT_EQ(warm.resume.prefix_tokens, 128) << "the checkpoint before is whole";
    EXPECT_EQ(warm.logits, RunCold(Prompt(300)).logits);
    spoiled[77] ^= 0x10;
  }
}

TEST_F(CopiedSession, RowsAloneAreAMissWhereNothingIsReplayed) {
  const Daemon daemon("zero");
  const std::vector<int32_t> prompt = Prompt(1200);
  Run(prompt, daemon.Connect(), runner_);
  EXPECT_EQ(puts_.put_entries, 9u);
  EXPECT_EQ(Engine(daemon.Connect()).Run(prompt).resume.prefix_tokens, 1152) << "who replays";
  const SequenceResult again = Run(prompt, daemon.Connect(), runner_);
  EXPECT_EQ(again.resume.prefix_tokens, 0);
  EXPECT_EQ(again.resume.host_bytes, 0u);
  EXPECT_EQ(again.logits, RunCold(prompt).logits);
  EXPECT_TRUE(said_.empty());
}

TEST_F(CopiedSession, MemoryThatFailsCostsTheCacheAndNoAnswer) {
  const Daemon daemon;
  Engine(daemon.Connect()).Run(Prompt(300));
  CopyingRunner restoring, sharing;
  restoring.fail_restore = sharing.fail_share = absl::ResourceExhaustedError("no pinned memory");
  for (CopyingRunner* runner : {&restoring, &sharing}) {
    said_.clear();
    const SequenceResult result = Run(prompt_, daemon.Connect(), *runner);
    EXPECT_EQ(result.resume.prefix_tokens, runner == &restoring ? 0 : 256);
    EXPECT_EQ(result.logits, cold_.logits);
    EXPECT_EQ(puts_.put_entries, 0u);
    ASSERT_EQ(said_.size(), 1u);
    EXPECT_NE(said_[0].find("no pinned memory"), std::string::npos);
  }
}

}  // namespace
}  // namespace cairn::engine
