#include "store/segment/segment_set.h"

#include <algorithm>
#include <charconv>
#include <tuple>

#include "absl/strings/str_format.h"
#include "store/base/fault_point.h"

namespace cairn::store {
namespace {

// Reclaim needs several to choose among, and puts leave one free: the more there are, the less is
// lost.
constexpr uint64_t kSegmentsAtLeast = 32;
constexpr uint64_t kSegmentBytesMin = 64ull << 10;
// A segment smaller than this share of the usual size is not worth a file, unless a record asks.
constexpr uint64_t kSmallestShare = 4;
constexpr char kSuffix[] = ".seg";

}  // namespace

std::string SegmentSet::FileName(uint64_t id) { return absl::StrFormat("%016x%s", id, kSuffix); }

std::optional<uint64_t> SegmentSet::ParseFileName(const std::string& name) {
  uint64_t id = 0;
  const char* const end = name.data() + std::min<size_t>(name.size(), 16);
  const auto [stop, error] = std::from_chars(name.data(), end, id, 16);
  if (error != std::errc() || stop != end || name != FileName(id)) return std::nullopt;
  return id;
}

uint64_t SegmentSet::EffectiveSegmentBytes(uint64_t capacity_bytes, uint64_t segment_bytes) {
  const uint64_t share = capacity_bytes / kSegmentsAtLeast / kIoAlignment * kIoAlignment;
  return std::max(std::min(RoundUpToIo(segment_bytes), share), kSegmentBytesMin);
}

Segment::~Segment() {
  if (!dropped_) return;
  CAIRN_FAULT_POINT(kDropBeforeUnlink);
  // An unlink that fails leaves the file, so its bytes stay counted.
  const absl::Status gone = set_.files_.Unlink(file_->path());
  CAIRN_FAULT_POINT(kDropUnlinked);
  const SegmentSet::Lock lock(set_.mutex_);
  if (gone.ok()) set_.used_bytes_ -= size_;
}

SegmentSet::SegmentSet(const Options& options, FileSystem& files, Clock& clock,
                       std::vector<Found> found, Watermark next)
    : options_(options),
      files_(files),
      clock_(clock),
      next_segment_(next.segment),
      next_sequence_(next.sequence) {
  for (Found& f : found) {
    SegmentHold segment(
        new Segment(*this, f.id, SegmentTag(options.store, f.id), std::move(f.file), f.size));
    segment->append_at_ = segment->found_end_ = f.append_at;
    segment->surveyed_ = false;
    used_bytes_ += f.size;
    if (f.append_at < f.size && (active_ == nullptr || active_->id() < f.id)) active_ = segment;
    segments_.emplace(f.id, std::move(segment));
  }
  if (active_ != nullptr) active_->sealed_ = false;
}

SegmentSet::~SegmentSet() {
  active_.reset();
  segments_.clear();
}

uint64_t SegmentSet::PutLimit(RoomPurpose purpose) const {
  const uint64_t kept = purpose == RoomPurpose::kPut ? options_.segment_bytes : 0;
  return options_.capacity_bytes - std::min(options_.capacity_bytes, kept);
}

absl::StatusOr<std::vector<uint64_t>> SegmentSet::Plan(std::span<const uint64_t> sizes,
                                                       RoomPurpose purpose, const Lock&) const {
  const uint64_t limit = PutLimit(purpose);
  // Sealing gives the unwritten end of the active file back.
  uint64_t used = used_bytes_;
  uint64_t room = active_ == nullptr ? 0 : active_->size_ - active_->append_at_;
  std::vector<uint64_t> files;
  for (const uint64_t size : sizes) {
    if (size <= room) {
      room -= size;
      continue;
    }
    used -= room;
    if (!files.empty()) files.back() -= room;
    const uint64_t left = limit - std::min(limit, used);
    const uint64_t needed = kSegmentHeaderBytes + size;
    const uint64_t smallest = std::max(needed, options_.segment_bytes / kSmallestShare);
    if (left < smallest) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "disk tier over capacity: ", used, " of ", options_.capacity_bytes,
          " bytes in use, no room for a record of ", size, "; erase entries and reclaim"));
    }
    const uint64_t file = std::max(needed, std::min(left, options_.segment_bytes));
    files.push_back(file);
    used += file;
    room = file - needed;
  }
  return files;
}

