// The scheduler and the cache together, in one process: a small model over a real core.
//
// Goal: the cache changes when tokens come, never which; its troubles cost no request, and waiting
// for it costs nobody else a step. Method: tasks are kept by the test and run where it says, so
// that every order is a chosen one; answers are compared with those without a cache, logits to the
// bit.
#include <atomic>
#include <future>
#include <thread>

#include "engine/serve/task_pool.h"
#include "store/base/thread.h"
#include "tests/serve/serve_rig.h"

namespace cairn::engine {
namespace {

using cache::CacheApi;

// Of what two sequences restored, the rows are once in memory, and are admitted once.
TEST(Serve, SequencesThatBeginAlikeShareTheirRows) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(700);
  Server server(daemon);
  const Answer cold = server.Run(prompt);
  std::vector<std::shared_ptr<Generation>> both = {server.Submit(prompt), server.Submit(prompt)};
  // Until each has its first token, which comes after its rows are its own.
  for (const auto& one : both) {
    while (!one->Take().has_value()) {
      ASSERT_TRUE(server.scheduler.Step() || server.RunTask());
    }
  }
  const KvLayout& layout = *SmallModel().layout;
  const int64_t blocks = 5;  // of 128 tokens, below 700
  EXPECT_EQ(server.slots.shared_rows().bytes(), blocks * layout.rows_entry_bytes());
  EXPECT_EQ(server.metrics.kv_bytes_used, 2 * SequenceBytes(SmallModel().config, layout, 704) -
                                              blocks * layout.rows_entry_bytes());
  for (const auto& one : both) server.Finish(*one);
  while (server.scheduler.Step() || server.RunTask()) {
  }
  EXPECT_EQ(server.slots.shared_rows().bytes(), 0);
  EXPECT_EQ(server.metrics.kv_bytes_used, 0);
  ExpectSame(server.Run(prompt), cold);
}

TEST(Serve, TheSecondRequestIsCachedAndTheSame) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(700);
  const Answer cold = Cold(prompt);
  ASSERT_EQ(cold.tokens.size(), 4u);
  Server server(daemon);
  const Answer first = server.Run(prompt);
  EXPECT_EQ(first.cached_tokens, 0);
  ExpectSame(first, cold);
  const Answer second = server.Run(prompt);
  EXPECT_EQ(second.cached_tokens, 640);
  ExpectSame(second, cold);
  EXPECT_EQ(server.metrics.cached_tokens, 640u);
  EXPECT_EQ(server.metrics.computed_tokens, 700u + 3u + 60u + 3u);
  EXPECT_EQ(daemon.rig->Stat("open_leases"), 0u);
  EXPECT_EQ(daemon.rig->Stat("open_reservations"), 0u);
}

TEST(Serve, WaitingForTheCacheCostsNobodyElseAStep) {
  const Daemon daemon;
  Server server(daemon);
  const auto decoding = server.Submit(Prompt(20), 1);
  ASSERT_FALSE(server.scheduler.Step());
  ASSERT_TRUE(server.RunTask());
  ASSERT_TRUE(server.scheduler.Step());
  EXPECT_EQ(decoding->Take()->answer_tokens, 1);
  const auto resuming = server.Submit(Prompt(300), 2);
  for (int64_t token = 2; token <= 4; ++token) {
    ASSERT_TRUE(server.scheduler.Step());  // its resume has not even begun
    EXPECT_EQ(decoding->Take()->answer_tokens, token);
  }
  ExpectSame(server.Finish(*resuming, 2), [&] {
    Server other(Nobody());
    const auto out = other.Submit(Prompt(300), 2);
    return other.Finish(*out, 2);
  }());
}

// What a sequence leaves of the step's budget to stop at a checkpoint, the others get.
TEST(Serve, StoppingAtACheckpointLeavesNoStepHalfEmpty) {
  const Daemon daemon;
  Server server(daemon);
  const auto longer = server.Submit(Prompt(300), 1);
  const auto shorter = server.Submit(Prompt(120), 2);
  ASSERT_FALSE(server.scheduler.Step());
  ASSERT_TRUE(server.RunTask());
  ASSERT_TRUE(server.scheduler.Step());
  ASSERT_EQ(server.metrics.computed_tokens, 100u);  // of the longer one
  ASSERT_TRUE(server.RunTask());
  ASSERT_TRUE(server.scheduler.Step());
  EXPECT_EQ(server.metrics.computed_tokens, 200u);  // 28 of it, up to the block's end, and 72
  server.Finish(*shorter, 2);
  server.Finish(*longer, 1);
}

