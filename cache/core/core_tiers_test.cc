// Goal: entries move between the tiers without loss, limits hold at every instant, and what decays
// on disk is a counted miss. Method: small tiers, a file system that forgets and decays, background
// writes off.
#include <gtest/gtest.h>

#include "cache/core/attributes.h"
#include "cache/core/core_rig.h"

namespace cairn::cache {
namespace {

constexpr EntryKind kRows = EntryKind::kRows, kCheckpoint = EntryKind::kCheckpoint;

std::vector<std::string> Segments(CoreRig& rig, const std::string& directory = "/data") {
  std::vector<std::string> paths;
  const auto names = rig.files.List(directory);
  if (!names.ok()) return paths;
  for (const std::string& name : *names) {
    const std::string path = directory + "/" + name;
    const auto file = rig.files.Open(path, store::OpenMode::kReadOnly);
    if (file.ok() && *(*file)->Size() > kIoAlignment) paths.push_back(path);
    for (std::string& below : Segments(rig, path)) paths.push_back(std::move(below));
  }
  return paths;
}

// Flips one byte wherever `wanted` lies on disk. Returns how many places.
size_t Decay(CoreRig& rig, std::span<const uint8_t> wanted) {
  size_t flipped = 0;
  for (const std::string& path : Segments(rig)) {
    auto file = *rig.files.Open(path, store::OpenMode::kReadOnly);
    store::IoBuffer bytes(*file->Size());
    store::IoRequest read = store::IoRequest::Read(*file, 0, bytes.bytes());
    rig.files.Submit({&read, 1});
    const std::span<uint8_t> all = bytes.bytes();
    for (size_t at = 0; at + wanted.size() <= all.size(); at += kIoAlignment) {
      if (!std::equal(wanted.begin(), wanted.end(), all.begin() + static_cast<ptrdiff_t>(at))) {
        continue;
      }
      EXPECT_TRUE(rig.files.FlipByte(path, at + wanted.size() / 2, 0x10).ok());
      ++flipped;
    }
  }
  return flipped;
}

TEST(CoreTiers, HostIsNeverOverItsLimitAndEvictsLeafFirst) {
  CoreRig rig({.host_units = 8, .disk_bytes = 0});
  for (int text = 0; text < 10; ++text) {
    const std::vector<Digest> chain = rig.Chain(4, text);
    ASSERT_TRUE(rig.PutAll(chain).ok()) << text;
    EXPECT_LE(rig.host->stats().used_bytes, 8 * kIoAlignment);
    EXPECT_EQ(rig.Fetch(chain)->rows.size(), 4u);
    rig.core->CloseSession(rig.session);
    rig.session = rig.Open();
  }
  // The text before the last lost its checkpoint and its end, not its beginning.
  const uint32_t left = rig.Rows(rig.Chain(4, 8));
  EXPECT_LT(left, 4u);
  EXPECT_EQ(rig.Stat("host_entries"), 5u + left);
  EXPECT_NE(rig.Stat("evicted_host_entries"), 0u);
}

TEST(CoreTiers, LeasedPinnedAndReservedUponEntriesStay) {
  CoreRig rig({.host_units = 5, .disk_bytes = 0});
  const std::vector<Digest> leased = rig.Chain(2, 1), pinned = rig.Chain(1, 2);
  const std::vector<Digest> built_on = rig.Chain(2, 3);
  for (size_t i = 0; i < 2; ++i) ASSERT_TRUE(rig.Put(leased, i, kRows).ok());
  ASSERT_TRUE(rig.Put(pinned, 0, kRows).ok());
  ASSERT_TRUE(rig.Put(built_on, 0, kRows).ok());
  const LeaseId lease = rig.Fetch(leased)->lease;
  ASSERT_TRUE(rig.core->Pin(pinned[0], true).ok());
  const ReserveItem child = rig.Item(built_on, 1, kRows);
  const uint64_t reservation = rig.Reserve(child);

  const std::vector<Digest> fill = rig.Chain(2, 4);
  ASSERT_TRUE(rig.Put(fill, 0, kRows).ok());
  const absl::Status full = rig.Put(rig.Chain(1, 5), 0, kCheckpoint);
  EXPECT_FALSE(full.ok());
  EXPECT_TRUE(rig.Put(rig.Chain(1, 6), 0, kRows).ok());  // instead of `fill`
  EXPECT_EQ(rig.Rows(fill), 0u);
  EXPECT_EQ(rig.Rows(leased), 2u);
  EXPECT_EQ(rig.Rows(pinned), 1u);
  EXPECT_EQ(rig.Rows(built_on), 1u);
  EXPECT_TRUE(rig.CommitOne(reservation, child.key).ok());  // instead of text 6

  const absl::Status none = rig.Put(fill, 0, kRows);  // all that could go is the child
  EXPECT_TRUE(none.ok()) << none;
  ASSERT_TRUE(rig.Fetch(fill).ok());
  ASSERT_TRUE(rig.Fetch(built_on, rig.Open()).ok());
  const absl::Status nothing_left = rig.Put(rig.Chain(1, 7), 0, kRows);
  EXPECT_TRUE(absl::IsResourceExhausted(nothing_left)) << nothing_left;
  EXPECT_EQ(rig.Stat("open_reservations"), 0u);  // ended with the refusal
  ASSERT_TRUE(rig.core->Release(rig.session, lease).ok());
  EXPECT_TRUE(rig.Put(rig.Chain(1, 7), 0, kRows).ok());
}

TEST(CoreTiers, DurableIsOnDiskWhenAnswered) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(4);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  EXPECT_EQ(rig.Stat("disk_entries"), 5u);
  rig.Restart(/*crash=*/true);
  const MatchResult match = *rig.core->Match(rig.session, chain);
  EXPECT_EQ(match.rows_blocks, 4u);
  EXPECT_EQ(match.rows_host_blocks, 0u);
  ASSERT_EQ(match.checkpoints.size(), 1u);
  EXPECT_EQ(match.checkpoints[0].tier, Tier::kDisk);
  const LeasedPrefix prefix = *rig.Fetch(chain);
  EXPECT_EQ(prefix.rows.size(), 4u);
  EXPECT_TRUE(prefix.checkpoint.has_value());
  EXPECT_EQ(prefix.host_bytes, 0u);
  EXPECT_EQ(prefix.disk_bytes, 4 * 2148u + 5120u);
  EXPECT_EQ(rig.Fetch(chain)->disk_bytes, 0u);  // promoted
}

TEST(CoreTiers, DurableCommitTakesItsAncestorsAlong) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(3);
  ASSERT_TRUE(rig.Put(chain, 0, kRows).ok());
  ASSERT_TRUE(rig.Put(chain, 1, kRows).ok());
  EXPECT_EQ(rig.Stat("disk_entries"), 0u);
  ASSERT_TRUE(rig.Put(chain, 2, kRows, true).ok());
  rig.Restart(/*crash=*/true);
  EXPECT_EQ(rig.Rows(chain), 3u);
}

