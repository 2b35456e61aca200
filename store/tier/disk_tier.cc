#include "store/tier/disk_tier.h"

#include <algorithm>
#include <map>

#include "store/base/fault_point.h"
#include "store/tier/disk_tier_impl.h"

namespace cairn::store {
namespace {

// A location read from the catalog may have been moved by Reclaim before its segment is held. Each
// such round means that a whole segment was moved meanwhile.
constexpr int kLookupsMax = 8;

}  // namespace

absl::Status CheckRead(const IoRequest& read, const CatalogEntry& entry, uint64_t tag,
                       RecordCheck check) {
  CAIRN_RETURN_IF_ERROR(read.status);
  if (read.cut_short()) return absl::DataLossError("disk tier: the segment ends within the record");
  absl::Status status;
  if (check == RecordCheck::kWhole) {
    const absl::StatusOr<CatalogEntry> record =
        DecodeRecordHeader(read.slices[0], entry.location.segment, entry.location.offset, tag);
    status = record.status();
    if (status.ok() &&
        (record->meta.key != entry.meta.key || record->meta.parts != entry.meta.parts ||
         record->location.bytes != entry.location.bytes)) {
      status = absl::DataLossError("record of another entry");
    }
  }
  if (status.ok() && read.parts_seen != PartsSeen::kMatch)
    status = VerifyParts(entry.meta, read.slices[1]);
  if (status.ok()) return status;
  return absl::DataLossError(absl::StrCat("damaged in ", read.file->path(), " at ", read.offset,
                                          ": ", std::string(status.message())));
}

DiskTier::DiskTier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DiskTier::~DiskTier() = default;

absl::StatusOr<std::unique_ptr<DiskTier>> DiskTier::Open(const Options& options, FileSystem& files,
                                                         std::unique_ptr<Catalog> catalog,
                                                         Clock& clock, RecoveryReport* report) {
  RecoveryReport unread;
  RecoveryReport& found = report != nullptr ? *report : unread;
  found = RecoveryReport{};
  CAIRN_RETURN_IF_ERROR(files.MakeDirectory(options.directory));
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<FileLock> lock, files.Lock(options.directory + "/LOCK"));
  Random& random = options.random != nullptr ? *options.random : SystemRandom();
  CAIRN_ASSIGN_OR_RETURN(RecoveredStore store,
                         Recover(options.directory, files, *catalog, random, found));
  return std::unique_ptr<DiskTier>(new DiskTier(std::make_unique<Impl>(
      options, files, std::move(catalog), std::move(lock), clock, std::move(store))));
}

// ---- find and read ----

// A damaged catalog value costs its entry: counted, forgotten, a miss.
absl::StatusOr<std::optional<CatalogEntry>> DiskTier::Impl::Get(const EntryKey& key) {
  absl::StatusOr<std::optional<CatalogEntry>> entry = catalog->Get(key);
  if (!absl::IsDataLoss(entry.status())) return entry;
  CAIRN_RETURN_IF_ERROR(ForgetDamaged(key, entry.status()));
  return std::nullopt;
}

absl::StatusOr<std::optional<EntryMeta>> DiskTier::Find(const EntryKey& key) {
  CAIRN_ASSIGN_OR_RETURN(std::optional<CatalogEntry> entry, impl_->Get(key));
  if (!entry.has_value()) return std::nullopt;
  return std::move(entry->meta);
}

bool DiskTier::Contains(const EntryKey& key) {
  const absl::StatusOr<std::optional<CatalogEntry>> entry = impl_->Get(key);
  return entry.ok() && entry->has_value();
}

std::vector<std::optional<EntryMeta>> DiskTier::FindMany(std::span<const EntryKey> keys) {
  std::vector<absl::StatusOr<std::optional<CatalogEntry>>> entries = impl_->catalog->MultiGet(keys);
  std::vector<std::optional<EntryMeta>> found(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    if (absl::IsDataLoss(entries[i].status())) {
      impl_->ForgetDamaged(keys[i], entries[i].status()).IgnoreError();
    } else if (entries[i].ok() && entries[i]->has_value()) {
      found[i] = std::move((*entries[i])->meta);
    }
  }
  return found;
}

