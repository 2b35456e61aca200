// Goal: `verify` proves what it says: it counts what was served and nothing else, finds bytes that
// are wrong under a good checksum, and names the component. Method: an honest cache, and one whose
// puts are spoiled before their checksums are made, one component of the layout at a time.
#include <fstream>

#include "engine/cairn_engine/divergence.h"
#include "engine/cairn_engine/prompts_file.h"
#include "engine/cairn_engine/verify_command.h"
#include "engine/cairn_engine/verify_pairs.h"
#include "engine/text/byte_tokenizer.h"
#include "store/base/checksum.h"
#include "store/base/exit_codes.h"
#include "tests/resume/resume_rig.h"

namespace cairn::engine {
namespace {

struct Verifier {
  explicit Verifier(std::unique_ptr<cache::CacheApi> api, int64_t chunk = 100)
      : forward(SmallModel(), 1),
        cache(std::move(api), SmallModel().cached(), RealClock(), Options()),
        pairs(forward, cache, RealClock(), {.chunk = chunk}) {}
  static PrefixCache::Options Options() {
    PrefixCache::Options options;
    options.always_load = true;
    return options;
  }
  const VerifyFigures& Add(const std::vector<int32_t>& prompt) {
    const absl::Status status = pairs.Add(prompt);
    EXPECT_TRUE(status.ok()) << status;
    const VerifyFigures& f = pairs.figures();
    EXPECT_EQ(f.pairs, f.equal + f.differing + f.missed + f.taken_back);
    return f;
  }
  Forward forward;
  PrefixCache cache;
  PairVerifier pairs;
};

TEST(Verify, EveryCutOfAnHonestCacheIsServedAndEqual) {
  const Daemon daemon;
  for (const int64_t chunk : {64, 100, 1000}) {
    Verifier verifier(Wrap(daemon), chunk);
    const VerifyFigures& f = verifier.Add(Prompt(640));
    // 129, and three at each of the ends 256, 384, 512, but two at 640, which is the prompt's.
    EXPECT_EQ(f.pairs, 1 + 3 * 3 + 2);
    EXPECT_EQ(f.equal, f.pairs);
    EXPECT_EQ(f.boundaries, 4);
    EXPECT_EQ(f.shorter, 0);
    EXPECT_EQ(f.hit_tokens, 3 * (128 + 256 + 384 + 512));
    EXPECT_EQ(f.hit_tokens + f.recomputed_tokens, 129 + 3 * 256 + 3 * 384 + 3 * 512 + 639 + 640);
    EXPECT_GT(f.host_bytes, 0u);
    EXPECT_TRUE(verifier.pairs.differences().empty());
  }
}

TEST(Verify, APromptWithoutAWholeBlockBeforeItsEndIsTooShort) {
  const Daemon daemon;
  Verifier verifier(Wrap(daemon));
  EXPECT_EQ(verifier.Add(Prompt(128)).too_short, 1);
  EXPECT_EQ(verifier.Add(Prompt(129)).pairs, 1);
}

TEST(Verify, RowsAloneAreServedByReplay) {
  const Daemon daemon("zero");
  Verifier verifier(Wrap(daemon));
  const VerifyFigures& f = verifier.Add(Prompt(900));
  EXPECT_EQ(f.equal, f.pairs);
  EXPECT_EQ(f.shorter, 0);
  EXPECT_EQ(f.replayed, f.pairs);
  EXPECT_LT(f.replay_token_layers, f.replay_rectangle_token_layers);
}

TEST(Verify, AMissProvesNothing) {
  const Daemon daemon;
  auto api = Wrap(daemon);
  api->on_match = [](cache::MatchResult& match) { match = {}; };
  Verifier verifier(std::move(api));
  const VerifyFigures& f = verifier.Add(Prompt(400));
  EXPECT_GT(f.pairs, 0);
  EXPECT_EQ(f.missed, f.pairs);
  EXPECT_EQ(f.hits(), 0);
}

TEST(Verify, AHitThatIsShorterThanItCouldBeIsCounted) {
  const Daemon daemon("every:256");
  auto api = Wrap(daemon);
  // No rows beyond the last checkpoint.
  api->on_match = [](cache::MatchResult& match) {
    match.rows_blocks = match.checkpoints.empty() ? 0 : match.checkpoints[0].blocks;
    match.rows_host_blocks = std::min(match.rows_host_blocks, match.rows_blocks);
  };
  Verifier verifier(std::move(api));
  const VerifyFigures& f = verifier.Add(Prompt(500));
  EXPECT_EQ(f.equal, f.hits());
  EXPECT_EQ(f.missed, 3);   // 129, 255 and 256: there is no checkpoint before 256
  EXPECT_EQ(f.shorter, 1);  // 385
}

TEST(Verify, AResultThatWasComputedAgainIsNoHit) {
  const Daemon daemon;
  Engine(daemon.Connect()).Run(Prompt(300));
  auto api = Wrap(daemon);
  cache::FetchedPrefix* fetched = nullptr;
  int fetches = 0;  // the first is the put's, which finds its block there
  api->on_fetch = [&](cache::FetchedPrefix& f) { fetched = ++fetches == 2 ? &f : nullptr; };
  Verifier verifier(std::move(api));
  verifier.forward.set_layer_probe([&](int64_t layer, int64_t, const float*) {
    if (layer == 0 && fetched != nullptr) Writable(fetched->rows[0].payload)[0] ^= 1;
    fetched = nullptr;
  });
  const VerifyFigures& f = verifier.Add(Prompt(129));
  EXPECT_EQ(f.taken_back, 1);
  EXPECT_EQ(f.hits(), 0);
}

// The bytes of a component change places before their checksum is made: a producer's mistake.
void Spoil(cache::CommitItem& item, const cache::LayoutDescriptor& layout,
           const cache::LayoutComponent& spoiled) {
  uint64_t at = 0, part = 0;
  if (item.parts.size() != layout.part_bytes(spoiled.scope).size()) return;
  for (const cache::LayoutComponent& component : layout.components) {
    if (component.scope != spoiled.scope) continue;
    const auto bytes = item.staging->bytes.subspan(at, component.bytes());
    if (component.name == spoiled.name) {
      std::rotate(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(bytes.size() / 8 * 4),
                  bytes.end());
      item.parts[part].xxh3 = Checksum(bytes);
    }
    at += component.bytes();
    ++part;
  }
}

TEST(Verify, EveryComponentOfTheLayoutThatIsWrongIsFoundAndNamed) {
  const cache::LayoutDescriptor layout =
      SmallModel().layout->Descriptor(SmallModel().weights_identity);
  ASSERT_NE(layout.part_bytes(cache::LayoutScope::kPrefix).size(),
            layout.part_bytes(cache::LayoutScope::kTrailing).size());
  for (const cache::LayoutComponent& component : layout.components) {
    SCOPED_TRACE(component.name);
    const Daemon daemon;
    auto api = Wrap(daemon);
    api->on_commit = [&](cache::CommitItem& item) { Spoil(item, layout, component); };
    Verifier verifier(std::move(api));
    const VerifyFigures& f = verifier.Add(Prompt(400));
    EXPECT_EQ(f.missed, 0);
    EXPECT_EQ(f.checksum_failures, 0u);
    ASSERT_GT(f.differing, 0);
    for (const Difference& difference : verifier.pairs.differences()) {
      EXPECT_EQ(difference.first.component, component.name);
    }
  }
}

class RestoredTwice : public testing::Test {
 protected:
  void SetUp() override {
    Engine(daemon_.Connect()).Run(prompt_);
    for (SessionState* session : {&cold_, &warm_}) {
      PrefixCache cache(daemon_.Connect(), SmallModel().cached(), RealClock(), Verifier::Options());
      ASSERT_EQ(cache.Resume(prompt_, *session).prefix_tokens, 256);
      ASSERT_TRUE(cache.Settle(*session));
    }
    ASSERT_FALSE(FirstStateDifference(cold_, warm_, SmallModel()).has_value());
  }
  const std::vector<int32_t> prompt_ = Prompt(300);
  const Daemon daemon_;
  Forward forward_{SmallModel(), 1};
  SessionState cold_{SmallModel().config, *SmallModel().layout};
  SessionState warm_{SmallModel().config, *SmallModel().layout};
};

TEST_F(RestoredTwice, TheSameStateGivesTheSameStreams) {
  const auto found = FirstStreamDifference(forward_, std::span(prompt_).subspan(256), cold_, warm_);
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->has_value());
}

TEST_F(RestoredTwice, AnOpenGroupThatShouldBeEmptyIsFound) {
  warm_.layer(3).main.partial.kv.push_back(1);
  const auto found = FirstStateDifference(cold_, warm_, SmallModel());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->component, "layer.3.partial");
  EXPECT_EQ(found->position, 256);
}