TEST(CoreTiers, DurableWithoutADiskIsRefused) {
  CoreRig rig({.disk_bytes = 0});
  EXPECT_TRUE(absl::IsFailedPrecondition(rig.Put(rig.Chain(1), 0, kRows, true)));
}

TEST(CoreTiers, UnsavedEntriesMayBeLostButNeverHalf) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(4);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  rig.Restart(/*crash=*/true);
  EXPECT_EQ(rig.Rows(chain), 0u);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  rig.Restart();  // a clean stop writes what is queued
  EXPECT_EQ(rig.Fetch(chain)->rows.size(), 4u);
}

TEST(CoreTiers, EvictedFromHostIsReadBackFromDisk) {
  CoreRig rig({.host_units = 8});
  std::vector<std::vector<Digest>> texts;
  for (int t = 0; t < 6; ++t) {
    texts.push_back(rig.Chain(4, t));
    ASSERT_TRUE(rig.PutAll(texts.back(), true).ok());
  }
  EXPECT_EQ(rig.Stat("evicted_host_unsaved_entries"), 0u);
  for (const std::vector<Digest>& chain : texts) {
    const LeasedPrefix prefix = *rig.Fetch(chain);
    EXPECT_EQ(prefix.rows.size(), 4u);
    EXPECT_TRUE(prefix.checkpoint.has_value());
    EXPECT_LE(rig.host->stats().used_bytes, 8 * kIoAlignment);
    ASSERT_TRUE(rig.core->Release(rig.session, prefix.lease).ok());
  }
}

