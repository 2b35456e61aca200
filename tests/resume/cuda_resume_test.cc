// Goal: on the GPU too a resumed answer has the bits of the cold one, whatever the cache does.
// Method: as resume_test.cc, with a made model of every kind of layer loaded onto the device anew
// for each run. Skips without a GPU.
#include "engine/cairn_engine/cuda_runner.h"
#include "engine/cuda/cuda_test_models.h"
#include "engine/cuda/cuda_transfer.h"
#include "engine/model/test_files.h"
#include "tests/resume/resume_rig.h"

namespace cairn::engine {
namespace {

using cache::CacheApi;

const SequenceOptions kOptions{.chunk = 200, .new_tokens = 4};

class CudaResumeTest : public CudaEngineTest {
 protected:
  void SetUp() override {
    CudaEngineTest::SetUp();
    if (IsSkipped()) return;
    const absl::Status made = MakeModel({.config = CudaTestConfig({0, 4, 128, 4, 128}, 2),
                                         .format = WeightFormat::kFp8Fp4,
                                         .seed = 5},
                                        folder_ / "m");
    ASSERT_TRUE(made.ok()) << made;
    cold_ = Run(prompt_, nullptr);
  }

  std::unique_ptr<SequenceRunner> Open() const {
    auto runner = OpenCudaRunner(folder_ / "m", {.chunk = kOptions.chunk, .tokens_max = 2048});
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *std::move(runner);
  }
  static absl::StatusOr<std::unique_ptr<CacheApi>> Connect(const Daemon& daemon,
                                                           const SequenceRunner& runner) {
    return cache::OpenLocalCache(*daemon.rig->core, {runner.cached_model().Descriptor(), ""});
  }
  // A process's life: its cache is what `connect` makes of a session with the daemon.
  SequenceResult Run(
      const std::vector<int32_t>& prompt, const Daemon* daemon,
      const std::function<void(Wrapped&)>& spoil = [](Wrapped&) {}) {
    const std::unique_ptr<SequenceRunner> runner = Open();
    std::unique_ptr<PrefixCache> cache;
    if (daemon != nullptr) {
      auto session = Connect(*daemon, *runner);
      EXPECT_TRUE(session.ok()) << session.status();
      auto api = std::make_unique<Wrapped>(*std::move(session));
      spoil(*api);
      PrefixCache::Options settings;
      settings.say = [](const std::string& line) { ADD_FAILURE() << line; };
      cache =
          std::make_unique<PrefixCache>(absl::StatusOr<std::unique_ptr<CacheApi>>(std::move(api)),
                                        runner->cached_model(), RealClock(), settings);
    }
    auto result = RunSequence(*runner, cache.get(), RealClock(), prompt, kOptions);
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(cache == nullptr || cache->Flush(absl::Seconds(20)));
    return *std::move(result);
  }
  void ExpectAsCold(const SequenceResult& result) const {
    EXPECT_EQ(result.logits, cold_.logits);
    EXPECT_EQ(result.output, cold_.output);
  }