absl::StatusOr<SegmentHold> SegmentSet::Create(uint64_t size) {
  uint64_t id = 0;
  {
    const Lock lock(mutex_);
    id = coming_ = next_segment_++;
    used_bytes_ += size;  // before the file is there: never above capacity
  }
  const std::string path = absl::StrCat(options_.directory, "/", FileName(id));
  const auto make = [&]() -> absl::StatusOr<std::unique_ptr<File>> {
    CAIRN_FAULT_POINT(kCreateNumbered);
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<File> file, files_.Open(path, OpenMode::kCreate));
    CAIRN_FAULT_POINT(kCreateOpened);
    CAIRN_RETURN_IF_ERROR(file->Allocate(size));
    CAIRN_FAULT_POINT(kCreateAllocated);
    IoBuffer page(kSegmentHeaderBytes);
    EncodeSegmentHeader({.segment = id,
                         .tag = SegmentTag(options_.store, id),
                         .store = options_.store,
                         .created_wall_micros = clock_.WallMicros()},
                        page.bytes());
    IoRequest write = IoRequest::Write(*file, 0, page.bytes());
    files_.Submit({&write, 1});
    CAIRN_RETURN_IF_ERROR(write.status);
    CAIRN_FAULT_POINT(kCreateHeaded);
    CAIRN_RETURN_IF_ERROR(file->Sync());
    CAIRN_FAULT_POINT(kCreateSynced);
    CAIRN_RETURN_IF_ERROR(files_.SyncDirectory(options_.directory));
    CAIRN_FAULT_POINT(kCreateFolderSynced);
    return file;
  };
  absl::StatusOr<std::unique_ptr<File>> file = make();
  const Lock lock(mutex_);
  if (!file.ok()) {
    coming_ = 0;
    // As in ~Segment: what cannot be removed stays counted.
    const absl::Status gone = files_.Unlink(path);
    if (gone.ok() || absl::IsNotFound(gone)) used_bytes_ -= size;
    if (file.status().code() != absl::StatusCode::kResourceExhausted) return file.status();
    return absl::ResourceExhaustedError(
        absl::StrCat("the file system is full: ", std::string(file.status().message())));
  }
  SegmentHold segment(
      new Segment(*this, id, SegmentTag(options_.store, id), *std::move(file), size));
  segment->append_at_ = kSegmentHeaderBytes;
  segment->sealed_ = false;
  segments_.emplace(id, segment);
  return segment;
}

void SegmentSet::Seal(Segment& segment, const Lock&) {
  CAIRN_FAULT_POINT(kSealBegun);
  segment.sealed_ = true;
  if (segment.append_at_ < segment.size_ && segment.file().Truncate(segment.append_at_).ok()) {
    CAIRN_FAULT_POINT(kSealTruncated);
    segment.cut_bytes_ = segment.size_ - segment.append_at_;
  }
}

