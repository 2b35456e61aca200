#include "engine/resume/put_queue.h"

#include <utility>

#include "store/base/memory_copy.h"

namespace cairn::engine {
namespace {

constexpr size_t kBatchEntries = 16;
constexpr uint64_t kBatchBytes = 32ull << 20;

// Copies the item into staging memory; one checksum a part, of what was written.
std::vector<EntryPart> StageItem(const PutItem& item, std::span<uint8_t> to) {
  StreamingWriter writer(to.data());
  std::vector<EntryPart> parts;
  parts.reserve(item.part_bytes.size());
  const uint8_t* from = item.bytes.get();
  for (const uint32_t bytes : item.part_bytes) {
    parts.push_back({bytes, writer.Append({from, bytes})});
    from += bytes;
  }
  return parts;
}

}  // namespace

PutQueue::PutQueue(std::shared_ptr<cache::CacheApi> cache, uint64_t bytes_max)
    : cache_(std::move(cache)), bytes_max_(bytes_max), worker_([this] { Work(); }) {}

PutQueue::~PutQueue() {
  {
    const MutexLock lock(&mutex_);
    stop_ = true;
  }
  worker_.join();
}

void PutQueue::Add(PutItem item) {
  const MutexLock lock(&mutex_);
  if (detached_ || queued_bytes_ + item.size() > bytes_max_) {
    ++stats_.dropped_entries;
    if (!detached_ && item.reservation.has_value()) abandoned_.push_back(*item.reservation);
    return;
  }
  queued_bytes_ += item.size();
  queue_.push_back(std::move(item));
}

void PutQueue::Abandon(std::vector<uint64_t> reservations) {
  const MutexLock lock(&mutex_);
  if (!detached_) abandoned_.insert(abandoned_.end(), reservations.begin(), reservations.end());
}

bool PutQueue::Flush(absl::Duration deadline) {
  const MutexLock lock(&mutex_);
  const bool in_time = mutex_.AwaitWithTimeout([this] { return IdleLocked(); }, deadline);
  return in_time && stats_.dropped_entries == 0;
}

bool PutQueue::detached() const {
  const MutexLock lock(&mutex_);
  return detached_;
}

PutStats PutQueue::stats() const {
  const MutexLock lock(&mutex_);
  return stats_;
}

std::vector<PutItem> PutQueue::TakeBatch() {
  std::vector<PutItem> batch;
  uint64_t bytes = 0;
  while (!queue_.empty() && batch.size() < kBatchEntries &&
         (batch.empty() || bytes + queue_.front().size() <= kBatchBytes)) {
    bytes += queue_.front().size();
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return batch;
}

void PutQueue::Work() {
  for (;;) {
    std::vector<PutItem> batch;
    std::vector<uint64_t> abandoned;
    {
      const MutexLock lock(&mutex_);
      const auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return stop_ || !queue_.empty() || !abandoned_.empty();
      };
      mutex_.Await(ready);
      if (stop_) return;
      batch = TakeBatch();
      abandoned.swap(abandoned_);
      busy_ = true;
    }
    uint64_t bytes = 0;
    for (const PutItem& item : batch) bytes += item.size();
    absl::Status status = abandoned.empty() ? absl::OkStatus() : cache_->Abort(abandoned);
    if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) status = PutBatch(batch);
    const MutexLock lock(&mutex_);
    busy_ = false;
    queued_bytes_ -= bytes;
    if (status.ok()) {
      deadlines_missed_ = 0;
    } else {
      DropLocked(batch, status);
    }
  }
}

bool PutQueue::DaemonIsGoneLocked(const absl::Status& status) {
  deadlines_missed_ = absl::IsDeadlineExceeded(status) ? deadlines_missed_ + 1 : 0;
  return absl::IsUnavailable(status) || deadlines_missed_ >= kDeadlinesMissedMax;
}

void PutQueue::DropLocked(const std::vector<PutItem>& batch, const absl::Status& why) {
  stats_.dropped_entries += batch.size();
  stats_.last_error = why.ToString();
  if (DaemonIsGoneLocked(why)) {
    detached_ = true;
    stats_.dropped_entries += queue_.size();
    queue_.clear();
    abandoned_.clear();
    queued_bytes_ = 0;
    return;
  }
  for (const PutItem& item : batch) {
    if (item.reservation.has_value()) abandoned_.push_back(*item.reservation);
  }
}

absl::Status PutQueue::FillReservations(std::vector<PutItem>& batch) {
  std::vector<cache::ReserveItem> names;
  std::vector<size_t> which;
  for (size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].reservation.has_value()) continue;
    names.push_back(batch[i].name);
    which.push_back(i);
  }
  if (names.empty()) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::ReserveResult> results,
                         cache_->Reserve(names, absl::ZeroDuration()));
  if (results.size() != names.size())
    return absl::InternalError("the cache answered another number of reservations");
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].state == cache::ReserveState::kGo)
      batch[which[i]].reservation = results[i].reservation;
  }
  return absl::OkStatus();
}

absl::Status PutQueue::PutBatch(std::vector<PutItem>& batch) {
  CAIRN_RETURN_IF_ERROR(FillReservations(batch));
  std::vector<std::unique_ptr<cache::StagingBuffer>> staging;
  std::vector<cache::CommitItem> items;
  std::vector<uint64_t> sizes;
  uint64_t existing = 0;
  for (const PutItem& item : batch) {
    if (!item.reservation.has_value()) {
      ++existing;
      continue;
    }
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<cache::StagingBuffer> buffer,
                           cache_->Stage(item.size()));
    items.push_back({*item.reservation, buffer.get(), StageItem(item, buffer->bytes)});
    sizes.push_back(item.size());
    staging.push_back(std::move(buffer));
  }
  std::vector<absl::Status> results;
  if (!items.empty()) {
    CAIRN_ASSIGN_OR_RETURN(results, cache_->Commit(items, /*durable=*/false));
  }
  const MutexLock lock(&mutex_);
  stats_.existing_entries += existing;
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].ok()) {
      ++stats_.put_entries;
      stats_.put_bytes += sizes[i];
    } else if (absl::IsAlreadyExists(results[i])) {
      ++stats_.existing_entries;
    } else {
      ++stats_.dropped_entries;
      stats_.last_error = results[i].ToString();
    }
  }
  return absl::OkStatus();
}

}  // namespace cairn::engine