  const TestFolder folder_;
  const std::vector<int32_t> prompt_ = CudaTestTokens(700, 21);
  SequenceResult cold_;
};

TEST_F(CudaResumeTest, FromHostMemoryAndFromDisk) {
  const Daemon daemon;
  const SequenceResult first = Run(prompt_, &daemon);
  EXPECT_EQ(first.resume.prefix_tokens, 0);
  ExpectAsCold(first);
  const SequenceResult second = Run(prompt_, &daemon);
  EXPECT_EQ(second.resume.prefix_tokens, 640);
  EXPECT_EQ(second.recomputed_tokens, 60);
  EXPECT_GT(second.resume.host_bytes, 0u);
  EXPECT_EQ(second.resume.disk_bytes, 0u);
  ExpectAsCold(second);
  ASSERT_TRUE(daemon.rig->core->Flush(absl::Seconds(10)).ok());
  daemon.rig->Restart(/*crash=*/true);
  const SequenceResult third = Run(prompt_, &daemon);
  EXPECT_EQ(third.resume.prefix_tokens, 640);
  EXPECT_EQ(third.resume.host_bytes, 0u);
  EXPECT_GT(third.resume.disk_bytes, 0u);
  ExpectAsCold(third);
}

TEST_F(CudaResumeTest, EveryLengthAroundBlockEnds) {
  const Daemon daemon;
  Run(prompt_, &daemon);
  for (const size_t length : {128u, 129u, 255u, 256u, 257u, 511u, 512u, 513u}) {
    const std::vector<int32_t> prompt(prompt_.begin(),
                                      prompt_.begin() + static_cast<ptrdiff_t>(length));
    const SequenceResult warm = Run(prompt, &daemon);
    EXPECT_EQ(warm.resume.prefix_tokens, static_cast<int64_t>((length - 1) / 128 * 128)) << length;
    EXPECT_EQ(warm.logits, Run(prompt, nullptr).logits) << length;
  }
}

TEST_F(CudaResumeTest, ADamagedEntryIsCountedAndComputedAgain) {
  const Daemon daemon;
  Run(prompt_, &daemon);
  for (const bool in_rows : {true, false}) {
    std::span<uint8_t> spoiled;
    const SequenceResult warm = Run(prompt_, &daemon, [&](Wrapped& api) {
      api.on_fetch = [&](cache::FetchedPrefix& f) {
        if (f.rows.size() != 5) return;
        spoiled = Writable(in_rows ? f.rows[4].payload : f.checkpoint->payload);
        spoiled[spoiled.size() / 2] ^= 0x10;
      };
    });
    ASSERT_FALSE(spoiled.empty());
    EXPECT_EQ(warm.resume.checksum_failures, 1u);
    EXPECT_EQ(warm.resume.prefix_tokens, 512) << "the checkpoint before is whole";
    ExpectAsCold(warm);
    spoiled[spoiled.size() / 2] ^= 0x10;
  }
}

TEST_F(CudaResumeTest, OfAllDamagedNothingIsUsed) {
  const Daemon daemon;
  Run(prompt_, &daemon);
  const SequenceResult warm = Run(prompt_, &daemon, [](Wrapped& api) {
    api.on_fetch = [](cache::FetchedPrefix& f) { f.rows[0].table_xxh3 ^= 1; };
  });
  EXPECT_EQ(warm.resume.checksum_failures, 5u);
  EXPECT_EQ(warm.resume.prefix_tokens, 0);
  ExpectAsCold(warm);
}

TEST_F(CudaResumeTest, StepsEndWhereThePolicyWantsCheckpoints) {
  const std::vector<std::pair<std::string, int64_t>> cases = {
      {"every:256", 512}, {"ends", 640}, {"zero", 0}};
  for (const auto& [policy, expected] : cases) {
    const Daemon daemon(policy);
    ExpectAsCold(Run(prompt_, &daemon));
    const SequenceResult warm = Run(prompt_, &daemon);
    EXPECT_EQ(warm.resume.prefix_tokens, expected) << policy;
    ExpectAsCold(warm);
  }
}

// What is computed behind a restored prefix, and what is decoded, is stored like anything else.
TEST_F(CudaResumeTest, ALongerPromptGoesOnFromWhatAResumedOneStored) {
  const Daemon daemon;
  Run(std::vector<int32_t>(prompt_.begin(), prompt_.begin() + 300), &daemon);
  EXPECT_EQ(Run(prompt_, &daemon).resume.prefix_tokens, 256);
  const SequenceResult warm = Run(prompt_, &daemon);
  EXPECT_EQ(warm.resume.prefix_tokens, 640);
  ExpectAsCold(warm);
}

TEST_F(CudaResumeTest, TheCpusEntriesAreNotItsOwn) {
  const Daemon daemon;
  Run(prompt_, &daemon);
  auto model = LoadModel(folder_ / "m", {.numerics = Numerics::kFull, .threads = 2});
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ((*model)->weights_identity, Open()->cached_model().weights);
  const SequenceResult cpu = Engine(daemon.Connect(**model), **model).Run(prompt_);
  EXPECT_EQ(cpu.resume.prefix_tokens, 0);
  EXPECT_EQ(cpu.logits, RunCold(prompt_, **model).logits);
}

}  // namespace
}  // namespace cairn::engine
