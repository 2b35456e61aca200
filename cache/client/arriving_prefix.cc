#include "cache/client/arriving_prefix.h"

#include <algorithm>
#include <utility>

#include "store/base/checksum.h"
#include "store/base/clock.h"

namespace cairn::cache {
namespace {

std::vector<uint64_t> SizesOf(const CheckedFetch& checked) {
  std::vector<uint64_t> sizes;
  for (const CheckedExtent& extent : checked.rows) sizes.push_back(extent.bytes);
  if (checked.checkpoint.has_value()) sizes.push_back(checked.checkpoint->bytes);
  return sizes;
}

}  // namespace

ArrivingPrefix::ArrivingPrefix(const FetchRequest& request, CheckedFetch checked, ReceivePool& pool,
                               std::vector<GroupEnd> ends)
    : pool_(pool),
      row_count_(checked.rows.size()),
      cursor_(SizesOf(checked), row_count_,
              checked.grouped ? std::move(ends) : std::vector<GroupEnd>()),
      begun_nanos_(RealClock().NowNanos()) {
  extents_ = std::move(checked.rows);
  if (checked.checkpoint.has_value()) extents_.push_back(std::move(*checked.checkpoint));
  host_bytes = checked.host_bytes;
  disk_bytes = checked.disk_bytes;
  keys_.reserve(extents_.size());
  for (size_t i = 0; i < extents_.size(); ++i) {
    keys_.push_back(i < row_count_ ? EntryKey{request.chain[i], EntryKind::kRows}
                                   : EntryKey{request.chain.back(), EntryKind::kCheckpoint});
    total_bytes_ += extents_[i].bytes;
  }
  memory_.resize(extents_.size());
  if (Done()) {
    Publish();
  } else {
    OpenPiece();
  }
}

ArrivingPrefix::~ArrivingPrefix() {
  if (!drawer_.joinable()) return;
  stop_();
  drawer_.join();
}

absl::StatusOr<std::span<uint8_t>> ArrivingPrefix::Room() {
  CAIRN_RETURN_IF_ERROR(TakeMemory(cursor_.entry()));
  return memory_[cursor_.entry()].bytes().subspan(cursor_.offset(), cursor_.left());
}

absl::Status ArrivingPrefix::TakeMemory(size_t entry) {
  if (!memory_[entry].bytes().empty() || extents_[entry].bytes == 0) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(memory_[entry], pool_.Take(extents_[entry].bytes));
  return absl::OkStatus();
}

void ArrivingPrefix::Took(uint64_t bytes) {
  const size_t group = cursor_.group();
  const bool whole = bytes == cursor_.left();
  taken_bytes_ += bytes;
  CheckParts(cursor_.offset() + bytes);
  cursor_.Advance(bytes);
  if (cursor_.group() != group) Publish();
  if (whole && !Done()) OpenPiece();
}

// Groups end where parts do.
void ArrivingPrefix::OpenPiece() {
  checked_parts_ = 0;
  checked_ = 0;
  const std::vector<EntryPart>& parts = extents_[cursor_.entry()].parts;
  while (checked_ < cursor_.offset()) checked_ += parts[checked_parts_++].bytes;
}

// Of the entry at hand all whole parts that end at `filled` or before.
void ArrivingPrefix::CheckParts(uint64_t filled) {
  const std::vector<EntryPart>& parts = extents_[cursor_.entry()].parts;
  const std::span<const uint8_t> payload = memory_[cursor_.entry()].bytes();
  while (checked_parts_ < parts.size() && parts[checked_parts_].bytes <= filled - checked_) {
    const EntryPart& part = parts[checked_parts_];
    good_ &= Checksum(payload.subspan(checked_, part.bytes)) == part.xxh3;
    checked_ += part.bytes;
    ++checked_parts_;
  }
}

// The groups that are there. Views are of memory: also of entries that are in none of these. Where
// there is none for them, Room says so next.
void ArrivingPrefix::Publish() {
  for (size_t i = 0; i < extents_.size(); ++i) {
    if (!TakeMemory(i).ok()) return;
  }
  const MutexLock lock(&mutex_);
  if (!viewed_) MakeViews();
  // Whoever reads one that is drawn behind his back has Await to ask.
  if (!behind_) verified = Done() && good_;
  arrived_groups_ = cursor_.group();
  arrived_bytes_ = taken_bytes_;
  arrived_nanos_ = RealClock().NowNanos() - begun_nanos_;
  damaged_ |= !good_;
}

void ArrivingPrefix::MakeViews() {
  viewed_ = true;
  copied_bytes = total_bytes_;
  rows.reserve(row_count_);
  for (size_t i = 0; i < extents_.size(); ++i) {
    EntryView view{keys_[i], memory_[i].bytes(), {}};
    if (Done()) {
      view.parts = std::move(extents_[i].parts);
    } else {
      view.parts = extents_[i].parts;
    }
    if (i < row_count_) {
      rows.push_back(std::move(view));
    } else {
      checkpoint = std::move(view);
    }
  }
}

void ArrivingPrefix::DrawBehind(std::function<absl::Status(ArrivingPrefix&)> draw,
                                std::function<void()> stop) {
  {
    const MutexLock lock(&mutex_);
    behind_ = true;
  }
  stop_ = std::move(stop);
  drawer_ = std::thread([this, draw = std::move(draw)] {
    const absl::Status end = draw(*this);
    const MutexLock lock(&mutex_);
    behind_ = false;
    if (end.ok()) return;
    end_ = end;
    // What did not come took its time, too.
    arrived_nanos_ = RealClock().NowNanos() - begun_nanos_;
  });
}

absl::Status ArrivingPrefix::Await(size_t groups) const {
  const size_t wanted = std::min(groups, cursor_.groups());
  const auto settled = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return arrived_groups_ >= wanted || damaged_ || !behind_;
  };
  const MutexLock lock(&mutex_);
  mutex_.Await(settled);
  if (damaged_) return absl::DataLossError("a part of the prefix does not match its checksum");
  return arrived_groups_ >= wanted ? absl::OkStatus() : end_;
}

Arrival ArrivingPrefix::arrival() const {
  const MutexLock lock(&mutex_);
  Arrival arrival{.ended = arrived_groups_ == cursor_.groups() || damaged_ || !behind_};
  arrival.seconds = static_cast<double>(arrived_nanos_) * 1e-9;
  if (total_bytes_ > 0) {
    arrival.share = static_cast<double>(arrived_bytes_) / static_cast<double>(total_bytes_);
  }
  return arrival;
}

}  // namespace cairn::cache
