// Models whose experts do not all fit: the same bits as with all in memory, whatever the cache
// holds; and what a step and a load say when the disk or the memory is not enough.
#include "engine/forward/expert_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "engine/forward/test_models.h"
#include "store/device/faulty_file_system.h"
#include "store/device/uring_file_system.h"

namespace cairn::engine {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<Model>> PackWith(const Mode& mode, std::optional<uint64_t> bytes,
                                                store::FileSystem* files = nullptr) {
  return PackModel(MadeWeights(mode.format), {.numerics = mode.numerics,
                                              .rope_rows = mode.rope_rows,
                                              .expert_bytes = bytes,
                                              .files = files});
}

std::unique_ptr<ExpertFiles> FilesOf(const Mode& mode) {
  auto files = ExpertFiles::Open(nullptr, MadeWeights(mode.format), mode.numerics);
  EXPECT_TRUE(files.ok()) << files.status();
  return *std::move(files);
}

uint64_t BytesFor(const Mode& mode, uint64_t experts) {
  const std::unique_ptr<ExpertFiles> files = FilesOf(mode);
  return kExpertReaders * files->room_bytes() + experts * files->packed_bytes();
}

class Streaming : public testing::TestWithParam<Mode> {};

TEST_P(Streaming, GivesTheSameBits) {
  const std::vector<int32_t> tokens = RandomTokens(170, 4);
  const Outcome expected = RunFresh(ModelOf(GetParam()), tokens, 100);
  const ExpertStats all = ModelOf(GetParam()).experts->stats();
  EXPECT_EQ(all.places, all.experts);
  EXPECT_EQ(all.misses, 0u);
  for (const uint64_t experts : {2u, 7u, 13u}) {
    auto model = PackWith(GetParam(), BytesFor(GetParam(), experts));
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(RunFresh(**model, tokens, 100, 2), expected) << experts;
    EXPECT_EQ(RunFresh(**model, tokens, 7), expected) << experts;
    const ExpertStats stats = (*model)->experts->stats();
    EXPECT_EQ(stats.places, experts);
    EXPECT_GT(stats.evictions, 0u);
  }
}

TEST_P(Streaming, PackedIsWhatWasCounted) {
  const std::unique_ptr<ExpertFiles> files = FilesOf(GetParam());
  ReadRoom room;
  ExpertOp expert;
  ASSERT_TRUE(files->Load(files->layers() - 1, 1, room, expert).ok());
  EXPECT_EQ(expert.w1.w.bytes() + expert.w2.w.bytes() + expert.w3.w.bytes(),
            static_cast<int64_t>(files->packed_bytes()));
  EXPECT_EQ(room.Take(1).size(), files->room_bytes());
}

INSTANTIATE_TEST_SUITE_P(Modes, Streaming, testing::Values(kModes[0], kModes[3], kModes[4]),
                         [](const auto& mode) { return std::string(mode.param.name); });

// The machine's files until Break.
struct Breakable {
  store::UringFileSystem machine;
  store::FaultyFileSystem files{machine};
  void Break() {
    files.SetPlan({.fail_at = 1,
                   .status = absl::UnavailableError("the device is gone"),
                   .fail_for_ever = true});
  }
  void Mend() { files.SetPlan({}); }
};

TEST(StreamingFailure, AStepWhoseExpertsCannotBeReadFailsAndTheNextDoesNot) {
  Breakable disk;
  auto model = PackWith(kModes[3], BytesFor(kModes[3], 2), &disk.files);
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<int32_t> tokens = RandomTokens(40, 4);
  const Outcome expected = RunFresh(ModelOf(kModes[3]), tokens, 40);
  Forward forward(**model, 2);
  SessionState session((*model)->config, *(*model)->layout);
  StepItem item;
  item.session = &session;
  item.tokens = tokens;
  disk.Break();
  const absl::Status status = forward.Run({&item, 1});
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("of layer 0"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
  disk.Mend();
  SessionState fresh((*model)->config, *(*model)->layout);
  Outcome outcome;
  Continue(forward, fresh, tokens, 40, outcome);
  EXPECT_EQ(outcome, expected);
}

TEST(StreamingFailure, ADraftThatFailsLeavesItsSessionAsItWas) {
  Breakable disk;
  auto model = PackWith(kModes[3], BytesFor(kModes[3], 2), &disk.files);
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<int32_t> tokens = RandomTokens(90, 4);
  const Outcome expected = RunFresh(ModelOf(kModes[3]), tokens, 90);
  Forward forward(**model, 2);
  SessionState session((*model)->config, *(*model)->layout);
  Outcome outcome;
  Continue(forward, session, std::span(tokens).first(60), 30, outcome);
  DraftItem draft{&session, tokens[60], {}};
  disk.Break();
  EXPECT_TRUE(absl::IsUnavailable(forward.Draft({&draft, 1})));
  disk.Mend();
  Continue(forward, session, std::span(tokens).subspan(60), 1, outcome);
  EXPECT_EQ(outcome, expected);
}

TEST(StreamingFailure, LoadingSaysWhatItCouldNotRead) {
  Breakable disk;
  disk.Break();
  const auto model = PackWith(kModes[3], std::nullopt, &disk.files);
  EXPECT_TRUE(absl::IsUnavailable(model.status())) << model.status();
}

// ---- how many ----

absl::StatusOr<int64_t> Places(const ExpertBudget& budget) {
  return ExpertPlaces(*FilesOf(kModes[3]), 2, budget);
}

TEST(ExpertPlacesTest, AreAsManyAsWasAskedFor) {
  const std::unique_ptr<ExpertFiles> files = FilesOf(kModes[3]);
  EXPECT_EQ(Places({.asked = BytesFor(kModes[3], 5)}).value(), 5);
  EXPECT_EQ(Places({.asked = BytesFor(kModes[3], 6) - 1}).value(), 5);
  EXPECT_EQ(Places({.asked = 1ull << 40}).value(), files->layers() * files->experts());
  const absl::Status little = Places({.asked = BytesFor(kModes[3], 2) - 1}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(little)) << little;
  EXPECT_THAT(std::string(little.message()), HasSubstr(absl::StrCat(BytesFor(kModes[3], 2))));
}

TEST(ExpertPlacesTest, AreOtherwiseWhatIsLeft) {
  const uint64_t five = (BytesFor(kModes[3], 5) + 6) / 7 * 8;  // an eighth stays free
  constexpr uint64_t kGiB = 1ull << 30;
  EXPECT_EQ(Places({.available = kGiB + five, .dense = kGiB}).value(), 5);
  EXPECT_EQ(Places({.available = 3 * kGiB, .dense = kGiB}).value(), 20);
  EXPECT_EQ(Places({.available = 2 * kGiB + five, .dense = kGiB, .reserved = kGiB}).value(), 20)
      << "half is theirs in any case";
  EXPECT_EQ(Places({.available = kGiB + 2 * five, .dense = kGiB, .reserved = 4 * kGiB}).value(), 5);
  const absl::Status little = Places({.available = kGiB, .dense = kGiB}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(little)) << little;
  EXPECT_THAT(std::string(little.message()), HasSubstr("--expert-cache"));
}

}  // namespace
}  // namespace cairn::engine
