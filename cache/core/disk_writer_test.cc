// Goal: a batch to disk takes what the disk has room for without giving up much of itself: a
// sixteenth, and neither so little that syncs cost most of its time nor so much that a durable
// commit waits long.
#include "cache/core/disk_writer.h"

#include <gtest/gtest.h>

#include "cache/core/core_rig.h"

namespace cairn::cache {
namespace {

// How many of so many entries, all queued, the first step of a writer writes.
size_t FirstBatch(uint64_t disk_bytes, size_t entries, uint32_t entry_bytes = 8 << 20) {
  FakeClock clock;
  SeededRandom random{1};
  store::MemoryFileSystem device;
  const auto catalog = std::make_shared<store::MemoryCatalogDisk>();
  PollingWaiter waiter;
  const auto host = *store::HostTier::Create(
      {.capacity_bytes = (entries + 1) * store::HostRoomBytes(entry_bytes, 1),
       .memory = store::ArenaMemory::kAtUse});
  auto disk =
      store::DiskTier::Open({.directory = "/data", .capacity_bytes = disk_bytes}, device,
                            std::make_unique<store::MemoryCatalog>(catalog), clock, nullptr);
  EXPECT_TRUE(disk.ok()) << disk.status();
  Residency residency(*host, disk->get(), clock, {.policy = {"lru", "lru"}, .random = &random});
  Expiry expiry(residency, {});
  DiskWriter writer(residency, waiter, expiry, /*background=*/false);
  EntryAttributes attributes;
  EntryRef first;
  for (size_t i = 0; i < entries; ++i) {
    MutexLock lock(&residency.mutex);
    auto room = residency.ReserveHost(entry_bytes, 1);
    EXPECT_TRUE(room.ok()) << room.status();
    Digest digest;
    random.Fill(digest.bytes);
    attributes.index = static_cast<uint32_t>(i);
    const EntryRef ref{residency.index.Add(digest, attributes), EntryKind::kRows};
    attributes.parent = digest;
    EntryMeta meta{ref.key(), {}, EncodeAttributes(attributes)};
    meta.parts.push_back({entry_bytes, Checksum(room->bytes().first(entry_bytes))});
    EXPECT_TRUE(residency.PublishHost(ref, std::move(meta), *std::move(room)).ok());
    writer.Enqueue(ref);
    if (i == 0) first = ref;
  }
  EXPECT_TRUE(writer.WaitSaved(first).ok());
  MutexLock lock(&residency.mutex);
  return entries - writer.queued_entries();
}

TEST(DiskWriter, ABatchIsASixteenthOfTheDisk) {
  EXPECT_EQ(FirstBatch(1u << 30, 10), 8u) << "64 MiB of 1 GiB";
}

TEST(DiskWriter, ABatchOfASmallDiskIsNotTiny) {
  EXPECT_EQ(FirstBatch(128 << 20, 6), 4u) << "32 MiB";
}

TEST(DiskWriter, ABatchOfALargeDiskIsNotEndless) {
  EXPECT_EQ(FirstBatch(1ull << 40, 34), 32u) << "256 MiB";
  EXPECT_EQ(FirstBatch(1ull << 40, 1030, 4096), 1024u) << "entries";
}

}  // namespace
}  // namespace cairn::cache