absl::Status SegmentSet::GiveBackEnd(Segment& segment) {
  CAIRN_RETURN_IF_ERROR(segment.file().Sync());
  const Lock lock(mutex_);
  used_bytes_ -= segment.cut_bytes_;
  segment.size_ -= segment.cut_bytes_;
  segment.cut_bytes_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RecordRoom>> SegmentSet::Allocate(std::span<const uint64_t> sizes,
                                                             RoomPurpose purpose) {
  const Lock allocating(allocate_mutex_);
  const auto plan = [&](size_t from) {
    const Lock lock(mutex_);
    return Plan(sizes.subspan(from), purpose, lock);
  };
  absl::Status fits = plan(0).status();
  if (!fits.ok() && DropEmpty() > 0) fits = plan(0).status();
  CAIRN_RETURN_IF_ERROR(fits);

  std::vector<RecordRoom> rooms;
  for (size_t i = 0; i < sizes.size(); ++i) {
    SegmentHold next;
    SegmentHold sealed;
    {
      const Lock lock(mutex_);
      if (active_ != nullptr && sizes[i] > active_->size_ - active_->append_at_) {
        Seal(*active_, lock);
        sealed = std::move(active_);
        active_.reset();
      }
      next = active_;
    }
    if (next == nullptr) {
      absl::Status room = sealed == nullptr ? absl::OkStatus() : GiveBackEnd(*sealed);
      absl::StatusOr<std::vector<uint64_t>> files;
      // Anew: the end of the sealed one may not have come back, and others may have sealed the
      // active one since (Finish, RoomOutcome::kBroken).
      if (room.ok()) room = (files = plan(i)).status();
      absl::StatusOr<SegmentHold> made = room.ok() ? Create(files->front()) : room;
      if (!made.ok()) {
        Finish(rooms, RoomOutcome::kUnused);
        return made.status();
      }
      next = *std::move(made);
    }
    const Lock lock(mutex_);
    active_ = next;
    coming_ = 0;
    rooms.push_back({.segment = next,
                     .location = {.segment = next->id(),
                                  .offset = next->append_at_,
                                  .bytes = sizes[i],
                                  .sequence = next_sequence_}});
    in_flight_.emplace(next_sequence_++, std::pair(next->id(), next->append_at_));
    next->append_at_ += sizes[i];
    ++next->in_flight_;
  }
  return rooms;
}

void SegmentSet::AddLive(std::span<const RecordRoom> rooms) {
  const Lock lock(mutex_);
  for (const RecordRoom& room : rooms) {
    room.segment->live_bytes_ += room.location.bytes;
    ++room.segment->live_records_;
  }
}

void SegmentSet::Finish(std::span<const RecordRoom> rooms, RoomOutcome outcome) {
  std::vector<SegmentHold> sealed;
  {
    const Lock lock(mutex_);
    // Last first, so that a run of unused rooms at the end goes back as a whole.
    for (auto room = rooms.rbegin(); room != rooms.rend(); ++room) {
      Segment& segment = *room->segment;
      in_flight_.erase(room->location.sequence);
      --segment.in_flight_;
      if (outcome == RoomOutcome::kKept || segment.sealed_) continue;
      if (outcome == RoomOutcome::kBroken) {
        Seal(segment, lock);
        sealed.push_back(room->segment);
        if (active_ == room->segment) active_.reset();
      } else if (segment.append_at_ == room->location.offset + room->location.bytes) {
        segment.append_at_ = room->location.offset;
      }
    }
  }
  // Of a device that cannot do it, the end stays counted.
  for (const SegmentHold& segment : sealed) GiveBackEnd(*segment).IgnoreError();
}

bool SegmentSet::Holds(const RecordLocation& location) const {
  const Lock lock(mutex_);
  const auto found = segments_.find(location.segment);
  return found != segments_.end() && found->second->Holds(location);
}

std::vector<SegmentSet::Unsurveyed> SegmentSet::NotSurveyed() const {
  const Lock lock(mutex_);
  std::vector<Unsurveyed> left;
  for (const auto& [id, segment] : segments_) {
    if (!segment->surveyed_) left.push_back({.segment = segment, .end = segment->found_end_});
  }
  return left;
}

void SegmentSet::Distrust(uint64_t id) {
  const Lock lock(mutex_);
  if (const auto found = segments_.find(id); found != segments_.end()) {
    found->second->surveyed_ = false;
  }
}

void SegmentSet::EndSurvey(const Survey& found, const std::set<uint64_t>& unknown) {
  const Lock lock(mutex_);
  for (const auto& [id, segment] : segments_) {
    if (segment->surveyed_ || unknown.contains(id)) continue;
    segment->surveyed_ = true;
    const auto life = found.find(id);
    if (life == found.end()) continue;
    segment->live_bytes_ += life->second.bytes;
    segment->live_records_ += life->second.records;
  }
}

SegmentHold SegmentSet::Find(uint64_t id) const {
  const Lock lock(mutex_);
  const auto found = segments_.find(id);
  return found == segments_.end() ? nullptr : found->second;
}

void SegmentSet::Die(const RecordLocation& location) {
  const Lock lock(mutex_);
  const auto found = segments_.find(location.segment);
  // What was never there was never counted.
  if (found == segments_.end() || !found->second->Holds(location)) return;
  found->second->live_bytes_ -= location.bytes;
  --found->second->live_records_;
}

void SegmentSet::AllDied(uint64_t id) {
  const Lock lock(mutex_);
  const auto found = segments_.find(id);
  if (found == segments_.end() || found->second->in_flight_ > 0) return;
  found->second->live_bytes_ = found->second->live_records_ = 0;
}

bool SegmentSet::EmptyWithout(uint64_t id, uint64_t dying) const {
  const Lock lock(mutex_);
  const auto found = segments_.find(id);
  if (found == segments_.end()) return false;
  const Segment& segment = *found->second;
  return segment.surveyed_ && segment.sealed_ && segment.in_flight_ == 0 &&
         segment.live_records_ <= dying;
}

uint64_t SegmentSet::DropEmpty() {
  std::vector<SegmentHold> dropped;  // destroyed, and its files deleted, after the lock
  const Lock lock(mutex_);
  for (auto it = segments_.begin(); it != segments_.end();) {
    Segment& segment = *it->second;
    if (segment.surveyed_ && segment.sealed_ && segment.live_records_ == 0 &&
        segment.in_flight_ == 0) {
      CAIRN_FAULT_POINT(kDropChosen);
      segment.dropped_ = true;
      dropped.push_back(std::move(it->second));
      it = segments_.erase(it);
    } else {
      ++it;
    }
  }
  return dropped.size();
}

void SegmentSet::SealActive() {
  const Lock allocating(allocate_mutex_);
  SegmentHold sealed;
  {
    const Lock lock(mutex_);
    if (active_ == nullptr || active_->in_flight_ > 0 || !active_->surveyed_) return;
    if (active_->append_at_ - kSegmentHeaderBytes == active_->live_bytes_) return;
    Seal(*active_, lock);
    sealed = std::move(active_);
    active_.reset();
  }
  GiveBackEnd(*sealed).IgnoreError();  // as in Finish
}

std::vector<SegmentSet::Victim> SegmentSet::Idle() const {
  const Lock lock(mutex_);
  std::vector<Victim> idle;
  for (const auto& [id, segment] : segments_) {
    if (!segment->surveyed_ || !segment->sealed_ || segment->in_flight_ > 0) continue;
    idle.push_back({.segment = segment,
                    .size = segment->size_,
                    .live_bytes = segment->live_bytes_,
                    .live_records = segment->live_records_});
  }
  return idle;
}

std::optional<SegmentSet::Victim> SegmentSet::Emptiest() const {
  std::vector<Victim> idle = Idle();
  const auto share = [](const Victim& victim) {
    return static_cast<double>(victim.live_bytes) /
           static_cast<double>(std::max<uint64_t>(victim.size, 1));
  };
  const auto best =
      std::min_element(idle.begin(), idle.end(),
                       [&](const Victim& a, const Victim& b) { return share(a) < share(b); });
  return best == idle.end() ? std::nullopt : std::optional(std::move(*best));
}

bool SegmentSet::HasRoom(uint64_t bytes) const {
  const Lock lock(mutex_);
  if (active_ != nullptr && active_->size_ - active_->append_at_ >= bytes) return true;
  // Records do not straddle files. What one file leaves unwritten goes to the next, but each has a
  // header, and the last may have to be larger than what is put into it.
  const uint64_t files = (bytes + kSegmentHeaderBytes) / options_.segment_bytes;
  const uint64_t slack =
      files == 0 ? 0 : files * kSegmentHeaderBytes + options_.segment_bytes / kSmallestShare;
  const uint64_t sizes[] = {bytes + slack};
  return Plan(sizes, RoomPurpose::kPut, lock).ok();
}

Watermark SegmentSet::watermark(std::span<const RecordRoom> settling) const {
  const Lock lock(mutex_);
  // One that is being made has nothing settled in it: were it taken for settled, a crash would
  // leave a headless file that nobody knows to be unfinished.
  const uint64_t next = coming_ != 0 ? coming_ : next_segment_;
  Watermark mark{.segment = active_ != nullptr ? active_->id() : next,
                 .end = active_ != nullptr ? active_->append_at_ : kSegmentHeaderBytes,
                 .sequence = next_sequence_};
  const auto settles = [&](uint64_t sequence) {
    return std::any_of(settling.begin(), settling.end(),
                       [&](const RecordRoom& room) { return room.location.sequence == sequence; });
  };
  bool first = true;
  // Within a segment offsets grow with sequences.
  for (const auto& [sequence, place] : in_flight_) {
    if (settles(sequence)) continue;
    if (first) mark.sequence = sequence;
    first = false;
    if (std::pair(mark.segment, mark.end) > place) std::tie(mark.segment, mark.end) = place;
  }
  return mark;
}

SegmentSet::Totals SegmentSet::totals() const {
  const Lock lock(mutex_);
  Totals totals{.used_bytes = used_bytes_, .segments = segments_.size()};
  for (const auto& [id, segment] : segments_) {
    if (!segment->surveyed_) continue;
    totals.live_bytes += segment->live_bytes_;
    totals.live_records += segment->live_records_;
  }
  return totals;
}

}  // namespace cairn::store
