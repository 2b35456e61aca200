// Goal: what is queued goes to disk in batches that follow each other without a pause: each takes
// what the disk has room for without giving up much of itself, they are found in order whatever
// fails, and who else needs the disk is let in between two of them.
#include "cache/core/disk_writer.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "cache/core/core_rig.h"
#include "store/device/faulty_file_system.h"

namespace cairn::cache {
namespace {

// A chain of rows in host memory.
struct WriterRig {
  WriterRig(uint64_t disk_bytes, size_t entries, uint32_t entry_bytes, bool background = false)
      : host(*store::HostTier::Create(
            {.capacity_bytes = (entries + 1) * store::HostRoomBytes(entry_bytes, 1),
             .memory = store::ArenaMemory::kAtUse})) {
    disk = *store::DiskTier::Open({.directory = "/data", .capacity_bytes = disk_bytes}, files,
                                  std::make_unique<store::MemoryCatalog>(catalog), clock, nullptr);
    catalog->SetFault([this] {
      counted_at_batch.push_back(disk->stats().entries);
      return at_catalog != nullptr ? at_catalog() : absl::OkStatus();
    });
    residency.emplace(*host, disk.get(), clock,
                      PrefixIndex::Options{.policy = {"lru", "lru"}, .random = &random});
    expiry.emplace(*residency, CheckpointPolicy());
    residency->write_to_disk = [this](EntryRef ref) { writer->Enqueue(ref); };
    writer.emplace(*residency, waiter, *expiry, background);
    MutexLock lock(&residency->mutex);
    EntryAttributes attributes;
    for (size_t i = 0; i < entries; ++i) {
      auto room = residency->ReserveHost(entry_bytes, 1);
      EXPECT_TRUE(room.ok()) << room.status();
      Digest digest;
      random.Fill(digest.bytes);
      attributes.index = static_cast<uint32_t>(i);
      const EntryRef ref{residency->index.Add(digest, attributes), EntryKind::kRows};
      attributes.parent = digest;
      EntryMeta meta{ref.key(), {}, EncodeAttributes(attributes)};
      meta.parts.push_back({entry_bytes, Checksum(room->bytes().first(entry_bytes))});
      EXPECT_TRUE(residency->PublishHost(ref, std::move(meta), *std::move(room)).ok());
      chain.push_back(ref);
    }
  }

  void QueueAll() {
    MutexLock lock(&residency->mutex);
    for (const EntryRef ref : chain) writer->Enqueue(ref);
  }

  absl::Status Drain() { return writer->Drain(kNoDeadline, clock); }
  // How many entries, from the first, are on disk. No later one may be.
  size_t LeadingOnDisk() const {
    size_t leading = 0;
    while (leading < chain.size() && disk->Contains(chain[leading].key())) ++leading;
    for (size_t i = leading; i < chain.size(); ++i) EXPECT_FALSE(disk->Contains(chain[i].key()));
    return leading;
  }

  FakeClock clock;
  SeededRandom random{1};
  store::MemoryFileSystem device;
  store::FaultyFileSystem files{device};
  std::shared_ptr<store::MemoryCatalogDisk> catalog = std::make_shared<store::MemoryCatalogDisk>();
  std::vector<uint64_t> counted_at_batch;    // entries, with those of this batch of the catalog
  std::function<absl::Status()> at_catalog;  // may refuse it
  PollingWaiter waiter;
  std::unique_ptr<store::HostTier> host;
  std::unique_ptr<store::DiskTier> disk;
  std::optional<Residency> residency;
  std::optional<Expiry> expiry;
  std::vector<EntryRef> chain;
  std::optional<DiskWriter> writer;
};

size_t FirstBatch(uint64_t disk_bytes, size_t entries, uint32_t entry_bytes) {
  WriterRig rig(disk_bytes, entries, entry_bytes);
  rig.QueueAll();
  EXPECT_TRUE(rig.Drain().ok());
  EXPECT_GE(rig.counted_at_batch.size(), 2u);
  return rig.counted_at_batch.at(0);
}

TEST(DiskWriter, ABatchIsASixtyFourthOfTheDisk) {
  EXPECT_EQ(FirstBatch(1u << 30, 10, 4 << 20), 4u) << "16 MiB of 1 GiB";
}

TEST(DiskWriter, ABatchOfASmallDiskIsNotTiny) {
  EXPECT_EQ(FirstBatch(32u << 20, 6, 256 << 10), 4u) << "1 MiB";
}

TEST(DiskWriter, ABatchOfALargeDiskIsNotEndless) {
  EXPECT_EQ(FirstBatch(1ull << 40, 12, 8 << 20), 8u) << "64 MiB";
  EXPECT_EQ(FirstBatch(1ull << 40, 1030, 4096), 1024u) << "entries";
}

// Whatever operation of the disk fails, once or from then on, and whatever batches are under way.
void ExpectNothingOvertaken(bool for_ever, bool background) {
  std::set<size_t> left;
  bool reached = true;
  for (uint64_t n = 1; reached; ++n) {
    WriterRig rig(32u << 20, 20, 256 << 10, background);
    rig.at_catalog = [&rig] { return rig.files.CountOperation(); };
    rig.files.SetPlan(
        {.fail_at = n, .status = absl::UnavailableError("EIO"), .fail_for_ever = for_ever});
    rig.QueueAll();
    const absl::Status status = rig.Drain();
    reached = rig.files.operations() >= n;
    rig.files.SetPlan({});
    const size_t leading = rig.LeadingOnDisk();
    EXPECT_EQ(leading == rig.chain.size(), status.ok()) << n << ": " << status;
    if (!for_ever) {
      EXPECT_TRUE(status.ok()) << n << ": not tried again, " << status;
    }
    left.insert(leading);
    EXPECT_TRUE(rig.Drain().ok()) << n;
    EXPECT_EQ(rig.LeadingOnDisk(), rig.chain.size()) << n;
    MutexLock lock(&rig.residency->mutex);
    EXPECT_EQ(rig.writer->queued_entries(), 0u) << n;
    for (const EntryRef ref : rig.chain) EXPECT_FALSE(ref->held()) << n;
  }
  if (for_ever) {
    EXPECT_GT(left.size(), 3u) << "not only nothing or all";
  }
}

TEST(DiskWriter, NothingOvertakesWhatFails) {
  ExpectNothingOvertaken(/*for_ever=*/false, /*background=*/false);
  ExpectNothingOvertaken(/*for_ever=*/true, /*background=*/false);
}

TEST(DiskWriter, NothingOvertakesWhatFailsByAnotherThread) {
  ExpectNothingOvertaken(/*for_ever=*/false, /*background=*/true);
  ExpectNothingOvertaken(/*for_ever=*/true, /*background=*/true);
}

TEST(DiskWriter, WhoNeedsTheDiskIsLetInBetweenTwoBatches) {
  WriterRig rig(32u << 20, 40, 256 << 10, /*background=*/true);
  std::thread other;
  uint64_t seen = 0;
  rig.at_catalog = [&] {
    if (other.joinable()) return absl::OkStatus();
    other = std::thread([&] {
      DiskLock lock(*rig.residency);
      seen = rig.disk->stats().entries;
    });
    while (!rig.residency->disk_is_wanted()) std::this_thread::yield();
    return absl::OkStatus();
  };
  rig.QueueAll();
  EXPECT_TRUE(rig.Drain().ok());
  other.join();
  EXPECT_GT(seen, 0u);
  EXPECT_LE(seen, 12u) << "the three batches that were under way";
  EXPECT_EQ(rig.LeadingOnDisk(), 40u);
}

}  // namespace
}  // namespace cairn::cache
