// Goal: whatever lies where, and whoever holds it, what a departure takes from disk leaves nothing
// there that stands on what is gone, takes nothing that is held, leaves no more than may be moved,
// and takes the least worth first. Method: single rules by example; random trees, segments, holds
// and uses, with the law of eviction written a second time.
#include "cache/core/departure.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <tuple>

#include "store/base/limits.h"
#include "store/base/random.h"

namespace cairn::cache {
namespace {

constexpr EntryKind kRows = EntryKind::kRows, kCheckpoint = EntryKind::kCheckpoint;
constexpr EntryKind kKinds[] = {kRows, kCheckpoint};
constexpr size_t kHost = 0, kDisk = 1;
constexpr uint32_t kBytes = 3 * kIoAlignment;
constexpr uint64_t kRecordBytes = kBytes + kIoAlignment;

Digest Named(uint32_t n) {
  Digest d;
  std::memcpy(d.bytes.data(), &n, sizeof(n));
  d.bytes[31] = 1;
  return d;
}
const Digest kRoot = Named(0xffffffff);

// A tree of blocks with two entries each, and who may go.
class DepartureTest : public testing::Test {
 protected:
  void Add(uint32_t n, uint32_t parent) {
    const Block* above = parent == 0 ? nullptr : index_.Find(Named(parent));
    index_.Add(Named(n), {kRoot, parent == 0 ? kRoot : Named(parent),
                          above == nullptr ? 0 : above->index + 1});
  }
  EntryRef Ref(uint32_t n, EntryKind kind = kRows) { return {index_.Find(Named(n)), kind}; }
  void Store(EntryRef ref, Place place = Place::kDisk) {
    ref->bytes = kBytes;
    index_.SetPresent(ref, place, true);
  }
  static store::DiskSegment Segment(uint64_t records) {
    return {.id = 1,
            .bytes = records * kRecordBytes,
            .live_bytes = records * kRecordBytes,
            .live_records = records};
  }

  FakeClock clock_;
  SeededRandom random_{5};
  PrefixIndex index_{clock_, {.resumes_without_checkpoint = true, .random = &random_}};
};

TEST_F(DepartureTest, WhatIsUsedStaysAndTheRestGoes) {
  constexpr uint32_t kCount = 20;
  std::vector<EntryRef> here;
  for (uint32_t n = 1; n <= kCount; ++n) Add(n, 0), Store(Ref(n)), here.push_back(Ref(n));
  for (int use = 0; use < 3; ++use) index_.Touch(Ref(7)), index_.Touch(Ref(13));
  const auto departure = PlanDeparture(index_, Segment(kCount), here);
  ASSERT_TRUE(departure.has_value());
  std::set<Digest> leaving;
  for (const EntryRef ref : departure->leaving) leaving.insert(ref.block->digest);
  EXPECT_GE(leaving.size(), kCount - kCount / 5);
  EXPECT_FALSE(leaving.contains(Named(7)));
  EXPECT_FALSE(leaving.contains(Named(13)));
  EXPECT_GT(departure->lost_per_byte, 0);
}

TEST_F(DepartureTest, AnEntryIsWorthWhatStandsOnIt) {
  for (uint32_t n = 1; n <= 12; ++n) Add(n, 0), Store(Ref(n));
  Add(100, 1), Store(Ref(100));  // elsewhere
  for (int use = 0; use < 5; ++use) index_.Touch(Ref(100));
  std::vector<EntryRef> here;
  for (uint32_t n = 1; n <= 12; ++n) here.push_back(Ref(n));
  const auto departure = PlanDeparture(index_, Segment(12), here);
  ASSERT_TRUE(departure.has_value());
  EXPECT_EQ(std::count(departure->leaving.begin(), departure->leaving.end(), Ref(1)), 0);
  // If it goes nevertheless, what stands on it goes first.
  EXPECT_EQ(WithAllBelow(index_, {here.data(), 1}), (std::vector<EntryRef>{Ref(100), Ref(1)}));
}

TEST_F(DepartureTest, ASegmentOfHeldEntriesStays) {
  std::vector<EntryRef> here;
  for (uint32_t n = 1; n <= 8; ++n) Add(n, 0), Store(Ref(n)), here.push_back(Ref(n));
  for (uint32_t n = 1; n <= 2; ++n) index_.AddLease(Ref(n), 1);
  EXPECT_FALSE(PlanDeparture(index_, Segment(8), here).has_value());
  index_.AddLease(Ref(2), -1);
  const auto departure = PlanDeparture(index_, Segment(8), here);
  ASSERT_TRUE(departure.has_value());
  EXPECT_EQ(departure->leaving.size(), 7u);
  // What lives there unknown to the index counts as held.
  EXPECT_FALSE(PlanDeparture(index_, Segment(9), here).has_value());
}

TEST_F(DepartureTest, WhatHasTooMuchBelowItStays) {
  constexpr uint32_t kDepth = 10'000;
  for (uint32_t n = 1; n <= kDepth; ++n) Add(n, n - 1), Store(Ref(n));
  std::vector<EntryRef> here = {Ref(1), Ref(kDepth)};
  store::DiskSegment segment = Segment(2);
  segment.bytes = 10 * kRecordBytes;
  const auto departure = PlanDeparture(index_, segment, here);
  ASSERT_TRUE(departure.has_value());
  EXPECT_EQ(std::count(departure->leaving.begin(), departure->leaving.end(), Ref(1)), 0);
}

class RandomDepartures : public DepartureTest {
 protected:
  static constexpr uint32_t kBlocks = 60, kSegments = 4;