std::vector<absl::StatusOr<std::optional<DiskTier::Impl::Located>>> DiskTier::Impl::Locate(
    std::span<const EntryKey> keys) {
  std::vector<absl::StatusOr<std::optional<Located>>> results;
  std::vector<absl::StatusOr<std::optional<CatalogEntry>>> entries = catalog->MultiGet(keys);
  for (size_t i = 0; i < keys.size(); ++i) {
    absl::StatusOr<std::optional<CatalogEntry>> entry = std::move(entries[i]);
    for (int lookup = 0;; ++lookup) {
      if (absl::IsDataLoss(entry.status())) {
        const absl::Status forgotten = ForgetDamaged(keys[i], entry.status());
        results.push_back(forgotten.ok() ? entry.status() : forgotten);
        break;
      }
      if (!entry.ok() || !entry->has_value()) {
        if (entry.ok()) {
          results.push_back(std::optional<Located>());
        } else {
          results.push_back(entry.status());
        }
        break;
      }
      if (SegmentHold segment = segments.Find((*entry)->location.segment); segment != nullptr) {
        results.push_back(Located{.entry = **std::move(entry), .segment = std::move(segment)});
        break;
      }
      const absl::StatusOr<std::optional<CatalogEntry>> again = catalog->Get(keys[i]);
      if (again.ok() && again->has_value() && (*again)->location == (*entry)->location) {
        // Not moved: the catalog names a segment that is not there.
        const absl::Status forgotten = ForgetStale({&**entry, 1});
        if (forgotten.ok()) {
          results.push_back(std::optional<Located>());
        } else {
          results.push_back(forgotten);
        }
        break;
      }
      if (lookup == kLookupsMax) {
        results.push_back(absl::UnavailableError("disk tier: the entry moves; retry"));
        break;
      }
      entry = again;
    }
  }
  return results;
}

absl::StatusOr<IoRequest> DiskTier::Impl::ReadRequest(const Located& at,
                                                      std::span<uint8_t> destination,
                                                      std::span<uint8_t> header) const {
  const uint64_t bytes = RoundUpToIo(at.entry.meta.payload_bytes());
  if (destination.size() < bytes || !AlignedSpan(destination)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "disk tier: the entry needs ", bytes, " bytes at an address that is a multiple of ",
        kIoAlignment, "; ", destination.size(), " were given"));
  }
  const uint64_t header_bytes = RecordHeaderBytes(at.entry.meta);
  const RecordLocation& place = at.entry.location;
  const uint64_t skipped = header.empty() ? header_bytes : 0;
  IoRequest read = IoRequest::Read(at.segment->file(), place.offset + skipped,
                                   header.first(header_bytes - skipped), destination.first(bytes));
  read.parts = at.entry.meta.parts;
  return read;
}

void DiskTier::ReadBatch(std::span<DiskRead> reads, RecordCheck check) {
  std::vector<EntryKey> keys;
  for (const DiskRead& read : reads) keys.push_back(read.key);
  std::vector<absl::StatusOr<std::optional<Impl::Located>>> located = impl_->Locate(keys);

  IoBuffer headers(check == RecordCheck::kWhole ? reads.size() * kRecordHeaderBytesMax : 0);
  std::vector<IoRequest> requests;
  std::vector<size_t> index;  // of the request's read
  for (size_t i = 0; i < reads.size(); ++i) {
    DiskRead& read = reads[i];
    read.meta = EntryMeta{};
    read.status = located[i].status();
    if (!read.status.ok()) continue;
    if (!located[i]->has_value()) {
      read.status = absl::NotFoundError("disk tier: no such entry");
      continue;
    }
    const std::span<uint8_t> header =
        check == RecordCheck::kWhole
            ? headers.bytes().subspan(i * kRecordHeaderBytesMax, kRecordHeaderBytesMax)
            : std::span<uint8_t>();
    absl::StatusOr<IoRequest> request = impl_->ReadRequest(**located[i], read.destination, header);
    read.status = request.status();
    if (!read.status.ok()) continue;
    requests.push_back(*std::move(request));
    index.push_back(i);
  }
  impl_->files.Submit(requests, [&](IoRequest& request) {
    const size_t i = index[static_cast<size_t>(&request - requests.data())];
    Impl::Located& at = **located[i];
    reads[i].status = CheckRead(request, at.entry, at.segment->tag(), check);
    if (reads[i].status.ok()) reads[i].meta = std::move(at.entry.meta);
  });
  for (const size_t i : index) {
    if (absl::IsDataLoss(reads[i].status)) {
      impl_->Quarantine((*located[i])->entry, reads[i].status);
    }
  }
}

// ---- erase ----

// Removes locations that can be found. Durable at once where a segment's file goes in consequence,
// so that no catalog ever names a file that is not there. REQUIRES: change_mutex.
absl::Status DiskTier::Impl::EraseBatch(const CatalogBatch& batch,
                                        std::span<const CatalogEntry> dead) {
  std::map<uint64_t, uint64_t> dying;  // segment -> records
  for (const CatalogEntry& entry : dead) ++dying[entry.location.segment];
  const bool empties = std::any_of(dying.begin(), dying.end(), [&](const auto& segment) {
    return segments.EmptyWithout(segment.first, segment.second);
  });
  CAIRN_FAULT_POINT(kEraseBegun);
  CatalogBatch marked = batch;
  marked.values = {{kValueWatermark, EncodeWatermark(segments.watermark({}))}};
  const absl::Status status = catalog->Apply(marked, /*sync=*/empties);
  for (const EntryKey& key : batch.erases) {
    if (status.ok()) {
      doubtful.erase(key);
    } else {
      doubtful.insert(key);
    }
  }
  doubts = doubtful.size();
  CAIRN_RETURN_IF_ERROR(status);
  CAIRN_FAULT_POINT(kEraseCatalogued);
  for (const CatalogEntry& entry : dead) segments.Die(entry.location);
  CAIRN_FAULT_POINT(kEraseCounted);
  if (empties) reclaimed_segments += segments.DropEmpty();
  return absl::OkStatus();
}

