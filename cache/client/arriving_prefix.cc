#include "cache/client/arriving_prefix.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/memory/memory.h"
#include "store/base/checksum.h"
#include "store/base/clock.h"
#include "store/base/thread.h"

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
                               std::vector<GroupEnd> ends, size_t stripes)
    : pool_(pool), row_count_(checked.rows.size()), begun_nanos_(RealClock().NowNanos()) {
  if (!checked.grouped) ends.clear();
  groups_ = ends.size() + 1;
  const std::vector<uint64_t> sizes = SizesOf(checked);
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
  for (size_t i = 0; i < stripes; ++i) {
    stripes_.push_back(absl::WrapUnique(new Stripe(*this, SizesInStripe(sizes, i, stripes), ends)));
  }
  // Those without bytes have nothing else to say.
  for (const std::unique_ptr<Stripe>& stripe : stripes_) {
    if (stripe->Done()) Reached(*stripe);
  }
}

ArrivingPrefix::~ArrivingPrefix() {
  if (!drawer_.joinable()) return;
  stop_();
  drawer_.join();
}

bool ArrivingPrefix::Done() const {
  return std::all_of(stripes_.begin(), stripes_.end(),
                     [](const auto& stripe) { return stripe->Done(); });
}

ArrivingPrefix::Stripe::Stripe(ArrivingPrefix& prefix, std::vector<uint64_t> sizes,
                               std::vector<GroupEnd> ends)
    : prefix_(prefix),
      sizes_(std::move(sizes)),
      cursor_(sizes_, prefix.row_count_, std::move(ends)),
      total_bytes_(std::accumulate(sizes_.begin(), sizes_.end(), uint64_t{0})) {
  if (!Done()) OpenPiece();
}

absl::StatusOr<std::span<uint8_t>> ArrivingPrefix::Stripe::Room() {
  // Of a first group, or of what lacked memory before.
  if (cursor_.group() != reported_group_) Report();
  const size_t entry = cursor_.entry();
  CAIRN_RETURN_IF_ERROR(prefix_.TakeMemory(entry));
  return prefix_.memory_[entry].bytes().subspan(cursor_.offset(), cursor_.left());
}

absl::Status ArrivingPrefix::TakeMemory(size_t entry) {
  if (!memory_[entry].bytes().empty()) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(memory_[entry], pool_.Take(extents_[entry].bytes));
  return absl::OkStatus();
}

void ArrivingPrefix::Stripe::Took(uint64_t bytes) {
  const bool whole = bytes == cursor_.left();
  taken_bytes_ += bytes;
  CheckParts(cursor_.offset() + bytes);
  cursor_.Advance(bytes);
  if (cursor_.group() != reported_group_) Report();
  if (whole && !Done()) OpenPiece();
}

// Groups end where parts do.
void ArrivingPrefix::Stripe::OpenPiece() {
  checked_parts_ = 0;
  checked_ = 0;
  const std::vector<EntryPart>& parts = prefix_.extents_[cursor_.entry()].parts;
  while (checked_ < cursor_.offset()) checked_ += parts[checked_parts_++].bytes;
}

// Of the entry at hand all whole parts that end at `filled` or before.
void ArrivingPrefix::Stripe::CheckParts(uint64_t filled) {
  const std::vector<EntryPart>& parts = prefix_.extents_[cursor_.entry()].parts;
  const std::span<const uint8_t> payload = prefix_.memory_[cursor_.entry()].bytes();
  while (checked_parts_ < parts.size() && parts[checked_parts_].bytes <= filled - checked_) {
    const EntryPart& part = parts[checked_parts_];
    good_ &= Checksum(payload.subspan(checked_, part.bytes)) == part.xxh3;
    checked_ += part.bytes;
    ++checked_parts_;
  }
}

// Views are of memory, also of entries that are in none of the groups that are there. Where there
// is none for them, Room says so next.
void ArrivingPrefix::Stripe::Report() {
  for (size_t i = 0; i < sizes_.size(); ++i) {
    if (sizes_[i] > 0 && !prefix_.TakeMemory(i).ok()) return;
  }
  prefix_.Reached(*this);
}

// A group is there when every stripe is behind it.
void ArrivingPrefix::Reached(Stripe& stripe) {
  const MutexLock lock(&mutex_);
  stripe.reported_group_ = stripe.cursor_.group();
  arrived_bytes_ +=
      stripe.taken_bytes_ - std::exchange(stripe.reported_bytes_, stripe.taken_bytes_);
  arrived_nanos_ = RealClock().NowNanos() - begun_nanos_;
  damaged_ |= !stripe.good_;
  size_t behind = groups_;
  for (const std::unique_ptr<Stripe>& each : stripes_) {
    behind = std::min(behind, each->reported_group_);
  }
  if (behind == arrived_groups_) return;
  if (!viewed_) MakeViews(behind == groups_);
  // Whoever reads one that is drawn behind his back has Await to ask.
  if (!behind_) verified = behind == groups_ && !damaged_;
  arrived_groups_ = behind;
}

// `all`: nobody needs to know the parts any more.
void ArrivingPrefix::MakeViews(bool all) {
  viewed_ = true;
  copied_bytes = total_bytes_;
  rows.reserve(row_count_);
  for (size_t i = 0; i < extents_.size(); ++i) {
    EntryView view{keys_[i], memory_[i].bytes(), {}};
    if (all) {
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
  const std::function<void()> run = [this, draw = std::move(draw)] {
    const absl::Status end = draw(*this);
    const MutexLock lock(&mutex_);
    behind_ = false;
    if (end.ok()) return;
    end_ = end;
    // What did not come took its time, too.
    arrived_nanos_ = RealClock().NowNanos() - begun_nanos_;
  };
  absl::StatusOr<std::thread> drawer = StartThread(run);
  if (drawer.ok()) {
    drawer_ = *std::move(drawer);
  } else {
    run();  // then it is drawn before anybody asks
  }
}

absl::Status ArrivingPrefix::Await(size_t groups) const {
  const size_t wanted = std::min(groups, groups_);
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
  Arrival arrival{.ended = arrived_groups_ == groups_ || damaged_ || !behind_};
  arrival.seconds = static_cast<double>(arrived_nanos_) * 1e-9;
  if (total_bytes_ > 0) {
    arrival.share = static_cast<double>(arrived_bytes_) / static_cast<double>(total_bytes_);
  }
  return arrival;
}

}  // namespace cairn::cache
