// Goal: a sequence whose prefix is still on its way holds nobody up, computes beside its arrival
// when nobody else is there, and is answered the same bits, as are the others, whatever becomes of
// it. Method: a prefix that arrives by the test's hand; tasks and steps in a chosen order.
#include "tests/resume/arriving_rig.h"
#include "tests/serve/serve_rig.h"

namespace cairn::engine {
namespace {

using cache::CacheApi;

Answer ColdAs(const std::vector<int32_t>& prompt, uint64_t seed) {
  Server server(Nobody());
  return server.Finish(*server.Submit(prompt, seed), seed);
}

class ArrivingServe : public testing::Test {
 protected:
  ArrivingServe() {
    Server(daemon_).Run(prompt_);
    std::vector<int32_t> longer = prompt_;
    const std::vector<int32_t> more = Prompt(100, 3);
    longer.insert(longer.end(), more.begin(), more.end());
    prompt_ = std::move(longer);
    server_ = std::make_unique<Server>(
        [this]() -> absl::StatusOr<std::unique_ptr<CacheApi>> {
          auto api = Distant(daemon_, {.on_await = [this](ArrivingByHand& prefix, size_t groups) {
                               ++awaited_;
                               if (on_await_) on_await_(prefix, groups);
                             }});
          api_ = api.get();
          return api;
        },
        RealClock(), /*overlap_bytes_min=*/0);
    // It is worth starting at once.
    api_->seconds = 1e-9;
  }
  // Until the sequence that was submitted has its session, the first group of its prefix there.
  void Resume() {
    server_->scheduler.Step();
    ASSERT_TRUE(server_->RunTask());
    ASSERT_NE(api_->last, nullptr);
    ASSERT_EQ(api_->last->arrived(), 1u);
  }

  // A sequence that has got its first token.
  auto StartOther() {
    auto other = server_->Submit(other_, 2);
    server_->scheduler.Step();
    while (server_->RunTask()) {
    }
    EXPECT_TRUE(server_->scheduler.Step());
    return other;
  }

  const Daemon daemon_{"ends"};
  std::vector<int32_t> prompt_ = Prompt(300);
  const std::vector<int32_t> other_ = Prompt(90, 7);
  std::function<void(ArrivingByHand&, size_t)> on_await_;
  int awaited_ = 0;
  DistantCache* api_ = nullptr;
  std::unique_ptr<Server> server_;
};

TEST_F(ArrivingServe, AloneItComputesBesideItsArrival) {
  on_await_ = [](ArrivingByHand& prefix, size_t groups) { prefix.Let(groups); };
  const auto out = server_->Submit(prompt_);
  Resume();
  ASSERT_TRUE(server_->scheduler.Step());
  EXPECT_GT(awaited_, 1);
  const Answer answer = server_->Finish(*out);
  EXPECT_EQ(answer.cached_tokens, 256);
  ExpectSame(answer, Cold(prompt_));
  EXPECT_EQ(server_->metrics.cache_failures, 0u);
}

// The others' steps go on without it, and without waiting; once it is there it joins them.
TEST_F(ArrivingServe, InCompanyItWaitsAndTheOthersDoNot) {
  const auto other = StartOther();
  const auto out = server_->Submit(prompt_, 1);
  Resume();
  const uint64_t before = server_->metrics.computed_tokens;
  ASSERT_TRUE(server_->scheduler.Step());
  EXPECT_EQ(server_->metrics.computed_tokens - before, 1u) << "the other's next token";
  EXPECT_EQ(awaited_, 0);
  api_->last->Let(api_->last->groups());
  ASSERT_TRUE(server_->scheduler.Step());
  EXPECT_EQ(server_->metrics.computed_tokens - before, 101u) << "of both";
  EXPECT_EQ(awaited_, 0);
  ExpectSame(server_->Finish(*other, 2), ColdAs(other_, 2));
  const Answer answer = server_->Finish(*out, 1);
  EXPECT_EQ(answer.cached_tokens, 256);
  ExpectSame(answer, Cold(prompt_));
}

TEST_F(ArrivingServe, WhatDoesNotArriveIsComputedFromNothing) {
  on_await_ = [](ArrivingByHand& prefix, size_t groups) {
    if (groups < prefix.groups()) return prefix.Let(groups);
    prefix.End(absl::UnavailableError("cut off"));
  };
  const auto out = server_->Submit(prompt_);
  Resume();
  ASSERT_TRUE(server_->scheduler.Step());
  EXPECT_EQ(server_->metrics.cache_failures, 1u);
  const Answer answer = server_->Finish(*out);
  EXPECT_EQ(answer.cached_tokens, 0);
  ExpectSame(answer, Cold(prompt_));
}

TEST_F(ArrivingServe, WhatDoesNotArriveFailsNobodyElsesStep) {
  const auto other = StartOther();
  const auto out = server_->Submit(prompt_, 1);
  Resume();
  api_->last->End(absl::DataLossError("damaged"));
  const uint64_t before = server_->metrics.computed_tokens;
  ASSERT_TRUE(server_->scheduler.Step());
  EXPECT_EQ(server_->metrics.computed_tokens - before, 100u);
  EXPECT_EQ(server_->metrics.cache_failures, 1u);
  ExpectSame(server_->Finish(*other, 2), ColdAs(other_, 2));
  ExpectSame(server_->Finish(*out, 1), Cold(prompt_));
}

// Two that arrive: one after the other, each alone until it has come.
TEST_F(ArrivingServe, OfTwoThatArriveOneIsComputed) {
  on_await_ = [](ArrivingByHand& prefix, size_t groups) { prefix.Let(groups); };
  const auto one = server_->Submit(prompt_, 1);
  std::vector<int32_t> parted = prompt_;  // in its last block: nobody waits for the other's
  parted[300] ^= 1;
  const auto two = server_->Submit(parted, 2);
  server_->scheduler.Step();
  while (server_->RunTask()) {
  }
  const uint64_t before = server_->metrics.computed_tokens;
  ASSERT_TRUE(server_->scheduler.Step());
  EXPECT_EQ(server_->metrics.computed_tokens - before, 100u);
  EXPECT_EQ(api_->last->arrived(), 1u) << "the second's";
  ExpectSame(server_->Finish(*one, 1), Cold(prompt_));
  ExpectSame(server_->Finish(*two, 2), ColdAs(parted, 2));
  EXPECT_EQ(server_->metrics.cache_failures, 0u);
}

TEST_F(ArrivingServe, OneThatIsCancelledAwaitsNothing) {
  const auto out = server_->Submit(prompt_);
  Resume();
  out->Cancel();
  EXPECT_FALSE(server_->scheduler.Step());
  EXPECT_EQ(awaited_, 0);
}

}  // namespace
}  // namespace cairn::engine