absl::Status DiskTier::Erase(std::span<const EntryKey> keys) {
  const std::lock_guard<std::mutex> lock(impl_->change_mutex);
  CatalogBatch batch;
  std::vector<CatalogEntry> dead;
  absl::flat_hash_set<EntryKey> seen;
  for (const EntryKey& key : keys) {
    if (!seen.insert(key).second) continue;
    absl::StatusOr<std::optional<CatalogEntry>> entry = impl_->catalog->Get(key);
    // Of a damaged value the location is lost: its bytes count as live until its segment is
    // rebuilt or the store is opened again.
    if (!entry.ok() && !absl::IsDataLoss(entry.status())) return entry.status();
    if (entry.ok() && !entry->has_value()) continue;
    batch.erases.push_back(key);
    if (entry.ok()) dead.push_back(**std::move(entry));
  }
  return batch.erases.empty() ? absl::OkStatus() : impl_->EraseBatch(batch, dead);
}

// Erases what is in doubt once more: what is put after that comes after it, whatever became of the
// first time.
absl::Status DiskTier::Impl::SettleDoubt(const EntryKey& key) {
  const std::lock_guard<std::mutex> held(change_mutex);
  if (!doubtful.contains(key)) return absl::OkStatus();
  const absl::StatusOr<std::optional<CatalogEntry>> entry = catalog->Get(key);
  if (!entry.ok() && !absl::IsDataLoss(entry.status())) return entry.status();
  CatalogBatch batch;
  batch.erases = {key};
  if (!entry.ok() || !entry->has_value()) return EraseBatch(batch, {});
  return EraseBatch(batch, {&**entry, 1});
}

// ---- withdraw ----

void DiskTier::OnWithdrawn(std::function<void(const EntryKey&, const absl::Status&)> told) {
  const std::lock_guard<std::mutex> lock(impl_->change_mutex);
  impl_->withdrawn = std::move(told);
}

// The entry is damaged on disk: nobody finds it any more. Its record stays where it is until its
// segment goes. With a catalog that cannot be written now it is found damaged again.
void DiskTier::Impl::Quarantine(const CatalogEntry& entry, const absl::Status& why) {
  const std::lock_guard<std::mutex> held(change_mutex);
  const absl::StatusOr<std::optional<CatalogEntry>> now = catalog->Get(entry.meta.key);
  // Two readers may find the same damage; a newer record of the key is none of it.
  if (!now.ok() || !now->has_value() || (*now)->location != entry.location) return;
  CatalogBatch batch;
  batch.erases = {entry.meta.key};
  if (!EraseBatch(batch, {&entry, 1}).ok()) return;
  ++checksum_failures;
  if (withdrawn) withdrawn(entry.meta.key, why);
}

absl::Status DiskTier::Impl::ForgetDamaged(const EntryKey& key, const absl::Status& why) {
  const std::lock_guard<std::mutex> held(change_mutex);
  if (!absl::IsDataLoss(catalog->Get(key).status())) return absl::OkStatus();
  CatalogBatch batch;
  batch.erases = {key};
  CAIRN_RETURN_IF_ERROR(EraseBatch(batch, {}));
  ++checksum_failures;
  if (withdrawn) withdrawn(key, why);
  return absl::OkStatus();
}

// ---- listing ----

absl::Status DiskTier::ForEach(const std::function<bool(const EntryMeta&)>& visit) {
  return impl_->catalog->ForEach([&](const CatalogEntry& entry) { return visit(entry.meta); });
}

DiskTierStats DiskTier::stats() const {
  const SegmentSet::Totals totals = impl_->segments.totals();
  return {.capacity_bytes = impl_->options.capacity_bytes,
          .used_bytes = totals.used_bytes,
          .live_bytes = totals.live_bytes,
          .entries = totals.live_records,
          .segments = totals.segments,
          .checksum_failures = impl_->checksum_failures,
          .dropped_entries = impl_->dropped_entries,
          .mended_entries = impl_->mended_entries,
          .surveyed = impl_->surveyed,
          .reclaimed_segments = impl_->reclaimed_segments,
          .put_bytes = impl_->put_bytes,
          .moved_bytes = impl_->moved_bytes};
}

}  // namespace cairn::store
