// bit_flips: damage of what is stored, down to one bit, and damage that matches its checksum.
//
// Goal: every flip is detected or harmless; each costs at most its one entry, is counted once, and
// the entry can be put again. A decoder given bytes with a checksum that fits and a meaning that
// does not refuses them; it never crashes.
//
// Method: every bit of FORMAT, of a segment's header, of a record's header and of a catalog's
// value, in every run; then, by the seed, random bits of records through the whole tier; two
// records exchanged, an older segment restored, a foreign payload under a good header; and headers
// and values changed at random with their checksums made anew.
#include <algorithm>
#include <cstring>

#include "store/base/checksum.h"
#include "store/index/catalog_codec.h"
#include "store/segment/record_format.h"
#include "store/tier/tier_test_util.h"
#include "tests/faults/campaign.h"

namespace cairn::faults {
namespace {

using store::CatalogEntry;
using store::DiskTier;
using store::MakeEntry;
using store::RecordCheck;
using store::RecordLocation;
using store::TestDisk;
using store::TestEntry;

constexpr uint64_t kEntries = 24;
constexpr uint64_t kFlipsPerSeed = 100;
constexpr uint64_t kForgeriesPerSeed = 200;
const std::vector<uint32_t> kParts = {5000, 3000};

TestEntry EntryOf(uint64_t number) { return MakeEntry(number, kParts); }

absl::Status Read(DiskTier& tier, uint64_t number, RecordCheck check) {
  const TestEntry expected = EntryOf(number);
  store::IoBuffer buffer(expected.meta.payload_bytes());
  store::DiskRead read{
      .key = expected.meta.key, .destination = buffer.bytes(), .status = {}, .meta = {}};
  tier.ReadBatch({&read, 1}, check);
  if (!read.status.ok()) return read.status;
  const std::span<const uint8_t> bytes = expected.payload.bytes().first(8000);
  Expect(std::equal(bytes.begin(), bytes.end(), buffer.bytes().begin()), "P1: wrong bytes");
  return absl::OkStatus();
}

// A store of whole entries, in one segment or two.
struct Rig {
  explicit Rig(uint64_t seed) : random(seed) {
    disk.random = SeededRandom(seed);
    Open();
    for (uint64_t number = 0; number < kEntries; ++number) Put(number);
  }
  void Open() {
    tier = nullptr;
    absl::StatusOr<std::unique_ptr<DiskTier>> opened = disk.TryOpen();
    Expect(opened.ok(), "open answers " + opened.status().ToString());
    tier = *std::move(opened);
    const absl::Status surveyed = tier->Survey(nullptr);
    Expect(surveyed.ok(), "survey answers " + surveyed.ToString());
  }
  void Put(uint64_t number) {
    const TestEntry entry = EntryOf(number);
    const absl::Status put = tier->Put({{entry.put()}});
    Expect(put.ok(), "put answers " + put.ToString());
  }
  RecordLocation LocationOf(uint64_t number) const {
    store::MemoryCatalog catalog(disk.catalog);
    const auto entry = catalog.Get(store::TestKey(number));
    Expect(entry.ok() && entry->has_value(), "an entry that was put is not catalogued");
    return (*entry)->location;
  }
  void Flip(const std::string& path, uint64_t byte, int bit) {
    const absl::Status flipped = disk.memory.FlipByte(path, byte, static_cast<uint8_t>(1u << bit));
    Expect(flipped.ok(), "flip answers " + flipped.ToString());
  }
  void ExpectAllBut(uint64_t lost) {
    for (uint64_t number = 0; number < kEntries; ++number) {
      if (number == lost) continue;
      const absl::Status status = Read(*tier, number, RecordCheck::kPayload);
      Expect(status.ok(),
             absl::StrCat("P10: entry ", number, " went as well: ", status.ToString()));
    }
  }
  uint64_t Pick(uint64_t of) { return random.Next() % of; }