// A clock by which every step takes minutes, so that a task on a thread is short beside any.
class SlowClock final : public Clock {
 public:
  int64_t NowNanos() const override { return nanos_ += absl::ToInt64Nanoseconds(absl::Minutes(5)); }
  int64_t WallMicros() const override { return NowNanos() / 1000; }

 private:
  mutable std::atomic<int64_t> nanos_{0};
};

// The end of one and the beginning of the next ask the cache; the step after the one's last has the
// next one in it all the same. Tasks give a step that does not wait for them the time to end first.
TEST(Serve, ShortTasksMissNoStep) {
  const Daemon daemon;
  SlowClock clock;
  Metrics metrics;
  Forward forward(SmallModel(), 1);
  const std::unique_ptr<BatchRunner> runner = CpuBatchRunner(forward);
  const ByteTokenizer tokenizer(256);
  CacheSlots slots([&] { return daemon.Connect(); }, SmallModel().cached(), RealClock(), {});
  Mutex mutex;
  int tokens = 0;
  TaskPool pool(4);
  const auto spawn = [&](std::function<void()> task) {
    pool.Add([&, task = std::move(task), before = tokens] {
      {
        const MutexLock lock(&mutex);
        mutex.AwaitWithTimeout([&] { return tokens > before; }, absl::Milliseconds(20));
      }
      task();
    });
  };
  Scheduler scheduler(
      *runner, tokenizer, &slots, spawn, clock, metrics,
      {.step_tokens = 100, .sequences_max = 2, .task_wait_max = absl::InfiniteDuration()});
  scheduler.set_logits_probe([&](const GenerationRequest&, int64_t, std::span<const float>) {
    const MutexLock lock(&mutex);
    ++tokens;
  });
  const auto submit = [&](size_t prompt, int64_t max_tokens) {
    return *scheduler.Submit({.prompt = Prompt(prompt), .max_tokens = max_tokens});
  };
  const auto long_one = submit(10, 6);
  while (!scheduler.Step()) {  // until its task is back: there was no step yet to compare it with
  }
  const auto short_one = submit(20, 1);
  ASSERT_TRUE(scheduler.Step());
  EXPECT_EQ(short_one->Take()->finish, FinishReason::kLength);
  const auto next = submit(30, 1);
  ASSERT_TRUE(scheduler.Step());
  EXPECT_EQ(next->Take()->finish, FinishReason::kLength);
  EXPECT_EQ(long_one->Take()->answer_tokens, 3);
  while (scheduler.Step()) {
  }
}

// Two requests with one prompt at once: the second waits for the first one's prefill, on a thread
// of its own.
TEST(Serve, OnePromptIsPrefilledOnce) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(600);
  Metrics metrics;
  Forward forward(SmallModel(), 1);
  const std::unique_ptr<BatchRunner> runner = CpuBatchRunner(forward);
  const ByteTokenizer tokenizer(256);
  CacheSlots slots([&] { return daemon.Connect(); }, SmallModel().cached(), RealClock(), {});
  {
    TaskPool pool(4);
    Scheduler scheduler(*runner, tokenizer, &slots,
                        [&](std::function<void()> task) { pool.Add(std::move(task)); }, RealClock(),
                        metrics, {.step_tokens = 100, .sequences_max = 4});
    std::vector<std::shared_ptr<Generation>> all;
    for (int i = 0; i < 4; ++i) {
      all.push_back(*scheduler.Submit({.prompt = prompt, .max_tokens = 1}));
    }
    std::thread loop([&] { scheduler.Run(); });
    scheduler.Drain(absl::Seconds(60));
    scheduler.Stop();
    loop.join();
    for (const auto& out : all) EXPECT_EQ(out->Take()->finish, FinishReason::kLength);
  }
  EXPECT_EQ(metrics.computed_tokens, 600u + 3 * 88u);
  EXPECT_EQ(metrics.cached_tokens, 3 * 512u);
}

