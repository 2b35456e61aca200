// Goal: the format finds every flipped bit, the scanner finds every whole record around any damage,
// and the set of segments accounts for every byte.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "store/base/checksum.h"
#include "store/device/faulty_file_system.h"
#include "store/device/memory_file_system.h"
#include "store/segment/record_format.h"
#include "store/segment/segment_scanner.h"
#include "store/segment/segment_set.h"

namespace cairn::store {
namespace {

constexpr StoreUuid kStore = {1, 2, 3};

EntryMeta Meta(uint8_t number, size_t parts = 3) {
  EntryMeta meta;
  meta.key.digest.bytes.fill(number);
  meta.attributes = "attributes";
  for (size_t i = 0; i < parts; ++i) {
    meta.parts.push_back({.bytes = static_cast<uint32_t>(100 + i), .xxh3 = i});
  }
  return meta;
}

std::vector<uint8_t> Header(const EntryMeta& meta, const RecordLocation& at) {
  std::vector<uint8_t> bytes(RecordHeaderBytes(meta));
  EncodeRecordHeader(meta, at, SegmentTag(kStore, at.segment), bytes);
  return bytes;
}

TEST(RecordFormatTest, TheBytesAreThoseOfTheDocument) {
  // FORMAT.md's worked example.
  EntryMeta meta;
  meta.key.digest.bytes.fill(0xd1);
  meta.parts = {{.bytes = 5000, .xxh3 = 0x1122334455667788}, {.bytes = 3000, .xxh3 = 0x99}};
  meta.attributes = "hi";
  const auto bytes = Header(meta, {.segment = 7, .offset = 4096, .bytes = 0, .sequence = 12});
  EXPECT_EQ(bytes.size(), 4096u);
  EXPECT_EQ(RecordBytes(meta), 12288u);
  EXPECT_EQ(std::memcmp(bytes.data(), "CIRNREC1", 8), 0);
  const auto u32 = [&](size_t at) {
    uint32_t value;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    return value;
  };
  const auto u64 = [&](size_t at) {
    uint64_t value;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    return value;
  };
  EXPECT_EQ(u32(8), 1u);      // version
  EXPECT_EQ(u32(12), 4096u);  // header_bytes
  EXPECT_EQ(u64(24), 7u);     // segment
  EXPECT_EQ(u64(32), 4096u);  // offset
  EXPECT_EQ(u64(40), SegmentTag(kStore, 7));
  EXPECT_EQ(u64(48), 12u);     // sequence
  EXPECT_EQ(u64(56), 8000u);   // payload_bytes
  EXPECT_EQ(u32(64), 2u);      // part_count
  EXPECT_EQ(bytes[68], 2);     // attributes_bytes
  EXPECT_EQ(bytes[70], 1);     // kind
  EXPECT_EQ(bytes[72], 0xd1);  // digest
  EXPECT_EQ(u64(104), 0x1122334455667788u);
  EXPECT_EQ(u32(112), 5000u);
  EXPECT_EQ(u32(128), 3000u);
  EXPECT_EQ(bytes[136], 'h');
  EXPECT_EQ(bytes[137], 'i');
  EXPECT_EQ(bytes[138], 0);
}

TEST(RecordFormatTest, EveryFlippedBitOfAHeaderIsFound) {
  const EntryMeta meta = Meta(1);
  std::vector<uint8_t> bytes = Header(meta, {.segment = 7, .offset = 8192, .sequence = 1});
  const uint64_t tag = SegmentTag(kStore, 7);
  ASSERT_TRUE(DecodeRecordHeader(bytes, 7, 8192, tag).ok());
  for (size_t bit = 0; bit < bytes.size() * 8; bit += bit < 250 * 8 ? 1 : 61) {
    bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    EXPECT_FALSE(DecodeRecordHeader(bytes, 7, 8192, tag).ok()) << bit;
    bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
}

TEST(RecordFormatTest, ARecordElsewhereIsNone) {
  const std::vector<uint8_t> bytes = Header(Meta(1), {.segment = 7, .offset = 8192});
  EXPECT_FALSE(DecodeRecordHeader(bytes, 8, 8192, SegmentTag(kStore, 8)).ok());
  EXPECT_FALSE(DecodeRecordHeader(bytes, 7, 4096, SegmentTag(kStore, 7)).ok());
  EXPECT_FALSE(DecodeRecordHeader(bytes, 7, 8192, SegmentTag({}, 7)).ok());
}

TEST(RecordFormatTest, TheLargestHeaderFitsItsBoundAndComesBackWhole) {
  EntryMeta meta = Meta(1, kPartsPerEntryMax);
  meta.attributes.assign(kAttributesBytesMax, 'z');
  ASSERT_TRUE(ValidateMeta(meta).ok());
  EXPECT_EQ(RecordHeaderBytes(meta), kRecordHeaderBytesMax);
  const auto bytes = Header(meta, {.segment = 1, .offset = 4096, .sequence = 5});
  const auto decoded = DecodeRecordHeader(bytes, 1, 4096, SegmentTag(kStore, 1));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->meta.parts, meta.parts);
  EXPECT_EQ(decoded->meta.attributes, meta.attributes);
  EXPECT_EQ(decoded->location.sequence, 5u);
  EXPECT_EQ(decoded->location.bytes, RecordBytes(meta));
  meta.parts.push_back({.bytes = 1, .xxh3 = 0});
  EXPECT_FALSE(ValidateMeta(meta).ok());
}

// As a writer with a mistake would leave it: the checksum holds.
absl::Status DecodeSealed(std::vector<uint8_t> bytes,
                          const std::function<void(RecordHeader&)>& spoil) {
  RecordHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  spoil(header);
  header.checksum = 0;
  std::memcpy(bytes.data(), &header, sizeof(header));
  header.checksum = Checksum(bytes);
  std::memcpy(bytes.data(), &header, sizeof(header));
  return DecodeRecordHeader(bytes, 7, 8192, SegmentTag(kStore, 7)).status();
}

TEST(RecordFormatTest, AHeaderThatContradictsItselfIsRefusedThoughItsChecksumHolds) {
  const std::vector<uint8_t> bytes = Header(Meta(1), {.segment = 7, .offset = 8192});
  ASSERT_EQ(bytes.size(), kIoAlignment);
  EXPECT_TRUE(DecodeSealed(bytes, [](RecordHeader&) {}).ok());
  const std::function<void(RecordHeader&)> mistakes[] = {
      [](auto& h) { h.part_count = kPartsPerEntryMax; },  // would be read beyond the header
      [](auto& h) { h.part_count = 2; },
      [](auto& h) { h.attributes_bytes = 3; },
      [](auto& h) { h.kind = 3; },
      [](auto& h) { ++h.payload_bytes; },
      [](auto& h) { h.zero = 1; },
  };
  for (const auto& mistake : mistakes) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeSealed(bytes, mistake)));
  }
  for (const size_t at : {sizeof(RecordHeader) + 12, bytes.size() - 1}) {  // a part's zero, the end
    std::vector<uint8_t> more = bytes;
    more[at] = 1;
    EXPECT_TRUE(absl::IsDataLoss(DecodeSealed(more, [](RecordHeader&) {})));
  }
}