TEST(CoreTiers, QueuedEntriesAreEvictedOnlyWhenNothingElseIsLeft) {
  CoreRig rig({.host_units = 2});
  ASSERT_TRUE(rig.Put(rig.Chain(1, 1), 0, kRows, true).ok());  // saved
  rig.core->Match(rig.session, rig.Chain(1, 1)).IgnoreError();
  ASSERT_TRUE(rig.Put(rig.Chain(1, 2), 0, kRows).ok());  // queued
  ASSERT_TRUE(rig.Put(rig.Chain(1, 3), 0, kRows)
                  .ok());  // evicts the saved one, though it is younger than none
  EXPECT_EQ(rig.Stat("evicted_host_unsaved_entries"), 0u);
  ASSERT_TRUE(rig.Put(rig.Chain(1, 4), 0, kRows).ok());
  EXPECT_EQ(rig.Stat("evicted_host_unsaved_entries"), 1u);
  EXPECT_EQ(rig.Rows(rig.Chain(1, 1)), 1u);  // on disk
  EXPECT_EQ(rig.Rows(rig.Chain(1, 2)), 0u);
}

TEST(CoreTiers, FetchLargerThanTheArenaNamesBothSizes) {
  CoreRig rig({.host_units = 8});
  const std::vector<Digest> chain = rig.Chain(9);
  for (size_t i = 0; i < chain.size(); ++i) ASSERT_TRUE(rig.Put(chain, i, kRows, true).ok()) << i;
  EXPECT_EQ(rig.Rows(chain), 9u);
  const absl::Status status = rig.Fetch(chain).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  const std::string message(status.message());
  EXPECT_NE(message.find(absl::StrCat(9 * kIoAlignment)), std::string::npos) << message;
  EXPECT_NE(message.find(absl::StrCat(8 * kIoAlignment)), std::string::npos) << message;
  EXPECT_EQ(rig.Fetch(std::span(chain).first(8))->rows.size(), 8u);
}

TEST(CoreTiers, FetchThatFindsTheArenaLeasedIsRefusedWhole) {
  CoreRig rig({.host_units = 8});
  const std::vector<Digest> a = rig.Chain(5, 1), b = rig.Chain(5, 2);
  for (const auto& chain : {a, b}) {
    for (size_t i = 0; i < 5; ++i) ASSERT_TRUE(rig.Put(chain, i, kRows, true).ok());
  }
  const LeaseId lease = rig.Fetch(a)->lease;
  EXPECT_TRUE(absl::IsResourceExhausted(rig.Fetch(b).status()));
  EXPECT_EQ(rig.Stat("host_pinned_bytes"), 5 * kIoAlignment);  // the refused one holds nothing
  ASSERT_TRUE(rig.core->Release(rig.session, lease).ok());
  EXPECT_EQ(rig.Fetch(b)->rows.size(), 5u);
}