// The slots of one server learn together, and a slow disk under one of them is no dead daemon to
// the others.
TEST(Serve, SlotsShareWhatTheyLearnAndALateFetchLosesNoSession) {
  const std::vector<int32_t> prompt = Prompt(600);
  const Daemon daemon;
  Server(daemon).Run(prompt);
  ASSERT_TRUE(daemon.rig->core->Flush(absl::Seconds(10)).ok());
  daemon.rig->DropFromHost();
  absl::Duration asked;
  const auto connect = [&]() -> absl::StatusOr<std::unique_ptr<CacheApi>> {
    auto api = Wrap(daemon);
    api->fail_late = [&](absl::Duration deadline) {
      asked = deadline;
      return absl::DeadlineExceededError("late");
    };
    return api;
  };
  CacheSlots slots(connect, SmallModel().cached(), RealClock(), {});
  CacheSlot* const one = slots.Take();
  CacheSlot* const two = slots.Take();
  ASSERT_TRUE(one != nullptr && two != nullptr && one != two);
  one->cache().ObservePrefill(1000, 1000, 10);
  SessionState session(SmallModel().config, *SmallModel().layout);
  EXPECT_TRUE(two->cache().Resume(prompt, session).fetch_was_late);
  EXPECT_LT(absl::AbsDuration(asked - absl::Seconds(2 * 512 * 0.01)), absl::Microseconds(1));
  EXPECT_FALSE(one->lost() || two->lost());
  slots.Give(one);
  slots.Give(two);
}

TEST(Serve, WhatSequencesPutMeanwhileGoesInOneCall) {
  const Daemon daemon;
  std::vector<size_t> calls;
  std::promise<void> called, go_on;
  Server server([&]() -> absl::StatusOr<std::unique_ptr<CacheApi>> {
    auto api = Wrap(daemon);
    api->on_commit_call = [&](size_t items) {
      calls.push_back(items);
      if (calls.size() > 1) return;
      called.set_value();
      go_on.get_future().wait();
    };
    return api;
  });
  server.Submit(Prompt(300));
  server.scheduler.Step();
  ASSERT_TRUE(server.RunTask());
  for (int step = 0; step < 2; ++step) ASSERT_TRUE(server.scheduler.Step());
  called.get_future().wait();  // with its first block
  server.Submit(Prompt(300, 3), 2);
  server.Submit(Prompt(300, 5), 3);
  while (server.scheduler.Step() || server.RunTask()) {
  }
  go_on.set_value();
  server.slots.Flush(absl::Seconds(20));
  EXPECT_EQ(server.slots.put_stats().put_entries, 3 * 4u) << "two blocks' rows and checkpoints";
  EXPECT_EQ(calls.size(), 2u);
}

TEST(Serve, NoTokenLeavesThatWasComputedFromRowsTakenBack) {
  std::vector<int32_t> prompt = Prompt(300);
  const Daemon daemon;
  Server(daemon).Run(prompt);
  const std::vector<int32_t> more = Prompt(300, 3);
  prompt.insert(prompt.end(), more.begin(), more.end());
  const Answer cold = Cold(prompt);

  cache::FetchedPrefix* fetched = nullptr;
  Server server([&]() -> absl::StatusOr<std::unique_ptr<CacheApi>> {
    auto api = Wrap(daemon);
    api->on_fetch = [&](cache::FetchedPrefix& f) { fetched = &f; };
    return api;
  });
  const auto out = server.Submit(prompt);
  server.scheduler.Step();
  ASSERT_TRUE(server.RunTask());
  ASSERT_NE(fetched, nullptr);
  ASSERT_TRUE(server.scheduler.Step());
  // After the first step another entry's bytes appear where the rows were.
  for (const uint8_t& byte : fetched->rows[0].payload) const_cast<uint8_t&>(byte) ^= 0x5a;
  while (server.tasks.empty()) ASSERT_TRUE(server.scheduler.Step());
  EXPECT_FALSE(out->Take().has_value()) << "it waits for the check";
  const Answer answer = server.Finish(*out);
  ExpectSame(answer, cold);
  EXPECT_EQ(answer.cached_tokens, 0) << "all of it was computed after all";
  EXPECT_EQ(server.metrics.cache_failures, 1u);
  while (server.RunTask()) {
  }
  server.slots.Flush(absl::Seconds(20));
  EXPECT_EQ(server.slots.put_stats().put_entries, 0u);
  EXPECT_EQ(daemon.rig->Stat("open_reservations"), 0u);
}

