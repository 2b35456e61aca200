// Goal: what is acknowledged is read back bit for bit or not at all; room is accounted exactly.
// Method: the tier on a memory file system and a memory catalog; bytes damaged behind its back.
#include "store/tier/disk_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>

#include "store/segment/record_format.h"
#include "store/tier/tier_test_util.h"

namespace cairn::store {
namespace {

using ::testing::HasSubstr;
using ::testing::IsSubsetOf;

std::vector<TestEntry> Entries(uint64_t first, uint64_t count) {
  std::vector<TestEntry> entries;
  for (uint64_t i = first; i < first + count; ++i) entries.push_back(MakeEntry(i));
  return entries;
}

TEST(DiskTierTest, PutsFindsAndReadsBack) {
  TestDisk disk;
  const auto tier = disk.Open();
  const std::vector<TestEntry> entries = Entries(0, 20);
  ASSERT_TRUE(PutAll(*tier, entries).ok());
  for (const TestEntry& entry : entries) {
    EXPECT_TRUE(tier->Contains(entry.meta.key));
    const auto found = tier->Find(entry.meta.key);
    ASSERT_TRUE(found.ok() && found->has_value());
    EXPECT_EQ((*found)->attributes, entry.meta.attributes);
    EXPECT_TRUE(ReadBack(*tier, entry).ok());
  }
  EXPECT_FALSE(tier->Contains(TestKey(99)));
  EXPECT_EQ(ReadBack(*tier, MakeEntry(99)).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(tier->stats().entries, 20u);
  EXPECT_EQ(tier->stats().live_bytes, 20 * RecordBytes(entries[0].meta));
  uint64_t seen = 0;
  ASSERT_TRUE(tier->ForEach([&](const EntryMeta&) { return ++seen < 7; }).ok());
  EXPECT_EQ(seen, 7u);
}

TEST(DiskTierTest, KeepsTheTailBeyondThePayloadAsGiven) {
  TestDisk disk;
  const auto tier = disk.Open();
  TestEntry entry = MakeEntry(1, {100});
  entry.payload.bytes()[4000] = 0x5a;
  ASSERT_TRUE(tier->Put({{entry.put()}}).ok());
  EXPECT_TRUE(ReadBack(*tier, entry).ok());
}

TEST(DiskTierTest, SkipsWhatIsThereAlready) {
  TestDisk disk;
  const auto tier = disk.Open();
  const TestEntry entry = MakeEntry(1);
  const std::vector<DiskPut> twice = {entry.put(), entry.put()};
  ASSERT_TRUE(tier->Put(twice).ok());
  ASSERT_TRUE(tier->Put(twice).ok());
  EXPECT_EQ(tier->stats().entries, 1u);
  EXPECT_EQ(tier->stats().live_bytes, RecordBytes(entry.meta));
}

TEST(DiskTierTest, RefusesWhatIsWrongByName) {
  TestDisk disk;
  const auto tier = disk.Open();
  TestEntry entry = MakeEntry(1);
  const auto put = [&](const DiskPut& p) { return tier->Put({{p}}); };
  EXPECT_EQ(put({.meta = &entry.meta, .payload = entry.payload.bytes().first(4096)}).code(),
            absl::StatusCode::kInvalidArgument);
  entry.payload.bytes()[17] ^= 1;
  const absl::Status damaged = put(entry.put());
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("part 0"));
  entry.meta.attributes.assign(kAttributesBytesMax + 1, 'x');
  EXPECT_THAT(std::string(put(entry.put()).message()), HasSubstr("attributes"));
  EXPECT_EQ(tier->stats().entries, 0u);
  const TestEntry sound = MakeEntry(2);
  ASSERT_TRUE(put(sound.put()).ok());
  IoBuffer small(4096);
  DiskRead read{.key = sound.meta.key, .destination = small.bytes(), .status = {}, .meta = {}};
  tier->ReadBatch({&read, 1});
  EXPECT_EQ(read.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(tier->Contains(sound.meta.key));
}

TEST(DiskTierTest, ADeviceErrorIsUnavailableAndTheEntryStays) {
  TestDisk disk;
  const auto tier = disk.Open();
  const TestEntry entry = MakeEntry(1);
  ASSERT_TRUE(tier->Put({{entry.put()}}).ok());
  disk.files.SetPlan({.fail_at = 1, .status = absl::UnavailableError("EIO")});
  EXPECT_EQ(ReadBack(*tier, entry).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ReadBack(*tier, entry).ok());
  EXPECT_EQ(tier->stats().checksum_failures, 0u);
}

TEST(DiskTierTest, ErasedIsGoneAlsoAfterReopening) {
  TestDisk disk;
  {
    const auto tier = disk.Open();
    ASSERT_TRUE(PutAll(*tier, Entries(0, 3)).ok());
    const EntryKey keys[] = {TestKey(1), TestKey(1), TestKey(2), TestKey(50)};
    ASSERT_TRUE(tier->Erase(keys).ok());
    EXPECT_EQ(tier->stats().entries, 1u);
  }
  const auto tier = disk.Open();
  EXPECT_TRUE(ReadBack(*tier, MakeEntry(0)).ok());
  EXPECT_FALSE(tier->Contains(TestKey(1)));
  EXPECT_FALSE(tier->Contains(TestKey(2)));
  EXPECT_EQ(tier->stats().entries, 1u);
  EXPECT_EQ(disk.report.adopted_entries, 0u);
}

TEST(DiskTierTest, NeverExceedsItsCapacityAndTakesAgainAfterErasing) {
  TestDisk disk;
  disk.capacity_bytes = 8ull << 20;
  const auto tier = disk.Open();
  const uint64_t count = Fill(*tier, disk, 0);
  EXPECT_GT(count, 90u);  // of 8 MiB, 7 are for puts
  for (uint64_t i = 0; i < count; ++i) EXPECT_TRUE(ReadBack(*tier, MakeEntry(i, {60'000})).ok());
  // The oldest third goes: whole segments, whose files go at once.
  std::vector<EntryKey> keys;
  for (uint64_t i = 0; i < count / 3; ++i) keys.push_back(TestKey(i));
  ASSERT_TRUE(tier->Erase(keys).ok());
  EXPECT_GT(tier->stats().reclaimed_segments, 0u);
  EXPECT_GT(Fill(*tier, disk, 1000), 15u);
}

TEST(DiskTierTest, ReclaimMovesTheLivingAndFreesWholeSegments) {
  TestDisk disk;
  disk.capacity_bytes = 32ull << 20;
  const auto tier = disk.Open();
  const uint64_t count = Fill(*tier, disk, 0);
  EXPECT_EQ(tier->Reclaim(1 << 20).code(), absl::StatusCode::kResourceExhausted);
  // Five of six go everywhere: no segment is empty, in all little is alive.
  std::vector<EntryKey> keys;
  for (uint64_t i = 0; i < count; ++i) {
    if (i % 6 != 0) keys.push_back(TestKey(i));
  }
  ASSERT_TRUE(tier->Erase(keys).ok());
  ASSERT_TRUE(tier->Reclaim(3 << 20).ok());
  const DiskTierStats stats = tier->stats();
  EXPECT_GT(stats.moved_bytes, 0u);
  EXPECT_LE(stats.used_bytes + (3 << 20), disk.capacity_bytes);
  for (uint64_t i = 0; i < count; i += 6) {
    EXPECT_TRUE(ReadBack(*tier, MakeEntry(i, {60'000})).ok()) << i;
  }
  EXPECT_GT(Fill(*tier, disk, 1000), 40u);
  for (uint64_t i = 0; i < count; i += 6) {
    EXPECT_TRUE(ReadBack(*tier, MakeEntry(i, {60'000})).ok()) << i;
  }
}

TEST(DiskTierTest, ASegmentThatItsOwnerChoseGoesAndTheRestOfItIsMoved) {
  TestDisk disk;
  disk.capacity_bytes = 64ull << 20;
  const auto tier = disk.Open();
  const uint64_t count = Fill(*tier, disk, 0);
  const auto segments = tier->Segments();
  ASSERT_TRUE(segments.ok()) << segments.status();
  ASSERT_GT(segments->size(), 8u);
  const DiskSegment chosen = (*segments)[3];
  const std::vector<EntryKey> live = *tier->LiveIn(chosen.id);
  ASSERT_EQ(live.size(), chosen.live_records);
  ASSERT_GT(live.size(), 10u);
  // All of it is alive: too much to move.
  EXPECT_TRUE(absl::IsFailedPrecondition(tier->ReclaimSegment(chosen.id)));
  ASSERT_TRUE(tier->Erase(std::span(live).subspan(2)).ok());
  EXPECT_EQ(*tier->LiveIn(chosen.id), (std::vector<EntryKey>{live[0], live[1]}));
  const uint64_t used = tier->stats().used_bytes;
  ASSERT_TRUE(tier->ReclaimSegment(chosen.id).ok());
  EXPECT_FALSE(*disk.memory.Exists(disk.SegmentPath(chosen.id)));
  EXPECT_LT(tier->stats().used_bytes, used + disk.segment_bytes / 2);
  EXPECT_TRUE(absl::IsNotFound(tier->LiveIn(chosen.id).status()));
  EXPECT_TRUE(tier->ReclaimSegment(chosen.id).ok());  // it has gone already
  EXPECT_EQ(tier->stats().entries, count - live.size() + 2);
  EXPECT_LE(tier->stats().moved_bytes, DiskTier::MovedBytesMax(chosen.bytes));
  EXPECT_GT(tier->stats().moved_bytes, 0u);
  for (uint64_t i = 0; i < count; ++i) {
    const bool gone = std::count(live.begin() + 2, live.end(), TestKey(i)) != 0;
    const absl::Status read = ReadBack(*tier, MakeEntry(i, {60'000}));
    EXPECT_EQ(absl::IsNotFound(read), gone) << i << read;
    EXPECT_EQ(read.ok(), !gone) << i << read;
  }
}

TEST(DiskTierTest, AFullFileSystemLosesNothingAndIsForgottenWhenThereIsRoom) {
  TestDisk disk;
  const auto tier = disk.Open();
  ASSERT_TRUE(PutAll(*tier, Entries(0, 3)).ok());
  disk.memory.SetCapacity(disk.memory.UsedBytes());
  // The rest of the segment was taken ahead; the next one has no room.
  uint64_t put = 0;
  absl::Status status;
  for (; put < 500 && status.ok(); ++put) status = tier->Put({{MakeEntry(100 + put).put()}});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("file system is full"));
  EXPECT_FALSE(tier->Contains(TestKey(100 + put - 1)));
  for (uint64_t i = 0; i < 3; ++i) EXPECT_TRUE(ReadBack(*tier, MakeEntry(i)).ok());
  const uint64_t used = tier->stats().used_bytes;
  EXPECT_EQ(tier->Put({{MakeEntry(900).put()}}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(tier->stats().used_bytes, used);
  disk.memory.SetCapacity(UINT64_MAX);
  EXPECT_TRUE(tier->Put({{MakeEntry(900).put()}}).ok());
  EXPECT_TRUE(ReadBack(*tier, MakeEntry(900)).ok());
}

TEST(DiskTierTest, AnEntryLargerThanASegmentGetsOneOfItsOwn) {
  TestDisk disk;
  const auto tier = disk.Open();
  const TestEntry large = MakeEntry(1, {3 << 20});
  ASSERT_TRUE(tier->Put({{MakeEntry(0).put(), large.put(), MakeEntry(2).put()}}).ok());
  EXPECT_TRUE(ReadBack(*tier, large).ok());
  EXPECT_TRUE(ReadBack(*tier, MakeEntry(0)).ok());
  EXPECT_TRUE(ReadBack(*tier, MakeEntry(2)).ok());
}

TEST(DiskTierTest, ADirectoryInUseIsRefusedByName) {
  TestDisk disk;
  auto first = disk.Open();
  const auto second = disk.TryOpen();
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("/data"));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("process"));
  first.reset();
  EXPECT_TRUE(disk.TryOpen().ok());
}

TEST(DiskTierTest, AFailedPutLeavesNothingAndTheNextOneWorks) {
  const std::vector<TestEntry> batch = Entries(0, 3);
  for (uint64_t n = 1;; ++n) {
    TestDisk disk;
    const auto tier = disk.Open();
    disk.files.SetPlan({.fail_at = n, .status = absl::UnavailableError("EIO")});
    const absl::Status status = PutAll(*tier, batch);
    const bool reached = disk.files.operations() >= n;
    disk.files.SetPlan({});
    EXPECT_EQ(status.ok(), !reached) << n;
    for (const TestEntry& entry : batch) EXPECT_EQ(tier->Contains(entry.meta.key), status.ok());
    ASSERT_TRUE(PutAll(*tier, batch).ok()) << n;
    for (const TestEntry& entry : batch) EXPECT_TRUE(ReadBack(*tier, entry).ok());
    EXPECT_EQ(tier->stats().entries, batch.size());
    if (!reached) break;
  }
}

std::vector<DiskPut> PutsOf(const std::vector<TestEntry>& entries) {
  std::vector<DiskPut> puts;
  for (const TestEntry& entry : entries) puts.push_back(entry.put());
  return puts;
}

TEST(DiskTierTest, OfPutsUnderWayNothingIsFoundBeforeItIsPublished) {
  TestDisk disk;
  const std::vector<TestEntry> first = Entries(0, 3), second = Entries(3, 3), third = Entries(6, 3);
  {
    const auto tier = disk.Open();
    const auto is_there = [&](const TestEntry& entry) { return tier->Contains(entry.meta.key); };
    auto one = tier->Prepare(PutsOf(first));
    ASSERT_TRUE(one.ok() && tier->Write(*one).ok());
    auto two = tier->Prepare(PutsOf(second));
    ASSERT_TRUE(two.ok() && tier->Write(*two).ok());
    auto three = tier->Prepare(PutsOf(third));
    ASSERT_TRUE(three.ok());
    EXPECT_TRUE(std::none_of(first.begin(), first.end(), is_there));
    ASSERT_TRUE(tier->Publish(*one).ok());
    EXPECT_TRUE(std::all_of(first.begin(), first.end(), is_there));
    EXPECT_TRUE(std::none_of(second.begin(), second.end(), is_there));
    ASSERT_TRUE(tier->Publish(*two).ok());
    EXPECT_TRUE(std::all_of(second.begin(), second.end(), is_there));
    EXPECT_EQ(tier->stats().entries, 6u);
    disk.files.SetPlan({.fail_at = 1, .status = absl::UnavailableError("off")});
  }
  disk.Crash();
  disk.files.SetPlan({});
  const auto tier = disk.Open();
  for (const TestEntry& entry : first) EXPECT_TRUE(ReadBack(*tier, entry).ok());
  for (const TestEntry& entry : second) EXPECT_TRUE(ReadBack(*tier, entry).ok());
  for (const TestEntry& entry : third) EXPECT_FALSE(tier->Contains(entry.meta.key));
}

TEST(DiskTierTest, PutsGivenUpLeaveNothingBehind) {
  TestDisk disk;
  const auto tier = disk.Open();
  const std::vector<TestEntry> all = Entries(0, 9);
  const auto part = [&](size_t from) {
    return std::vector<DiskPut>{all[from].put(), all[from + 1].put(), all[from + 2].put()};
  };
  ASSERT_TRUE(tier->Put(part(0)).ok());
  const uint64_t used = tier->stats().used_bytes;
  for (int round = 0; round < 100; ++round) {
    auto one = tier->Prepare(part(3));
    ASSERT_TRUE(one.ok() && tier->Write(*one).ok());
    auto two = tier->Prepare(part(6));
    ASSERT_TRUE(two.ok() && tier->Write(*two).ok());
    { const DiskTier::Pending gone = *std::move(two); }
    { const DiskTier::Pending gone = *std::move(one); }
  }
  EXPECT_EQ(tier->stats().used_bytes, used) << "their room was not given back";
  EXPECT_EQ(tier->stats().entries, 3u);
  ASSERT_TRUE(PutAll(*tier, all).ok()) << "their keys are still claimed";
  for (const TestEntry& entry : all) EXPECT_TRUE(ReadBack(*tier, entry).ok());
}

TEST(DiskTierTest, APutWaitsForTheOneThatHasItsKeyUnderWay) {
  TestDisk disk;
  const auto tier = disk.Open();
  for (const bool given_up : {false, true}) {
    const TestEntry entry = MakeEntry(given_up ? 1 : 0);
    absl::Status other;
    std::thread thread;
    {
      auto pending = tier->Prepare({{entry.put()}});
      ASSERT_TRUE(pending.ok() && tier->Write(*pending).ok());
      thread = std::thread([&] { other = tier->Put({{entry.put()}}); });
      if (!given_up) {
        EXPECT_TRUE(tier->Publish(*pending).ok());
      }
    }
    thread.join();
    EXPECT_TRUE(other.ok()) << other;
    EXPECT_TRUE(ReadBack(*tier, entry).ok());
  }
  EXPECT_EQ(tier->stats().live_bytes, 2 * RecordBytes(MakeEntry(0).meta)) << "one was put twice";
}

TEST(DiskTierTest, ManyThreadsPutReadEraseAndReclaim) {
  TestDisk disk;
  disk.capacity_bytes = 16ull << 20;
  const auto tier = disk.Open();
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kRounds = 30;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&tier, t] {
      for (uint64_t round = 0; round < kRounds; ++round) {
        // Shared by all threads: one of them writes it, all find it.
        const TestEntry shared = MakeEntry(5000 + round);
        const TestEntry own = MakeEntry(t * 1000 + round);
        EXPECT_TRUE(tier->Put({{shared.put(), own.put()}}).ok());
        EXPECT_TRUE(ReadBack(*tier, shared).ok());
        EXPECT_TRUE(ReadBack(*tier, own).ok());
        if (round % 3 != 0) {
          const EntryKey key = own.meta.key;
          EXPECT_TRUE(tier->Erase({&key, 1}).ok());
          EXPECT_FALSE(tier->Contains(key));
        }
        if (round % 10 == t) tier->Reclaim(15 << 20).IgnoreError();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(tier->stats().entries, kRounds + kThreads * kRounds / 3);
  EXPECT_EQ(tier->stats().checksum_failures, 0u);
  for (uint64_t round = 0; round < kRounds; ++round) {
    EXPECT_TRUE(ReadBack(*tier, MakeEntry(5000 + round)).ok());
  }
}

// Found by the simulation: the file of a segment whose making failed, and its removal too, was
// there and not counted.
TEST(DiskTierTest, AFileThatCannotBeRemovedStaysCounted) {
  for (uint64_t n = 1; n <= 10; ++n) {
    TestDisk disk;
    const std::unique_ptr<DiskTier> tier = disk.Open();
    disk.files.SetPlan(
        {.fail_at = n, .status = absl::UnavailableError("broken"), .fail_for_ever = true});
    const TestEntry entry = MakeEntry(1);
    tier->Put({{entry.put()}}).IgnoreError();
    disk.files.SetPlan({});
    EXPECT_LE(disk.memory.UsedBytes(), tier->stats().used_bytes + kIoAlignment) << n;  // FORMAT
  }
}

}  // namespace
}  // namespace cairn::store