TEST_F(RestoredTwice, TheFirstLayerWhoseStreamsDifferIsNamed) {
  for (uint8_t& byte : warm_.layer(3).window.bytes()) byte = static_cast<uint8_t>(byte ^ 1);
  const auto found = FirstStreamDifference(forward_, std::span(prompt_).subspan(256), cold_, warm_);
  ASSERT_TRUE(found.ok());
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->component, "layer.3.streams");
  EXPECT_EQ((*found)->position, 256);
}

TEST(Verify, TheVerdictIsAnExitStatus) {
  EXPECT_EQ(Verdict({.pairs = 3, .equal = 2, .missed = 1}), kExitOk);
  EXPECT_EQ(Verdict({.pairs = 3, .equal = 2, .differing = 1}), kExitMismatch);
  EXPECT_EQ(Verdict({.pairs = 3, .missed = 2, .taken_back = 1}), kExitFailure);
}

absl::StatusOr<std::vector<FilePrompt>> Read(const std::string& text) {
  const std::string path = testing::TempDir() + "prompts." + std::to_string(getpid());
  std::ofstream(path) << text;
  auto prompts = ReadPromptsFile(path, ByteTokenizer(256));
  std::filesystem::remove(path);
  return prompts;
}

TEST(PromptsFile, LinesAreTextsOrJson) {
  const auto prompts = Read("ab\n\n{\"prompt\": \"c\\nd\"}\r\n{\"prompt\": [7, 255]}\nlast");
  ASSERT_TRUE(prompts.ok()) << prompts.status();
  ASSERT_EQ(prompts->size(), 4u);
  EXPECT_EQ((*prompts)[0].tokens, (std::vector<int32_t>{'a', 'b'}));
  EXPECT_EQ((*prompts)[1].tokens, (std::vector<int32_t>{'c', '\n', 'd'}));
  EXPECT_EQ((*prompts)[1].line, 3u);
  EXPECT_EQ((*prompts)[2].tokens, (std::vector<int32_t>{7, 255}));
  EXPECT_EQ((*prompts)[3].line, 5u);
}

TEST(PromptsFile, WhatIsNoPromptIsRefusedByItsLine) {
  for (const char* line : {"{", "{}", "{\"prompt\": 1}", "{\"prompt\": [1, -1]}",
                           "{\"prompt\": [1.5]}", "{\"prompt\": [9999999999]}"}) {
    const auto prompts = Read(std::string("good\n") + line);
    EXPECT_TRUE(absl::IsInvalidArgument(prompts.status())) << line;
    EXPECT_NE(std::string(prompts.status().message()).find("line 2"), std::string::npos)
        << prompts.status();
  }
  EXPECT_TRUE(absl::IsInvalidArgument(Read("\n\n").status()));
  EXPECT_TRUE(absl::IsNotFound(ReadPromptsFile("/nowhere", ByteTokenizer(256)).status()));
}

}  // namespace
}  // namespace cairn::engine