TEST(CoreTiers, FlippedByteIsACountedMiss) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(4);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  rig.DropFromHost();
  ASSERT_EQ(Decay(rig, PayloadOf({chain[2], kRows})), 1u);
  const LeasedPrefix prefix = *rig.Fetch(chain);
  EXPECT_EQ(prefix.rows.size(), 2u);
  EXPECT_FALSE(prefix.checkpoint.has_value());
  EXPECT_EQ(rig.Stat("checksum_failures"), 1u);
  EXPECT_EQ(rig.Stat("fetch_shortened_calls"), 1u);
  EXPECT_EQ(rig.Rows(chain), 2u);
  // Made again, the prefix is whole again: what lay behind was not lost.
  ASSERT_TRUE(rig.Put(chain, 2, kRows, true).ok());
  EXPECT_TRUE(rig.Fetch(chain)->checkpoint.has_value());
  rig.DropFromHost();
  EXPECT_TRUE(rig.Fetch(chain)->checkpoint.has_value());
}

TEST(CoreTiers, FlippedByteInACheckpointLosesOnlyTheCheckpoint) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(2);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  rig.DropFromHost();
  ASSERT_EQ(Decay(rig, PayloadOf({chain[1], kCheckpoint})), 1u);
  const LeasedPrefix prefix = *rig.Fetch(chain);
  EXPECT_EQ(prefix.rows.size(), 2u);
  EXPECT_FALSE(prefix.checkpoint.has_value());
  EXPECT_TRUE(rig.core->Match(rig.session, chain)->checkpoints.empty());
}

TEST(CoreTiers, UnreadableDiskIsAMissUntilItReadsAgain) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  rig.DropFromHost();
  rig.device.SetPlan(
      {.fail_at = 1, .status = absl::UnavailableError("no such device"), .fail_for_ever = true});
  EXPECT_TRUE(rig.Fetch(chain)->rows.empty());
  EXPECT_NE(rig.Stat("disk_read_failures"), 0u);
  EXPECT_EQ(rig.Stat("checksum_failures"), 0u);
  EXPECT_EQ(rig.Stat("host_pinned_bytes"), 0u);
  rig.device.SetPlan({});
  EXPECT_TRUE(rig.Fetch(chain)->checkpoint.has_value());
}

TEST(CoreTiers, FetchPastItsDeadlineReadsNothingAndHoldsNothing) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  rig.DropFromHost();
  const FetchRequest late{.chain = chain, .deadline = absl::ZeroDuration()};
  EXPECT_TRUE(absl::IsDeadlineExceeded(rig.core->Fetch(rig.session, late).status()));
  EXPECT_EQ(rig.Stat("host_used_bytes"), 0u);
  uint64_t kept = 0;
  EXPECT_EQ(*rig.core->Evict({}, &kept), 4u);
  EXPECT_EQ(kept, 0u);
}

TEST(CoreTiers, OrphansAreErasedAtStart) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(4), other = rig.Chain(2, 9);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  ASSERT_TRUE(rig.PutAll(other, true).ok());
  const EntryKey lost{chain[1], kRows};
  ASSERT_TRUE(rig.disk->Erase({&lost, 1}).ok());
  rig.DropFromHost();
  EXPECT_EQ(rig.Stat("startup_orphan_entries"), 3u);  // rows 2 and 3, checkpoint 3
  EXPECT_EQ(rig.Stat("startup_entries"), 7u);         // with these
  EXPECT_EQ(rig.Stat("disk_entries"), 4u);
  EXPECT_EQ(rig.Rows(chain), 1u);
  EXPECT_TRUE(rig.Fetch(other)->checkpoint.has_value());
}

TEST(CoreTiers, ForeignEntriesAreErasedAtStart) {
  CoreRig rig;
  store::IoBuffer payload(100);
  EntryMeta meta{{rig.Chain(1)[0], kRows}, {{100, Checksum(payload.bytes().first(100))}}, "?"};
  const store::DiskPut put{&meta, payload.bytes()};
  ASSERT_TRUE(rig.disk->Put({&put, 1}).ok());
  rig.DropFromHost();
  EXPECT_EQ(rig.Stat("startup_unreadable_entries"), 1u);
  EXPECT_EQ(rig.Stat("disk_entries"), 0u);
}