TEST(Serve, ACancelledRequestLeavesNothingBehindInTheCache) {
  std::vector<int32_t> prompt = Prompt(300);
  const Daemon daemon;
  Server(daemon).Run(prompt);
  const std::vector<int32_t> more = Prompt(500, 3);
  prompt.insert(prompt.end(), more.begin(), more.end());
  for (int tasks = 0; tasks < 2; ++tasks) {  // before its resume, and amid its prefill
    Server server(daemon);
    const auto out = server.Submit(prompt);
    server.scheduler.Step();
    for (int i = 0; i < tasks; ++i) {
      ASSERT_TRUE(server.RunTask());
      ASSERT_TRUE(server.scheduler.Step());
      ASSERT_TRUE(server.scheduler.Step());
    }
    out->Cancel();
    while (server.scheduler.Step() || server.RunTask()) {
    }
    server.slots.Flush(absl::Seconds(20));
    EXPECT_EQ(server.metrics.requests_running, 0);
    EXPECT_EQ(server.metrics.kv_bytes_used, 0);
    EXPECT_EQ(server.metrics.requests_cancelled, 1u);
    EXPECT_EQ(daemon.rig->Stat("open_reservations"), 0u);
    EXPECT_EQ(daemon.rig->Stat("open_leases"), 0u);
  }
}

TEST(Serve, ACacheLostAtAnyCallCostsNoRequestAndIsFoundAgain) {
  const std::vector<int32_t> prompt = Prompt(300);
  const Answer cold = Cold(prompt);
  for (const std::string call : {"match", "reserve", "fetch", "stage", "commit"}) {
    const Daemon daemon;
    if (call == "fetch") Server(daemon).Run(prompt);
    FakeClock clock;
    int connections = 0;
    Server server(
        [&]() -> absl::StatusOr<std::unique_ptr<CacheApi>> {
          auto api = Wrap(daemon);
          if (connections++ == 0) api->fail_on = {call};
          return api;
        },
        clock);
    ExpectSame(server.Run(prompt), cold);
    EXPECT_FALSE(server.slots.attached()) << call;
    ExpectSame(server.Run(prompt), cold);
    EXPECT_EQ(connections, 1) << call << ": not before it is time";
    clock.Advance(absl::Seconds(6));
    {
      const NoThreads none;  // to look for it with
      ExpectSame(server.Run(prompt), cold);
      EXPECT_EQ(connections, 1) << call;
    }
    clock.Advance(absl::Seconds(6));
    ExpectSame(server.Run(prompt), cold);
    server.slots.AwaitConnect();
    EXPECT_EQ(connections, 2) << call;
    EXPECT_TRUE(server.slots.attached()) << call;
    server.Run(prompt);
    EXPECT_EQ(server.Run(prompt).cached_tokens, 256) << call;
    ASSERT_EQ(server.said.size(), 2u) << call;
    EXPECT_EQ(server.said[1], "the cache is back");
  }
}

// A wait for another engine's prefill ends when nobody wants it any more.
TEST(Serve, ACancelledWaitEnds) {
  const Daemon daemon;
  const std::vector<int32_t> prompt = Prompt(300);
  Server maker(daemon);
  maker.Submit(prompt);
  maker.scheduler.Step();
  ASSERT_TRUE(maker.RunTask());  // it has reserved, and goes no further
  Server server(daemon);
  const auto out = server.Submit(prompt);
  server.scheduler.Step();
  const uint64_t waits = daemon.rig->waiter.waits();
  std::thread waiting([&] { server.RunTask(); });
  daemon.rig->waiter.Await(waits);
  out->Cancel();
  daemon.rig->clock.Advance(absl::Seconds(1));
  waiting.join();  // the whole wait is of 20 s, which this clock never shows
  while (server.scheduler.Step() || server.RunTask()) {
  }
  EXPECT_EQ(server.metrics.requests_running, 0);
}

}  // namespace
}  // namespace cairn::engine
