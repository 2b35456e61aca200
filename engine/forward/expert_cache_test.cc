// The cache with experts that are made instead of read. Each is a matrix of one value, its name, so
// that whoever takes an expert sees whether it is the one; the maker sees how many are made at
// once, where, and whether one is made in place of the one in use.
#include "engine/forward/expert_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <latch>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <utility>

namespace cairn::engine {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kExperts = 8;

float NameOf(int64_t layer, int64_t expert) {
  return static_cast<float>(layer * kExperts + expert);
}

float NameIn(const ExpertOp& expert) {
  float name = 0;
  std::memcpy(&name, expert.w1.w.panel(0), sizeof(name));
  return name;
}

struct Maker {
  // Called for each expert before it is made.
  std::function<absl::Status(int64_t layer, int64_t expert)> before = [](int64_t, int64_t) {
    return absl::OkStatus();
  };
  std::mutex mutex;
  std::vector<float> made;          // in order
  std::set<const ExpertOp*> where;  // all places ever
  const ExpertOp* in_use = nullptr;
  bool overwritten = false;

  ExpertCache::Load Load() {
    return [this](int64_t layer, int64_t expert, ReadRoom&,
                  ExpertOp& into) -> absl::StatusOr<uint64_t> {
      {
        const std::lock_guard<std::mutex> lock(mutex);
        made.push_back(NameOf(layer, expert));
        where.insert(&into);
        overwritten |= &into == in_use;
      }
      CAIRN_RETURN_IF_ERROR(before(layer, expert));
      const float name = NameOf(layer, expert);
      uint8_t bytes[sizeof(name)];
      std::memcpy(bytes, &name, sizeof(name));
      into.w1.w.Pack({kernels::WeightFormat::kF32, 1, 1, bytes, nullptr}, 0, 1);
      return sizeof(name);
    };
  }
  void SetInUse(const ExpertOp* expert) {
    const std::lock_guard<std::mutex> lock(mutex);
    in_use = expert;
  }
};

// A step: takes all, and sees that each is the one asked for.
absl::Status Step(ExpertCache& cache, Maker& maker, int64_t layer, std::vector<int32_t> wanted) {
  ExpertCache::Use use(cache, layer, wanted);
  for (const int32_t expert : wanted) {
    maker.SetInUse(nullptr);
    CAIRN_ASSIGN_OR_RETURN(const ExpertOp* taken, use.Next());
    maker.SetInUse(taken);
    EXPECT_EQ(NameIn(*taken), NameOf(layer, expert));
  }
  maker.SetInUse(nullptr);
  return absl::OkStatus();
}

std::vector<int32_t> All() {
  std::vector<int32_t> all(kExperts);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

TEST(ExpertCache, GivesTheExpertsAskedForInNoMorePlacesThanThereAre) {
  for (const int64_t places : {1, 2, 5, 20}) {
    Maker maker;
    ExpertCache cache({.layers = 3, .experts = kExperts, .places = places, .readers = 3},
                      maker.Load());
    std::mt19937 random(static_cast<uint32_t>(places));
    for (int step = 0; step < 300; ++step) {
      std::vector<int32_t> wanted = All();
      std::erase_if(wanted, [&](int32_t) { return random() % 3 == 0; });
      ASSERT_TRUE(Step(cache, maker, step % 3, wanted).ok());
    }
    EXPECT_FALSE(maker.overwritten) << "an expert in use was given up";
    EXPECT_LE(std::ssize(maker.where), places);
    const ExpertStats stats = cache.stats();
    EXPECT_EQ(stats.reads, maker.made.size());
    EXPECT_EQ(stats.evictions, stats.reads - static_cast<uint64_t>(places));
    EXPECT_EQ(stats.read_bytes, stats.reads * sizeof(float));
  }
}

TEST(ExpertCache, MissingExpertsAreReadTogether) {
  Maker maker;
  std::latch all_three(3);
  maker.before = [&](int64_t, int64_t) {
    all_three.arrive_and_wait();
    return absl::OkStatus();
  };
  ExpertCache cache({.layers = 1, .experts = kExperts, .places = 3, .readers = 3}, maker.Load());
  EXPECT_TRUE(Step(cache, maker, 0, {2, 4, 6}).ok());
}

TEST(ExpertCache, ReadsInTheOrderOfTakingAndTakesItsOwnLast) {
  Maker maker;
  ExpertCache cache({.layers = 1, .experts = kExperts, .places = 2, .readers = 1}, maker.Load());
  ASSERT_TRUE(Step(cache, maker, 0, {6, 7}).ok());
  // For 0 goes the one that is needed last; for 1 then there is but 6's place or 0's, which is
  // over.
  ASSERT_TRUE(Step(cache, maker, 0, {0, 6, 7}).ok());
  EXPECT_THAT(maker.made, ElementsAre(6, 7, 0, 7));
  const ExpertStats stats = cache.stats();
  EXPECT_EQ(stats.hits, 1u);
  EXPECT_EQ(stats.misses, 4u);
}

TEST(ExpertCache, AFailedReadEndsTheStepAndNoOther) {
  Maker maker;
  bool broken = true;
  maker.before = [&](int64_t, int64_t expert) {
    return expert == 5 && broken ? absl::UnavailableError("the device is gone") : absl::OkStatus();
  };
  ExpertCache cache({.layers = 2, .experts = kExperts, .places = 4, .readers = 2}, maker.Load());
  EXPECT_TRUE(absl::IsUnavailable(Step(cache, maker, 1, {1, 5, 6})));
  EXPECT_TRUE(Step(cache, maker, 1, {1, 6}).ok());
  EXPECT_TRUE(absl::IsUnavailable(Step(cache, maker, 1, {5})));
  broken = false;
  EXPECT_TRUE(Step(cache, maker, 1, {1, 5, 6}).ok());
}

// A step is over while its read of expert 2 is under way; that fails when it is let go on.
struct LateFailure {
  LateFailure() {
    maker.before = [this](int64_t, int64_t expert) {
      if (expert != 2 || ++reads > 1) return absl::OkStatus();
      begun.count_down();
      go_on.wait();
      return absl::UnavailableError("the device is gone");
    };
    ExpertCache::Use use(cache, 0, {1, 2});
    EXPECT_TRUE(use.Next().ok());
    begun.wait();
  }
  Maker maker;
  std::latch begun{1}, go_on{1};
  std::atomic<int> reads = 0;
  ExpertCache cache{{.layers = 1, .experts = kExperts, .places = 3, .readers = 2}, maker.Load()};
};

TEST(ExpertCache, AReadThatFailsAfterItsStepIsNobodys) {
  LateFailure late;
  ExpertCache::Use use(late.cache, 0, {3, 4});
  ASSERT_TRUE(use.Next().ok());
  late.go_on.count_down();
  EXPECT_TRUE(use.Next().ok());
  EXPECT_EQ(late.reads, 1);
}

// The next step wants what the read is at: that it fails is not this step's.
TEST(ExpertCache, AReadThatFailsAfterItsStepIsDoneAgainForTheNext) {
  LateFailure late;
  ExpertCache::Use use(late.cache, 0, {1, 2, 4});
  ASSERT_TRUE(use.Next().ok());
  late.go_on.count_down();
  for (const int32_t expert : {2, 4}) {
    const auto taken = use.Next();
    ASSERT_TRUE(taken.ok()) << taken.status();
    EXPECT_EQ(NameIn(**taken), NameOf(0, expert));
  }
  EXPECT_EQ(late.reads, 2);
}

TEST(ExpertCache, WithPlacesForAllNothingIsReadTwice) {
  Maker maker;
  ExpertCache cache({.layers = 3, .experts = kExperts, .places = 3 * kExperts, .readers = 2},
                    maker.Load());
  ASSERT_TRUE(cache.LoadAll().ok());
  for (int64_t layer : {0, 1, 2, 0}) ASSERT_TRUE(Step(cache, maker, layer, All()).ok());
  const ExpertStats stats = cache.stats();
  EXPECT_EQ(stats.reads, 3u * kExperts);
  EXPECT_EQ(stats.misses, 0u);
  EXPECT_EQ(stats.hits, 4u * kExperts);
  EXPECT_EQ(stats.evictions, 0u);
}

TEST(ExpertCache, LoadAllSaysWhatItCouldNotRead) {
  Maker maker;
  maker.before = [](int64_t layer, int64_t) {
    return layer == 1 ? absl::DataLossError("cut") : absl::OkStatus();
  };
  ExpertCache cache({.layers = 3, .experts = kExperts, .places = 3 * kExperts, .readers = 2},
                    maker.Load());
  EXPECT_TRUE(absl::IsDataLoss(cache.LoadAll()));
}

TEST(ExpertCache, StepsOfTwoThreadsTakeTurns) {
  Maker maker;
  ExpertCache cache({.layers = 2, .experts = kExperts, .places = 3, .readers = 2}, maker.Load());
  const auto steps = [&](int64_t layer) {
    for (int i = 0; i < 200; ++i) {
      ExpertCache::Use use(cache, layer, All());
      for (const int32_t expert : All()) {
        const absl::StatusOr<const ExpertOp*> taken = use.Next();
        ASSERT_TRUE(taken.ok());
        EXPECT_EQ(NameIn(**taken), NameOf(layer, expert));
      }
    }
  };
  std::thread other([&] { steps(1); });
  steps(0);
  other.join();
}

// ---- what stays ----

constexpr int64_t kLayers = 8;

struct Rig {
  Maker maker;
  ExpertCache cache{
      {.layers = kLayers, .experts = kExperts, .places = kLayers * kExperts / 2, .readers = 1},
      maker.Load()};

  // Steps of all layers; the share of experts that were there.
  double Rounds(int rounds, const std::function<std::vector<int32_t>(int64_t layer)>& wanted) {
    const ExpertStats before = cache.stats();
    for (int round = 0; round < rounds; ++round) {
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        EXPECT_TRUE(Step(cache, maker, layer, wanted(layer)).ok());
      }
    }
    const ExpertStats after = cache.stats();
    const auto hits = static_cast<double>(after.hits - before.hits);
    return hits / (hits + static_cast<double>(after.misses - before.misses));
  }
};

TEST(ExpertPolicy, GoingOverMoreThanFitsFindsWhatFits) {
  Rig rig;
  rig.Rounds(1, [](int64_t) { return All(); });
  // The least recently used would find none.
  EXPECT_GE(rig.Rounds(10, [](int64_t) { return All(); }), 0.4);
}

TEST(ExpertPolicy, TheLikelyStayAndALongPromptDoesNotDriveThemOut) {
  Rig rig;
  std::mt19937 random(7);
  // Two experts of a layer, of which each takes one of its own four in nine cases of ten.
  const auto decoding = [&](int64_t layer) {
    const auto pick = [&](int32_t first) {
      return random() % 10 == 0 ? static_cast<int32_t>(random() % 4) * 2 + first
                                : static_cast<int32_t>(layer % 4) * 2 + first;
    };
    return std::vector<int32_t>{pick(0) & ~1, pick(1) | 1};
  };
  const auto ascending = [&](int64_t layer) {
    std::vector<int32_t> wanted = decoding(layer);
    std::sort(wanted.begin(), wanted.end());
    return wanted;
  };
  rig.Rounds(50, ascending);
  EXPECT_GE(rig.Rounds(50, ascending), 0.9);
  rig.Rounds(3, [](int64_t) { return All(); });
  EXPECT_GE(rig.Rounds(3, ascending), 0.85);
}

}  // namespace
}  // namespace cairn::engine