TEST(CoreTiers, EntryOfAnotherShapeIsACountedMiss) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(1);
  store::IoBuffer payload(2148);
  EntryMeta meta{{chain[0], kRows},
                 {{2148, Checksum(payload.bytes().first(2148))}},  // one part instead of two
                 EncodeAttributes({rig.roots.at(rig.session), rig.roots.at(rig.session), 0})};
  const store::DiskPut put{&meta, payload.bytes()};
  ASSERT_TRUE(rig.disk->Put({&put, 1}).ok());
  rig.DropFromHost();
  EXPECT_EQ(rig.Rows(chain), 1u);
  EXPECT_TRUE(rig.Fetch(chain)->rows.empty());
  EXPECT_EQ(rig.Stat("checksum_failures"), 1u);
  EXPECT_EQ(rig.Stat("disk_entries"), 0u);
  ASSERT_TRUE(rig.Put(chain, 0, kRows, true).ok());
  EXPECT_EQ(rig.Fetch(chain)->rows.size(), 1u);
}

TEST(CoreTiers, DiskStaysUnderItsLimitAndEvicts) {
  CoreRig rig({.host_units = 16, .disk_bytes = 512 << 10, .segment_bytes = 64 << 10});
  for (int t = 0; t < 40; ++t) {
    const std::vector<Digest> chain = rig.Chain(6, t);
    const absl::Status status = rig.PutAll(chain, true);
    ASSERT_TRUE(status.ok()) << t << " " << status;
    ASSERT_LE(rig.disk->stats().used_bytes, 512u << 10);
  }
  EXPECT_NE(rig.Stat("evicted_disk_entries"), 0u);
  EXPECT_TRUE(rig.Fetch(rig.Chain(6, 39))->checkpoint.has_value());
  EXPECT_EQ(rig.Rows(rig.Chain(6, 0)), 0u);
  // What is left was evicted leaf-first: after a restart nothing is an orphan.
  rig.Restart();
  EXPECT_EQ(rig.Stat("startup_orphan_entries"), 0u);
  EXPECT_TRUE(rig.Fetch(rig.Chain(6, 39))->checkpoint.has_value());
}

TEST(CoreTiers, FullFileSystemKeepsEntriesInHostMemory) {
  CoreRig rig;
  const std::vector<Digest> saved = rig.Chain(2, 1), chain = rig.Chain(3, 2);
  ASSERT_TRUE(rig.PutAll(saved, true).ok());
  rig.files.SetCapacity(0);
  // Fill what the open segment has left, then meet the full file system.
  std::vector<std::vector<Digest>> fill;
  absl::Status status;
  for (int t = 10; t < 40 && status.ok(); ++t) {
    fill.push_back(rig.Chain(1, t));
    status = rig.Put(fill.back(), 0, kRows, true);
  }
  if (status.ok()) GTEST_SKIP() << "segments are allocated ahead of the file system's limit";
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(rig.Rows(fill.back()), 1u);  // served from host memory
  EXPECT_NE(rig.Stat("disk_full_events"), 0u);
  EXPECT_EQ(rig.Stat("evicted_disk_entries"), 0u);  // evicting would not help
  EXPECT_TRUE(absl::IsResourceExhausted(rig.core->Flush(absl::Seconds(1))));
  rig.files.SetCapacity(UINT64_MAX);
  ASSERT_TRUE(rig.core->Flush(absl::Seconds(1)).ok());
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  rig.Restart(/*crash=*/true);
  EXPECT_EQ(rig.Rows(fill.back()), 1u);
  EXPECT_EQ(rig.Rows(saved), 2u);
  EXPECT_EQ(rig.Rows(chain), 3u);
}

}  // namespace
}  // namespace cairn::cache
