// Recovery (store/recovery) over a store's directory in any state: FORMAT file, watermark, uuid of
// the catalog and up to three segments.
//
// flags u8, FORMAT length u8 and text, watermark (3 u64, if flagged), then each segment: id u8,
// header kind u8, steps of segment_image.h.
#include "store/recovery/recovery.h"

#include <map>

#include "store/device/memory_file_system.h"
#include "store/index/memory_catalog.h"
#include "store/recovery/check.h"
#include "store/recovery/store_files.h"
#include "store/segment/segment_set.h"
#include "tests/fuzz/segment_image.h"

namespace cairn::store {
namespace {

using fuzz::FuzzInput;

constexpr StoreUuid kStore = {1, 2, 3};
constexpr StoreUuid kOther = {9};
constexpr char kDirectory[] = "/d";
enum Flags : uint8_t {
  kWriteFormat = 1,
  kFormatFromInput = 2,
  kCatalogUuid = 4,
  kCatalogOther = 8,
  kWatermark = 16,
  kCatalogDamaged = 32,
  kMarked = 64,
};

struct Disk {
  MemoryFileSystem files;
  std::shared_ptr<MemoryCatalogDisk> catalog = std::make_shared<MemoryCatalogDisk>();
  SeededRandom random{1};
};

void WriteFormat(uint8_t flags, const std::string& text, Disk& disk) {
  if ((flags & kWriteFormat) == 0) return;
  if ((flags & kFormatFromInput) == 0) {
    FUZZ_CHECK_OK(WriteFormatFile(kDirectory, kStore, disk.files));
    return;
  }
  const absl::StatusOr<std::unique_ptr<File>> file =
      disk.files.Open(std::string(kDirectory) + "/FORMAT", OpenMode::kCreate);
  FUZZ_CHECK_OK(file.status());
  IoBuffer page(kIoAlignment);
  std::copy(text.begin(), text.end(), page.bytes().begin());
  IoRequest write = IoRequest::Write(**file, 0, page.bytes());
  disk.files.Submit({&write, 1});
  FUZZ_CHECK_OK(write.status);
}

void WriteCatalog(uint8_t flags, const Watermark& mark, Disk& disk) {
  MemoryCatalog catalog(disk.catalog);
  FUZZ_CHECK_OK(catalog.Open(kDirectory));
  CatalogBatch batch;
  if ((flags & kCatalogUuid) != 0) {
    batch.values.emplace_back(kValueUuid, UuidText((flags & kCatalogOther) != 0 ? kOther : kStore));
  }
  if ((flags & kWatermark) != 0) batch.values.emplace_back(kValueWatermark, EncodeWatermark(mark));
  FUZZ_CHECK_OK(catalog.Apply(batch, /*sync=*/true));
  if ((flags & kCatalogDamaged) != 0) disk.catalog->Damage();
  if ((flags & kMarked) != 0) FUZZ_CHECK_OK(MarkForRebuild(kDirectory, disk.files));
}

void WriteSegments(FuzzInput& input, Disk& disk) {
  FUZZ_CHECK_OK(disk.files.MakeDirectory(SegmentsDirectory(kDirectory)));
  for (int i = 0; i < 3 && !input.empty(); ++i) {
    const uint64_t id = input.Take<uint8_t>() % 8;
    const bool foreign = input.Take<uint8_t>() % 4 == 3;
    fuzz::SegmentImage image(foreign ? kOther : kStore, id);
    image.Build(input);
    const std::string path = SegmentsDirectory(kDirectory) + "/" + SegmentSet::FileName(id);
    const absl::StatusOr<std::unique_ptr<File>> file = disk.files.Open(path, OpenMode::kCreate);
    if (absl::IsAlreadyExists(file.status())) continue;
    FUZZ_CHECK_OK(file.status());
    image.Write(disk.files, **file);
  }
}

std::map<EntryKey, RecordLocation> EntriesOf(const Catalog& catalog) {
  std::map<EntryKey, RecordLocation> entries;
  FUZZ_CHECK_OK(catalog.ForEach([&](const CatalogEntry& entry) {
    return entries.emplace(entry.meta.key, entry.location).second;
  }));
  return entries;
}

// What was found lies in the files that are there, and everything new goes behind it.
void CheckRecovered(const RecoveredStore& store, const Catalog& catalog) {
  std::map<uint64_t, const SegmentSet::Found*> segments;
  for (const SegmentSet::Found& found : store.segments) {
    FUZZ_CHECK(segments.emplace(found.id, &found).second);
    FUZZ_CHECK(found.append_at <= found.size);
    FUZZ_CHECK(found.id < store.next.segment);
  }
  for (const auto& [key, at] : EntriesOf(catalog)) {
    const auto segment = segments.find(at.segment);
    FUZZ_CHECK(segment != segments.end());
    FUZZ_CHECK(at.offset + at.bytes <= segment->second->append_at);
    FUZZ_CHECK(at.sequence < store.next.sequence);
  }
}

}  // namespace
}  // namespace cairn::store

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::store;
  cairn::fuzz::FuzzInput input(data, size);
  Disk disk;
  FUZZ_CHECK_OK(disk.files.MakeDirectory(kDirectory));
  const auto flags = input.Take<uint8_t>();
  WriteFormat(flags, input.TakeText(input.Take<uint8_t>()), disk);
  Watermark mark;
  if ((flags & kWatermark) != 0) {
    mark.segment = input.Take<uint64_t>();
    mark.end = input.Take<uint64_t>();
    mark.sequence = input.Take<uint64_t>();
  }
  WriteCatalog(flags, mark, disk);
  WriteSegments(input, disk);

  RecoveryReport report;
  MemoryCatalog catalog(disk.catalog);
  const auto store = Recover(kDirectory, disk.files, catalog, disk.random, report);
  if (!store.ok()) {
    // Damage is repaired around; only another version's store is left alone.
    cairn::fuzz::CheckRefusal(store.status());
    FUZZ_CHECK(absl::IsFailedPrecondition(store.status()));
    return 0;
  }
  CheckRecovered(*store, catalog);
  // All that it found is whole, and a second start finds the same and has nothing to repair.
  MemoryCatalog looked_at(disk.catalog);
  const absl::StatusOr<CheckReport> checked = CheckDirectory(kDirectory, disk.files, looked_at);
  FUZZ_CHECK_OK(checked.status());
  FUZZ_CHECK(checked->damaged_entries == 0 && !checked->catalog_damaged());
  RecoveryReport second_report;
  MemoryCatalog second_catalog(disk.catalog);
  const auto second = Recover(kDirectory, disk.files, second_catalog, disk.random, second_report);
  FUZZ_CHECK_OK(second.status());
  FUZZ_CHECK(second->store == store->store && !second_report.catalog_rebuilt);
  FUZZ_CHECK(second_report.adopted_entries == 0);
  FUZZ_CHECK(EntriesOf(second_catalog) == EntriesOf(catalog));
  return 0;
}