  void MakeWorld() {
    parents_.assign(kBlocks + 1, 0);
    for (uint32_t n = 1; n <= kBlocks; ++n) {
      if (random_.Next() % 8 != 0) parents_[n] = static_cast<uint32_t>(random_.Next() % n);
      Add(n, parents_[n]);
      const auto stands = [&](EntryKind kind, size_t at) {
        const uint32_t on = kind == kRows ? parents_[n] : n;
        return on == 0 || Ref(on)->in[at];
      };
      for (const EntryKind kind : kKinds) {
        if (kind == kCheckpoint && random_.Next() % 3 != 0) continue;
        if (stands(kind, kDisk) && random_.Next() % 10 != 0) Store(Ref(n, kind));
        if (stands(kind, kHost) && random_.Next() % 4 == 0) Store(Ref(n, kind), Place::kHost);
        if (!Ref(n, kind)->present()) continue;
        segment_of_[{n, kind}] = static_cast<uint32_t>(random_.Next() % kSegments);
        switch (random_.Next() % 30) {
          case 0:
            index_.AddLease(Ref(n, kind), 1);
            break;
          case 1:
            index_.AddHold(Ref(n, kind), 1);
            break;
          case 2:
            index_.AddPin(Ref(n, kind), 1);
            break;
          case 3:
            index_.Await(Named(n), 1);
            awaited_.insert(n);
            break;
          default:
            break;
        }
      }
    }
    for (int use = 0; use < 100; ++use) {
      const EntryRef ref = Ref(static_cast<uint32_t>(random_.Next() % kBlocks) + 1);
      if (ref->present()) index_.Touch(ref);
    }
  }
  std::vector<EntryRef> In(uint32_t segment) {
    std::vector<EntryRef> here;
    for (uint32_t n = 1; n <= kBlocks; ++n) {
      for (const EntryKind kind : kKinds) {
        const EntryRef ref = Ref(n, kind);
        if (ref->in[kDisk] && segment_of_.at({n, kind}) == segment) here.push_back(ref);
      }
    }
    return here;
  }
  // What an entry needs below it, by the law.
  void CheckLaw() {
    for (uint32_t n = 1; n <= kBlocks; ++n) {
      for (const EntryKind kind : kKinds) {
        const uint32_t on = kind == kRows ? parents_[n] : n;
        if (on == 0) continue;
        const EntryRef ref = Ref(n, kind), below = Ref(on);
        ASSERT_TRUE(!ref->in[kDisk] || below->in[kDisk]) << n;
        ASSERT_TRUE(!ref->present() || below->present()) << n;
      }
      // What somebody builds on is not lost.
      ASSERT_TRUE(!awaited_present_.contains(n) || Ref(n)->present()) << n;
    }
  }

  std::vector<uint32_t> parents_;
  std::map<std::pair<uint32_t, EntryKind>, uint32_t> segment_of_;
  std::set<uint32_t> awaited_, awaited_present_;
};

class RandomDeparturesSeeded : public RandomDepartures, public testing::WithParamInterface<int> {};

TEST_P(RandomDeparturesSeeded, KeepTheLaw) {
  for (int skip = 0; skip < GetParam(); ++skip) random_.Next();
  MakeWorld();
  for (const uint32_t n : awaited_) {
    if (Ref(n)->present()) awaited_present_.insert(n);
  }
  CheckLaw();
  size_t left = 0;
  for (int round = 0; round < 20; ++round) {
    const auto segment = static_cast<uint32_t>(random_.Next() % kSegments);
    const std::vector<EntryRef> here = In(segment);
    if (here.empty()) continue;
    const store::DiskSegment size = Segment(here.size() + random_.Next() % 8);
    const auto departure = PlanDeparture(
        index_,
        {.id = 1, .bytes = size.bytes, .live_bytes = here.size() * kRecordBytes, .live_records = 0},
        here);
    if (!departure.has_value()) continue;
    const std::vector<EntryRef> all = WithAllBelow(index_, departure->leaving);
    std::set<EntryKey> gone;
    for (const EntryRef ref : all) {
      ASSERT_TRUE(ref->in[kDisk]);
      ASSERT_FALSE(ref->held());
      ASSERT_TRUE(gone.insert(ref.key()).second);
      index_.SetPresent(ref, Place::kDisk, false, true);
      ++left;
      CheckLaw();  // after each: children go before parents
    }
    for (const EntryRef ref : departure->leaving) ASSERT_TRUE(gone.contains(ref.key()));
    ASSERT_LE(In(segment).size() * kRecordBytes, store::DiskTier::MovedBytesMax(size.bytes));
  }
  if (left == 0) GTEST_SKIP() << "in this world all of it is held";
}

INSTANTIATE_TEST_SUITE_P(Worlds, RandomDeparturesSeeded, testing::Range(0, 200));

}  // namespace
}  // namespace cairn::cache