TEST(RecordFormatTest, ASegmentHeaderShowsItsDamage) {
  std::vector<uint8_t> page(kSegmentHeaderBytes);
  EncodeSegmentHeader({.segment = 9, .tag = 4, .store = kStore}, page);
  ASSERT_EQ(DecodeSegmentHeader(page)->segment, 9u);
  for (size_t bit = 0; bit < page.size() * 8; bit += bit < 64 * 8 ? 1 : 61) {
    page[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    EXPECT_FALSE(DecodeSegmentHeader(page).ok()) << bit;
    page[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
}

class SegmentScannerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(files_.MakeDirectory("/d").ok());
    file_ = *files_.Open("/d/a", OpenMode::kCreate);
    uint64_t at = kSegmentHeaderBytes;
    for (uint8_t i = 0; i < 6; ++i) at = Write(i, at, 400'000);
    records_end_ = at;
    ASSERT_TRUE(file_->Allocate(at + (3 << 20)).ok());
  }
  uint64_t Write(uint8_t number, uint64_t at, uint64_t bytes) {
    IoBuffer payload(bytes);
    std::fill(payload.bytes().begin(), payload.bytes().end(), static_cast<uint8_t>(number + 1));
    EntryMeta meta;
    meta.key.digest.bytes.fill(number);
    meta.parts = {
        {.bytes = static_cast<uint32_t>(bytes), .xxh3 = Checksum(payload.bytes().first(bytes))}};
    IoBuffer header(RecordHeaderBytes(meta));
    EncodeRecordHeader(meta, {.segment = 1, .offset = at, .sequence = number},
                       SegmentTag(kStore, 1), header.bytes());
    IoRequest write = IoRequest::Write(*file_, at, header.bytes(), payload.bytes());
    files_.Submit({&write, 1});
    EXPECT_TRUE(write.status.ok());
    starts_.push_back(at);
    return at + RecordBytes(meta);
  }
  SegmentScan Scan(bool check = true) {
    auto scan =
        ScanSegment(files_, *file_,
                    {.store = kStore, .segment = 1, .check_payload = [check](const CatalogEntry&) {
                       return check;
                     }});
    EXPECT_TRUE(scan.ok()) << scan.status();
    return *std::move(scan);
  }

  MemoryFileSystem files_;
  std::unique_ptr<File> file_;
  std::vector<uint64_t> starts_;
  uint64_t records_end_ = 0;
};

TEST_F(SegmentScannerTest, FindsAllRecordsAndTheUnwrittenTail) {
  const SegmentScan scan = Scan();
  ASSERT_EQ(scan.records.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(scan.records[i].entry.location.offset, starts_[i]);
    EXPECT_TRUE(scan.records[i].payload_checked && scan.records[i].payload_whole);
  }
  EXPECT_EQ(scan.records_end, records_end_);
  EXPECT_EQ(scan.written_end, records_end_);
  EXPECT_EQ(scan.damaged_runs, 0u);
  EXPECT_FALSE(Scan(/*check=*/false).records[0].payload_checked);
}

TEST_F(SegmentScannerTest, ADamagedHeaderOrPayloadCostsOnlyItsRecord) {
  ASSERT_TRUE(files_.FlipByte("/d/a", starts_[2] + 50).ok());
  ASSERT_TRUE(files_.FlipByte("/d/a", starts_[4] + 100'000).ok());
  const SegmentScan scan = Scan();
  ASSERT_EQ(scan.records.size(), 5u);
  EXPECT_EQ(scan.records[2].entry.location.offset, starts_[3]);
  EXPECT_FALSE(scan.records[3].payload_whole);
  EXPECT_TRUE(scan.records[4].payload_whole);
  EXPECT_EQ(scan.damaged_runs, 1u);
}

TEST_F(SegmentScannerTest, ATornTailIsToldFromDamage) {
  ASSERT_TRUE(files_.FlipByte("/d/a", starts_[5] + 1).ok());
  SegmentScan scan = Scan();
  EXPECT_EQ(scan.records.size(), 5u);
  EXPECT_EQ(scan.records_end, starts_[5]);
  EXPECT_EQ(scan.written_end, records_end_);
  EXPECT_EQ(scan.damaged_runs, 0u);
  // A file that ends within a record, and within an I/O unit.
  ASSERT_TRUE(files_.SetSize("/d/a", starts_[4] + 50'000).ok());
  scan = Scan();
  EXPECT_EQ(scan.records.size(), 4u);
  EXPECT_EQ(scan.records_end, starts_[4]);
}

class SegmentSetTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(files_.MakeDirectory("/d").ok()); }
  std::unique_ptr<SegmentSet> Make(uint64_t capacity, uint64_t segment) {
    return std::make_unique<SegmentSet>(SegmentSet::Options{.directory = "/d",
                                                            .capacity_bytes = capacity,
                                                            .segment_bytes = segment,
                                                            .store = kStore},
                                        files_, clock_, std::vector<SegmentSet::Found>(),
                                        Watermark{.segment = 1, .sequence = 1});
  }
  std::vector<RecordRoom> Live(SegmentSet& set, std::vector<uint64_t> sizes) {
    auto rooms = set.Allocate(sizes, RoomPurpose::kPut);
    EXPECT_TRUE(rooms.ok()) << rooms.status();
    if (!rooms.ok()) return {};
    set.AddLive(*rooms);
    set.Finish(*rooms, RoomOutcome::kKept);
    return *std::move(rooms);
  }

  MemoryFileSystem files_;
  FakeClock clock_;
};

TEST_F(SegmentSetTest, AllOrNoneAndOneSegmentIsKeptForMoving) {
  const auto set = Make(400'000 / 4096 * 4096, 102'400);
  const std::vector<uint64_t> four(4, 81'920);
  EXPECT_EQ(set->Allocate(four, RoomPurpose::kPut).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(set->totals().used_bytes, 0u);
  const std::vector<uint64_t> three(3, 81'920);
  EXPECT_EQ(Live(*set, three).size(), 3u);
  const uint64_t one[] = {81'920};
  EXPECT_FALSE(set->Allocate(one, RoomPurpose::kPut).ok());
  EXPECT_TRUE(set->Allocate(one, RoomPurpose::kMove).ok());
  EXPECT_LE(set->totals().used_bytes, 400'000u);
  EXPECT_EQ(set->totals().used_bytes, files_.UsedBytes());
}

TEST_F(SegmentSetTest, RoomThatStaysUnusedIsWrittenAgain) {
  const auto set = Make(10 << 20, 1 << 20);
  const uint64_t sizes[] = {8192, 8192};
  const auto rooms = *set->Allocate(sizes, RoomPurpose::kPut);
  set->Finish(rooms, RoomOutcome::kUnused);
  const auto again = *set->Allocate(sizes, RoomPurpose::kPut);
  EXPECT_EQ(again[0].location.offset, rooms[0].location.offset);
  EXPECT_GT(again[0].location.sequence, rooms[1].location.sequence);
  set->Finish(again, RoomOutcome::kBroken);
  const auto elsewhere = *set->Allocate(sizes, RoomPurpose::kPut);
  EXPECT_NE(elsewhere[0].location.segment, again[0].location.segment);
}

// After a write that failed. What is counted as free must not come back with a power cut.
TEST_F(SegmentSetTest, TheEndOfABrokenSegmentIsFreeOnlyOnceItIsSynced) {
  for (const bool sync_fails : {false, true}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      MemoryFileSystem memory;
      FaultyFileSystem files(memory);
      ASSERT_TRUE(files.MakeDirectory("/d").ok());
      SegmentSet set({.directory = "/d", .capacity_bytes = 10 << 20, .segment_bytes = 1 << 20},
                     files, clock_, {}, {.segment = 1, .sequence = 1});
      const uint64_t one[] = {8192};
      const auto rooms = *set.Allocate(one, RoomPurpose::kPut);
      FaultPlan plan{.status = absl::UnavailableError("sync")};
      if (sync_fails) plan.fail_at = 2;  // after Truncate
      files.SetPlan(plan);
      set.Finish(rooms, RoomOutcome::kBroken);
      EXPECT_EQ(files.operations(), 2u);
      EXPECT_EQ(set.totals().used_bytes, sync_fails ? 1u << 20 : kSegmentHeaderBytes + 8192);
      SeededRandom random(seed);
      memory.Crash(random);
      EXPECT_LE(memory.UsedBytes(), set.totals().used_bytes) << seed;
    }
  }
}

// By a device that does not truncate: the room for the next file was planned with it.
TEST_F(SegmentSetTest, AnEndThatIsNotCutOffIsNotGivenOutAgain) {
  FaultyFileSystem files(files_);
  constexpr uint64_t kCapacity = 163'840;
  SegmentSet set({.directory = "/d", .capacity_bytes = kCapacity, .segment_bytes = 102'400}, files,
                 clock_, {}, {.segment = 1, .sequence = 1});
  const uint64_t small[] = {40'960}, large[] = {81'920};
  set.Finish(*set.Allocate(small, RoomPurpose::kMove), RoomOutcome::kKept);
  files.SetPlan({.fail_at = 1, .status = absl::UnavailableError("truncate")});
  EXPECT_TRUE(absl::IsResourceExhausted(set.Allocate(large, RoomPurpose::kMove).status()));
  EXPECT_LE(files_.UsedBytes(), kCapacity);
  EXPECT_TRUE(set.Allocate(small, RoomPurpose::kMove).ok());
  EXPECT_LE(files_.UsedBytes(), kCapacity);
  EXPECT_EQ(set.totals().used_bytes, files_.UsedBytes());
}

TEST_F(SegmentSetTest, AHeldSegmentIsNotDeletedUnderItsReader) {
  const auto set = Make(10 << 20, 102'400);
  auto rooms = Live(*set, {81'920, 81'920});
  const std::string path = "/d/" + SegmentSet::FileName(rooms[0].location.segment);
  SegmentHold reader = set->Find(rooms[0].location.segment);
  const RecordLocation dead = rooms[0].location;
  EXPECT_FALSE(set->EmptyWithout(dead.segment, 0));
  EXPECT_TRUE(set->EmptyWithout(dead.segment, 1));
  set->Die(dead);
  rooms.clear();  // they hold it too
  const uint64_t used = set->totals().used_bytes;
  EXPECT_EQ(set->DropEmpty(), 1u);
  EXPECT_EQ(set->Find(dead.segment), nullptr);
  EXPECT_TRUE(*files_.Exists(path));
  EXPECT_EQ(set->totals().used_bytes, used);  // the bytes are still taken
  reader.reset();
  EXPECT_FALSE(*files_.Exists(path));
  EXPECT_LT(set->totals().used_bytes, used);
}

TEST_F(SegmentSetTest, TheWatermarkStopsAtWhatIsInFlight) {
  const auto set = Make(10 << 20, 102'400);
  const uint64_t one[] = {81'920};
  const auto first = *set->Allocate(one, RoomPurpose::kPut);
  const auto second = *set->Allocate(one, RoomPurpose::kPut);
  Watermark mark = set->watermark(second);
  EXPECT_EQ(mark.segment, first[0].location.segment);
  EXPECT_EQ(mark.sequence, first[0].location.sequence);
  mark = set->watermark(first);
  EXPECT_EQ(mark.segment, second[0].location.segment);
  EXPECT_EQ(mark.sequence, second[0].location.sequence);
  set->Finish(first, RoomOutcome::kKept);
  set->Finish(second, RoomOutcome::kKept);
  mark = set->watermark({});
  EXPECT_EQ(mark.segment, second[0].location.segment);
  EXPECT_EQ(mark.sequence, second[0].location.sequence + 1);
}

// A headless file counts as unfinished, and is removed, only from the watermark on.
TEST_F(SegmentSetTest, TheWatermarkStopsBeforeASegmentThatIsBeingMade) {
  struct AskedClock final : public Clock {
    int64_t NowNanos() const override { return 0; }
    int64_t WallMicros() const override {  // wanted for the header of a file that is there already
      marks.push_back(set->watermark({}).segment);
      return 0;
    }
    mutable std::vector<uint64_t> marks;
    SegmentSet* set = nullptr;
  } asked;
  SegmentSet set({.directory = "/d", .capacity_bytes = 10 << 20, .segment_bytes = 1 << 20}, files_,
                 asked, {}, {.segment = 1, .sequence = 1});
  asked.set = &set;
  const uint64_t large[] = {700'000 / 4096 * 4096};
  for (int i = 0; i < 3; ++i) Live(set, {large[0]});
  EXPECT_EQ(asked.marks, (std::vector<uint64_t>{1, 2, 3}));
}

TEST_F(SegmentSetTest, AFullFileSystemLeavesNoFileAndNoBytesBehind) {
  const auto set = Make(10 << 20, 1 << 20);
  files_.SetCapacity(500'000);
  const uint64_t one[] = {8192};
  const auto rooms = set->Allocate(one, RoomPurpose::kPut);
  EXPECT_EQ(rooms.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(set->totals().used_bytes, 0u);
  EXPECT_TRUE(files_.List("/d")->empty());
  files_.SetCapacity(UINT64_MAX);
  EXPECT_TRUE(set->Allocate(one, RoomPurpose::kPut).ok());
}

TEST(SegmentNameTest, NamesRoundTripAndOthersAreNone) {
  EXPECT_EQ(SegmentSet::FileName(0x1f), "000000000000001f.seg");
  EXPECT_EQ(SegmentSet::ParseFileName("000000000000001f.seg"), 0x1fu);
  for (const char* name : {"", "1f.seg", "000000000000001F.seg", "000000000000001f.segx",
                           "000000000000001g.seg", "000000000000001f"}) {
    EXPECT_EQ(SegmentSet::ParseFileName(name), std::nullopt) << name;
  }
}

// Found by bit_flips: the table was read to its end, beyond that of the header.
TEST(RecordFormatTest, AHeaderWhosePartsDoNotFitIntoItIsRefused) {
  EntryMeta meta;
  meta.key.kind = EntryKind::kRows;
  meta.parts = {{.bytes = 5000, .xxh3 = 1}};
  const RecordLocation at{.segment = 7, .offset = 4096, .bytes = 0, .sequence = 1};
  std::vector<uint8_t> header(RecordHeaderBytes(meta));
  EncodeRecordHeader(meta, at, /*tag=*/9, header);
  RecordHeader forged;
  std::memcpy(&forged, header.data(), sizeof(forged));
  forged.part_count = kPartsPerEntryMax;
  forged.checksum = 0;
  std::memcpy(header.data(), &forged, sizeof(forged));
  forged.checksum = Checksum(header);
  std::memcpy(header.data(), &forged, sizeof(forged));
  EXPECT_TRUE(absl::IsDataLoss(DecodeRecordHeader(header, 7, 4096, 9).status()));
}

}  // namespace
}  // namespace cairn::store
