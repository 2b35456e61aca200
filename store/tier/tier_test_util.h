// tier_test_util.h: entries to put, and a disk tier on a memory file system with a power switch.
//
// Threads: externally synchronised.
#ifndef CAIRN_STORE_TIER_TIER_TEST_UTIL_H_
#define CAIRN_STORE_TIER_TIER_TEST_UTIL_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "store/base/checksum.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "store/device/faulty_file_system.h"
#include "store/device/memory_file_system.h"
#include "store/index/memory_catalog.h"
#include "store/segment/segment_set.h"
#include "store/tier/disk_tier.h"

namespace cairn::store {

struct TestEntry {
  EntryMeta meta;
  IoBuffer payload;
  DiskPut put() const { return {.meta = &meta, .payload = payload.bytes()}; }
};

inline EntryKey TestKey(uint64_t number, EntryKind kind = EntryKind::kRows) {
  const uint8_t bytes[8] = {static_cast<uint8_t>(number), static_cast<uint8_t>(number >> 8)};
  return {.digest = Sha256(bytes), .kind = kind};
}

// An entry of these parts whose bytes follow from `number` and `salt`.
inline TestEntry MakeEntry(uint64_t number, const std::vector<uint32_t>& parts = {5000, 3000},
                           uint64_t salt = 0) {
  TestEntry entry;
  entry.meta.key = TestKey(number);
  entry.meta.attributes = "attributes of " + std::to_string(number);
  uint64_t bytes = 0;
  for (const uint32_t part : parts) bytes += part;
  entry.payload = IoBuffer(bytes);
  uint64_t state = number * 1000 + salt + 1;
  for (uint8_t& byte : entry.payload.bytes().first(bytes)) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<uint8_t>(state >> 56);
  }
  uint64_t at = 0;
  for (const uint32_t part : parts) {
    entry.meta.parts.push_back(
        {.bytes = part, .xxh3 = Checksum(entry.payload.bytes().subspan(at, part))});
    at += part;
  }
  return entry;
}

// Memory disks that outlive the tiers opened on them.
struct TestDisk {
  static constexpr char kDirectory[] = "/data";

  MemoryFileSystem memory;
  FaultyFileSystem files{memory};
  std::shared_ptr<MemoryCatalogDisk> catalog = std::make_shared<MemoryCatalogDisk>();
  FakeClock clock;
  SeededRandom random{7};
  RecoveryReport report;
  uint64_t capacity_bytes = 64ull << 20;
  uint64_t segment_bytes = 1ull << 20;

  absl::StatusOr<std::unique_ptr<DiskTier>> TryOpen() {
    return DiskTier::Open({.directory = kDirectory,
                           .capacity_bytes = capacity_bytes,
                           .segment_bytes = segment_bytes,
                           .random = &random},
                          files, std::make_unique<MemoryCatalog>(catalog), clock, &report);
  }
  std::unique_ptr<DiskTier> Open() {
    absl::StatusOr<std::unique_ptr<DiskTier>> tier = TryOpen();
    EXPECT_TRUE(tier.ok()) << tier.status();
    if (!tier.ok()) return nullptr;
    EXPECT_TRUE((*tier)->Survey(nullptr).ok());
    return *std::move(tier);
  }
  void Crash() {
    memory.Crash(random);
    catalog->Crash(random);
  }
  std::string SegmentPath(uint64_t id) const {
    return std::string(kDirectory) + "/segments/" + SegmentSet::FileName(id);
  }
};

// Reads one entry through the tier. OK: whole and equal to `expected`.
inline absl::Status ReadBack(DiskTier& tier, const TestEntry& expected,
                             RecordCheck check = RecordCheck::kPayload) {
  IoBuffer buffer(expected.meta.payload_bytes());
  DiskRead read{.key = expected.meta.key, .destination = buffer.bytes(), .status = {}, .meta = {}};
  tier.ReadBatch({&read, 1}, check);
  if (!read.status.ok()) return read.status;
  EXPECT_EQ(read.meta.parts, expected.meta.parts);
  EXPECT_EQ(read.meta.attributes, expected.meta.attributes);
  const std::span<const uint8_t> stored = expected.payload.bytes();
  EXPECT_TRUE(std::equal(stored.begin(), stored.end(), buffer.bytes().begin()));
  return absl::OkStatus();
}

inline absl::Status PutAll(DiskTier& tier, const std::vector<TestEntry>& entries) {
  std::vector<DiskPut> puts;
  for (const TestEntry& entry : entries) puts.push_back(entry.put());
  return tier.Put(puts);
}

// Fills the tier until it refuses; returns how many entries went in.
inline uint64_t Fill(DiskTier& tier, const TestDisk& disk, uint64_t first) {
  for (uint64_t i = first; i < first + 10'000; ++i) {
    const absl::Status status = tier.Put({{MakeEntry(i, {60'000}).put()}});
    EXPECT_LE(disk.memory.UsedBytes(), disk.capacity_bytes + kIoAlignment);  // and the FORMAT file
    EXPECT_LE(tier.stats().used_bytes, disk.capacity_bytes);
    if (status.ok()) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_NE(status.message().find("over capacity"), absl::string_view::npos) << status;
    return i - first;
  }
  return 10'000;
}

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_TIER_TEST_UTIL_H_