  SeededRandom random;
  TestDisk disk;
  std::unique_ptr<DiskTier> tier;
};

// ---- every bit ----

// Each time the store opens, and holds all it held.
void EveryBitOfFormat(Rig& rig, Counts& counts) {
  const std::string path = std::string(TestDisk::kDirectory) + "/FORMAT";
  constexpr uint64_t kTextBytes = 83;  // the four lines, and the padding's first byte
  for (uint64_t byte = 0; byte < kTextBytes; ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      rig.Flip(path, byte, bit);
      rig.Open();
      Expect(!rig.disk.report.catalog_rebuilt, "a bit of FORMAT cost the catalog");
      const absl::Status there = Read(*rig.tier, byte % kEntries, RecordCheck::kWhole);
      Expect(there.ok(), "a bit of FORMAT cost an entry: " + there.ToString());
      // It may have been written anew; else the bit goes back.
      rig.tier = nullptr;
      if (rig.disk.memory.Unlink(path).ok()) rig.Open();
      ++counts["format_bits"];
    }
  }
}

void EveryBitOfSegmentHeader(Counts& counts) {
  store::IoBuffer page(store::kSegmentHeaderBytes);
  store::EncodeSegmentHeader({.segment = 7, .tag = 9, .created_wall_micros = 1}, page.bytes());
  Expect(store::DecodeSegmentHeader(page.bytes()).ok(), "a good segment header is refused");
  for (uint64_t bit = 0; bit < page.bytes().size() * 8; ++bit) {
    page.bytes()[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    Expect(!store::DecodeSegmentHeader(page.bytes()).ok(), "a flip in a segment header passes");
    page.bytes()[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    ++counts["segment_header_bits"];
  }
}

const RecordLocation kPlace{.segment = 7, .offset = 4096, .bytes = 12288, .sequence = 12};
constexpr uint64_t kTag = 0x0123456789abcdef;

void EveryBitOfRecordHeader(Counts& counts) {
  const TestEntry entry = EntryOf(1);
  store::IoBuffer header(store::RecordHeaderBytes(entry.meta));
  store::EncodeRecordHeader(entry.meta, kPlace, kTag, header.bytes());
  const auto decode = [&] {
    return store::DecodeRecordHeader(header.bytes(), kPlace.segment, kPlace.offset, kTag);
  };
  Expect(decode().ok(), "a good record header is refused");
  for (uint64_t bit = 0; bit < header.bytes().size() * 8; ++bit) {
    header.bytes()[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    Expect(!decode().ok(), "a flip in a record header passes");
    header.bytes()[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    ++counts["record_header_bits"];
  }
}

void EveryBitOfCatalogValue(Counts& counts) {
  const CatalogEntry entry{.meta = EntryOf(1).meta, .location = kPlace};
  std::string key = store::EncodeEntryKey(entry.meta.key);
  std::string value = store::EncodeEntryValue(entry);
  Expect(store::DecodeEntry(key, value).ok(), "a good catalog value is refused");
  for (std::string* text : {&key, &value}) {
    for (uint64_t bit = 0; bit < text->size() * 8; ++bit) {
      char& byte = (*text)[bit / 8];
      byte = static_cast<char>(byte ^ (1 << bit % 8));
      Expect(!store::DecodeEntry(key, value).ok(), "a flip in a catalog value passes");
      byte = static_cast<char>(byte ^ (1 << bit % 8));
      ++counts["catalog_value_bits"];
    }
  }
}

// ---- through the whole tier ----

// One flip: found by whoever looks at the whole record, counted once, the entry put again.
void RandomFlip(Rig& rig, Counts& counts) {
  const uint64_t number = rig.Pick(kEntries);
  const RecordLocation at = rig.LocationOf(number);
  const uint64_t header = store::RecordHeaderBytes(EntryOf(number).meta);
  const bool in_header = rig.Pick(4) == 0;
  const uint64_t byte = in_header ? rig.Pick(header) : header + rig.Pick(8000);
  rig.Flip(rig.disk.SegmentPath(at.segment), at.offset + byte, static_cast<int>(rig.Pick(8)));
  const uint64_t before = rig.tier->stats().checksum_failures;
  if (in_header) {
    // A fetch does not need the header.
    const absl::Status payload = Read(*rig.tier, number, RecordCheck::kPayload);
    Expect(payload.ok(), "a flip in a header cost a fetch: " + payload.ToString());
  }
  const absl::Status status = Read(*rig.tier, number, RecordCheck::kWhole);
  Expect(absl::IsDataLoss(status), "a flip is not detected: " + status.ToString());
  Expect(absl::IsNotFound(Read(*rig.tier, number, RecordCheck::kWhole)), "damage is found again");
  const uint64_t counted = rig.tier->stats().checksum_failures - before;
  Expect(counted == 1, absl::StrCat("one flip is counted ", counted, " times"));
  rig.Put(number);
  Expect(Read(*rig.tier, number, RecordCheck::kWhole).ok(), "it cannot be put again");
  ++counts[in_header ? "flips_in_headers" : "flips_in_payloads"];
}

void FlipCatalogValue(Rig& rig, Counts& counts) {
  const uint64_t number = rig.Pick(kEntries);
  const auto mask = static_cast<uint8_t>(1u << rig.Pick(8));
  Expect(rig.disk.catalog->FlipByte(store::TestKey(number), rig.Pick(60), mask), "no such value");
  const uint64_t before = rig.tier->stats().checksum_failures;
  Expect(!Read(*rig.tier, number, RecordCheck::kPayload).ok(), "a damaged catalog value is used");
  Expect(rig.tier->stats().checksum_failures == before + 1, "a damaged value is not counted once");
  rig.Put(number);
  ++counts["flips_in_catalog"];
}

std::vector<uint8_t> ReadRaw(Rig& rig, const RecordLocation& at) {
  auto file = rig.disk.memory.Open(rig.disk.SegmentPath(at.segment), store::OpenMode::kReadWrite);
  store::IoBuffer buffer(at.bytes);
  store::IoRequest read = store::IoRequest::Read(**file, at.offset, buffer.bytes());
  rig.disk.memory.Submit({&read, 1});
  return {buffer.bytes().begin(), buffer.bytes().end()};
}

void WriteRaw(Rig& rig, const RecordLocation& at, uint64_t from, std::span<const uint8_t> bytes) {
  auto file = rig.disk.memory.Open(rig.disk.SegmentPath(at.segment), store::OpenMode::kReadWrite);
  store::IoBuffer buffer(bytes.size());
  std::copy(bytes.begin(), bytes.end(), buffer.bytes().begin());
  store::IoRequest write = store::IoRequest::Write(**file, at.offset + from, buffer.bytes());
  rig.disk.memory.Submit({&write, 1});
  Expect((*file)->Sync().ok(), "sync fails");
}

// Both are whole records, each with its checksums; neither is where it belongs.
void SwapTwoRecords(Rig& rig, Counts& counts) {
  const uint64_t a = rig.Pick(kEntries);
  const uint64_t b = (a + 1 + rig.Pick(kEntries - 1)) % kEntries;
  const RecordLocation at_a = rig.LocationOf(a), at_b = rig.LocationOf(b);
  const std::vector<uint8_t> bytes_a = ReadRaw(rig, at_a), bytes_b = ReadRaw(rig, at_b);
  WriteRaw(rig, at_a, 0, bytes_b);
  WriteRaw(rig, at_b, 0, bytes_a);
  for (const uint64_t number : {a, b}) {
    Expect(absl::IsDataLoss(Read(*rig.tier, number, RecordCheck::kPayload)),
           "an exchanged record is handed out");
    rig.Put(number);
  }
  ++counts["records_swapped"];
}

void ForeignPayload(Rig& rig, Counts& counts) {
  const uint64_t a = rig.Pick(kEntries);
  const uint64_t b = (a + 1 + rig.Pick(kEntries - 1)) % kEntries;
  const uint64_t header = store::RecordHeaderBytes(EntryOf(a).meta);
  const std::vector<uint8_t> foreign = ReadRaw(rig, rig.LocationOf(b));
  WriteRaw(rig, rig.LocationOf(a), header, std::span(foreign).subspan(header));
  Expect(absl::IsDataLoss(Read(*rig.tier, a, RecordCheck::kWhole)), "a foreign payload passes");
  rig.Put(a);
  rig.ExpectAllBut(a);
  ++counts["foreign_payloads"];
}

// The place is used again by another entry, then its older bytes come back, as from a stale mirror.
void OldGeneration(Rig& rig, Counts& counts) {
  const uint64_t number = rig.Pick(kEntries);
  const RecordLocation at = rig.LocationOf(number);
  std::vector<uint8_t> zeroes(at.bytes);
  const std::vector<uint8_t> older =
      rig.Pick(2) == 0 ? zeroes : ReadRaw(rig, rig.LocationOf((number + 1) % kEntries));
  WriteRaw(rig, at, 0, older);
  // The catalog is lost: only what the segments say of themselves counts.
  rig.tier = nullptr;
  rig.disk.catalog->Delete();
  rig.Open();
  const absl::Status status = Read(*rig.tier, number, RecordCheck::kWhole);
  // An earlier put of the same entry may still lie elsewhere, whole.
  Expect(status.ok() || absl::IsNotFound(status), "an old generation: " + status.ToString());
  if (!status.ok()) rig.Put(number);
  rig.ExpectAllBut(number);
  ++counts["old_generations"];
}

// ---- checksums that fit ----

template <typename Header>
void Recheck(std::span<uint8_t> bytes) {
  const uint64_t zero = 0;
  std::memcpy(bytes.data() + offsetof(Header, checksum), &zero, sizeof(zero));
  const uint64_t checksum = Checksum(bytes);
  std::memcpy(bytes.data() + offsetof(Header, checksum), &checksum, sizeof(checksum));
}

// A few bytes of the first `bytes` become anything, small numbers above all.
void Mutate(Rig& rig, uint8_t* data, uint64_t bytes) {
  for (uint64_t i = 1 + rig.Pick(4); i > 0; --i) {
    data[rig.Pick(bytes)] = static_cast<uint8_t>(rig.Pick(2) == 0 ? rig.Pick(4) : rig.Pick(256));
  }
}

void ForgeRecordHeader(Rig& rig, Counts& counts) {
  EntryMeta meta = EntryOf(1).meta;
  if (rig.Pick(2) == 0)
    meta.parts.assign(1 + rig.Pick(kPartsPerEntryMax), {.bytes = 16, .xxh3 = 1});
  // In memory of exactly its size: a decoder that goes beyond it is seen.
  std::vector<uint8_t> header(store::RecordHeaderBytes(meta));
  store::EncodeRecordHeader(meta, kPlace, kTag, header);
  Mutate(rig, header.data(), sizeof(store::RecordHeader) + 64);
  const uint64_t peeked = store::PeekRecordHeaderBytes(header);
  if (peeked > 0 && peeked <= header.size()) {
    Recheck<store::RecordHeader>(std::span(header).first(peeked));
  }
  const absl::StatusOr<CatalogEntry> entry =
      store::DecodeRecordHeader(header, kPlace.segment, kPlace.offset, kTag);
  ++counts[entry.ok() ? "forgeries_consistent" : "forgeries_refused"];
  if (!entry.ok()) return;
  Expect(store::ValidateMeta(entry->meta).ok(), "a header beyond its bounds is believed");
  Expect(store::RecordHeaderBytes(entry->meta) == peeked, "a header of another size is believed");
}

void ForgeSegmentHeader(Rig& rig, Counts& counts) {
  std::vector<uint8_t> page(store::kSegmentHeaderBytes);
  store::EncodeSegmentHeader({.segment = 7, .tag = 9}, page);
  Mutate(rig, page.data(), sizeof(store::SegmentHeader));
  Recheck<store::SegmentHeader>(page);
  const absl::StatusOr<store::SegmentHeader> header = store::DecodeSegmentHeader(page);
  ++counts[header.ok() ? "forgeries_consistent" : "forgeries_refused"];
  if (header.ok()) {
    Expect(header->version == store::kFormatVersion && header->magic == store::kSegmentMagic,
           "a segment of another format is believed");
  }
}

void ForgeCatalogValue(Rig& rig, Counts& counts) {
  const CatalogEntry good{.meta = EntryOf(1).meta, .location = kPlace};
  std::string key = store::EncodeEntryKey(good.meta.key);
  std::string value = store::EncodeEntryValue(good);
  if (rig.Pick(4) == 0) key.back() = static_cast<char>(rig.Pick(256));
  std::string body = value.substr(0, value.size() - sizeof(uint64_t));
  Mutate(rig, reinterpret_cast<uint8_t*>(body.data()), body.size());
  if (rig.Pick(4) == 0) body.resize(rig.Pick(body.size()));
  const std::string both = key + body;
  const uint64_t checksum = Checksum({reinterpret_cast<const uint8_t*>(both.data()), both.size()});
  value = body + std::string(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  const absl::StatusOr<CatalogEntry> entry = store::DecodeEntry(key, value);
  ++counts[entry.ok() ? "forgeries_consistent" : "forgeries_refused"];
  if (!entry.ok()) return;
  Expect(store::ValidateMeta(entry->meta).ok(), "a catalog value beyond its bounds is believed");
  const uint64_t header = entry->location.bytes - RoundUpToIo(entry->meta.payload_bytes());
  Expect(header >= kIoAlignment && header <= store::kRecordHeaderBytesMax &&
             header % kIoAlignment == 0 && entry->location.offset % kIoAlignment == 0,
         "a catalog value with an impossible place is believed");
}

void All(uint64_t seed, Counts& counts) {
  Rig rig(seed);
  if (seed == 1) {
    EveryBitOfFormat(rig, counts);
    EveryBitOfSegmentHeader(counts);
    EveryBitOfRecordHeader(counts);
    EveryBitOfCatalogValue(counts);
  }
  for (uint64_t i = 0; i < kFlipsPerSeed; ++i) {
    RandomFlip(rig, counts);
    if (i % 10 == 0) FlipCatalogValue(rig, counts);
  }
  rig.ExpectAllBut(kEntries);
  SwapTwoRecords(rig, counts);
  ForeignPayload(rig, counts);
  OldGeneration(rig, counts);
  for (uint64_t i = 0; i < kForgeriesPerSeed; ++i) {
    ForgeRecordHeader(rig, counts);
    ForgeSegmentHeader(rig, counts);
    ForgeCatalogValue(rig, counts);
  }
}

}  // namespace
}  // namespace cairn::faults

int main(int argc, char** argv) {
  cairn::faults::Campaign campaign("bit_flips", 100);
  return campaign.Run(argc, argv, cairn::faults::All);
}
