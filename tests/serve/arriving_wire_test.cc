// Goal: an engine that computes while its prefix arrives from a real daemon, by either wire, gives
// the cold run's bits, alone and in company, and holds nothing of the daemon's afterwards. Method:
// real sockets, real threads; so nobody knows what has come when.
#include <thread>

#include "cache/service/service_rig.h"
#include "engine/serve/task_pool.h"
#include "tests/serve/serve_rig.h"

namespace cairn::engine {
namespace {

using cache::CacheApi;

class ArrivingWire : public testing::TestWithParam<bool> {
 protected:
  ArrivingWire() {
    auto started =
        cache::StartServer(*daemon_.rig->core, daemon_.rig->clock, folder_, "127.0.0.1:0");
    EXPECT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  absl::StatusOr<std::unique_ptr<CacheApi>> Connect() const {
    cache::RemoteCacheOptions options = cache::PatientOptions();
    options.bulk = GetParam();
    return cache::ConnectCache(absl::StrCat("127.0.0.1:", server_->tcp_port()),
                               {SmallModel().layout->Descriptor(SmallModel().weights_identity), ""},
                               options);
  }
  bool LeasesFall() const {
    return cache::Eventually([&] { return daemon_.rig->Stat("open_leases") == 0; });
  }

  const Daemon daemon_;
  cache::TestFolder folder_;
  std::unique_ptr<cache::CacheServer> server_;
};

INSTANTIATE_TEST_SUITE_P(ByStreamAndBulk, ArrivingWire, testing::Bool());

TEST_P(ArrivingWire, TheColdBitsAtEveryLength) {
  Engine(daemon_.Connect()).Run(Prompt(2200));
  Forward forward(SmallModel(), 1);
  PrefixCache cache(Connect(), SmallModel().cached(), RealClock(), {.overlap_bytes_min = 0});
  for (const size_t length : {129u, 256u, 385u, 700u, 2200u}) {
    const std::vector<int32_t> prompt = Prompt(length);
    const auto warm =
        RunSequence(forward, &cache, RealClock(), prompt, {.chunk = 200, .new_tokens = 4});
    ASSERT_TRUE(warm.ok()) << warm.status();
    EXPECT_EQ(warm->resume.prefix_tokens, static_cast<int64_t>((length - 1) / 128 * 128));
    EXPECT_EQ(warm->resume.checksum_failures, 0u);
    EXPECT_GT(warm->resume.copied_bytes, 0u);
    EXPECT_EQ(warm->logits, RunCold(prompt).logits) << length;
  }
  EXPECT_TRUE(cache.attached());
  EXPECT_TRUE(LeasesFall());
}

TEST_P(ArrivingWire, TheColdBitsInCompany) {
  const std::vector<size_t> lengths = {300, 2200, 90, 700, 1200};
  std::vector<Answer> cold;
  for (const size_t length : lengths) cold.push_back(Cold(Prompt(length)));
  Engine(daemon_.Connect()).Run(Prompt(2200));
  ByteTokenizer tokenizer(256);
  Forward forward(SmallModel(), 1);
  const std::unique_ptr<BatchRunner> runner = CpuBatchRunner(forward);
  Metrics metrics;
  CacheSlots slots([&] { return Connect(); }, SmallModel().cached(), RealClock(),
                   {.overlap_bytes_min = 0});
  TaskPool tasks(4);
  Scheduler scheduler(*runner, tokenizer, &slots,
                      [&](std::function<void()> task) { tasks.Add(std::move(task)); }, RealClock(),
                      metrics, {.step_tokens = 100, .sequences_max = 4});
  std::vector<std::shared_ptr<Generation>> all;
  for (const size_t length : lengths) {
    all.push_back(
        *scheduler.Submit({.prompt = Prompt(length), .max_tokens = 4, .sampling = {.seed = 1}}));
  }
  std::thread loop([&] { scheduler.Run(); });
  scheduler.Drain(absl::Seconds(60));
  scheduler.Stop();
  loop.join();
  for (size_t i = 0; i < all.size(); ++i) {
    const std::optional<Output> out = all[i]->Take();
    ASSERT_TRUE(out.has_value());
    std::vector<int32_t> tokens;
    for (const SampledToken& token : out->tokens) tokens.push_back(token.token);
    EXPECT_EQ(tokens, cold[i].tokens) << lengths[i];
    EXPECT_EQ(out->cached_tokens, static_cast<int64_t>((lengths[i] - 1) / 128 * 128));
  }
  EXPECT_EQ(metrics.cache_failures, 0u);
  EXPECT_TRUE(LeasesFall());
}

// The daemon goes while prefixes are on their way: nobody waits for what will not come.
TEST_P(ArrivingWire, TheColdBitsThoughTheDaemonDies) {
  const std::vector<int32_t> prompt = Prompt(2200);
  const SequenceResult cold = RunCold(prompt);
  Engine(daemon_.Connect()).Run(prompt);
  Forward forward(SmallModel(), 1);
  PrefixCache cache(Connect(), SmallModel().cached(), RealClock(), {.overlap_bytes_min = 0});
  forward.set_layer_probe([&](int64_t, int64_t, const float*) { server_.reset(); });
  const auto warm =
      RunSequence(forward, &cache, RealClock(), prompt, {.chunk = 200, .new_tokens = 4});
  ASSERT_TRUE(warm.ok()) << warm.status();
  EXPECT_EQ(warm->logits, cold.logits);
}

}  // namespace
}  // namespace cairn::engine
