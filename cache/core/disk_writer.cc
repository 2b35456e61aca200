#include "cache/core/disk_writer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "store/base/limits.h"

namespace cairn::cache {
namespace {

// Large enough that the device hardly notices where one ends, small enough to bound what a durable
// commit waits for.
constexpr size_t kBatchEntriesMax = 64;
constexpr uint64_t kBatchBytesMax = 32ull << 20;
// A sync waits behind what the device was given before, for longer than a batch takes to write; so
// more than two.
constexpr uint64_t kBatchesInFlightMax = 4;
// At most these shares of the arena and of the disk are in flight, for they cannot be evicted to
// make room.
constexpr uint64_t kArenaShare = 4;
constexpr uint64_t kDiskShare = 16;

constexpr size_t kHost = static_cast<size_t>(Place::kHost);
constexpr size_t kDisk = static_cast<size_t>(Place::kDisk);

uint64_t BatchBytesMax(const Residency& residency) {
  uint64_t in_flight = residency.host.arena_bytes() / kArenaShare;
  if (residency.disk != nullptr) {
    in_flight = std::min(in_flight, residency.disk->stats().capacity_bytes / kDiskShare);
  }
  return std::min(kBatchBytesMax, in_flight / kBatchesInFlightMax);
}

absl::Status Unfounded() {
  return absl::FailedPreconditionError("what it builds on is not on disk");
}

}  // namespace

struct DiskWriter::Job {
  EntryRef ref;
  EntryRef foundation;  // block is null for index 0
  store::HostPin pin;
  absl::Status status;

  store::DiskPut put() const {
    const std::span<const uint8_t> payload = pin.payload();
    // The room in the arena is whole I/O units, and so is what the disk takes.
    return {&pin.meta(), {payload.data(), RoundUpToIo(payload.size())}};
  }
};

struct DiskWriter::Batch {
  std::vector<Job> jobs;
  absl::StatusOr<store::DiskTier::StagedPut> staged;  // dropped before the pins in `jobs`
};

DiskWriter::DiskWriter(Residency& residency, Waiter& waiter, bool background)
    : residency_(residency), waiter_(waiter), batch_bytes_max_(BatchBytesMax(residency)) {
  if (!background || residency.disk == nullptr) return;
  stage_thread_ = std::thread([this] { RunStage(); });
  publish_thread_ = std::thread([this] { RunPublish(); });
}

DiskWriter::~DiskWriter() {
  if (stage_thread_.joinable()) {
    {
      MutexLock lock(&residency_.mutex);
      stop_ = true;
      work_.SignalAll();
    }
    stage_thread_.join();
    publish_thread_.join();
  } else {
    MutexLock lock(&residency_.mutex);
    while (queued_entries() != 0) Progress(kNoDeadline);
  }
}

bool DiskWriter::MayStage() const {
  return !queue_.empty() && batches_taken_ - batches_finished_ < kBatchesInFlightMax;
}

void DiskWriter::RunStage() {
  while (true) {
    {
      MutexLock lock(&residency_.mutex);
      while (!MayStage() && !(stop_ && queue_.empty())) work_.Wait(&residency_.mutex);
      if (queue_.empty()) {
        all_staged_ = true;
        publish_.Signal();
        return;
      }
    }
    Stage();
  }
}

void DiskWriter::RunPublish() {
  while (true) {
    {
      MutexLock lock(&residency_.mutex);
      while (staged_.empty() && !all_staged_) publish_.Wait(&residency_.mutex);
      if (staged_.empty()) return;
    }
    Publish();
  }
}

EntryRef DiskWriter::FoundationOf(EntryRef ref) const {
  return {ref.kind == EntryKind::kRows ? residency_.index.ParentOf(*ref.block) : ref.block,
          EntryKind::kRows};
}

void DiskWriter::Enqueue(EntryRef ref) {
  ref->disk_failed = false;
  for (EntryRef f = FoundationOf(ref); f.block != nullptr && f->disk_failed; f = FoundationOf(f)) {
    f->disk_failed = false;
  }
  if (ref->queued) return;
  residency_.index.SetQueued(ref, true);
  queue_.push_back(ref.key());
  work_.Signal();
}

absl::Status DiskWriter::WaitSaved(EntryRef ref) {
  MutexLock lock(&residency_.mutex);
  while (ref->queued) Progress(kNoDeadline);
  if (ref->in[kDisk]) return absl::OkStatus();
  if (!ref->in[kHost]) {
    return absl::DataLossError("the entry was damaged in host memory before it reached the disk");
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("kept in host memory, not on disk: ", std::string(last_failure_.message())));
}

absl::Status DiskWriter::Drain(int64_t deadline_nanos, Clock& clock) {
  if (residency_.disk == nullptr) return absl::OkStatus();
  MutexLock lock(&residency_.mutex);
  std::vector<EntryRef> failed;
  const auto collect_failed = [&failed](Block* block) {
    for (const EntryKind kind : {EntryKind::kRows, EntryKind::kCheckpoint}) {
      const EntryRef ref{block, kind};
      if (ref->disk_failed && ref->in[kHost] && !ref->in[kDisk]) failed.push_back(ref);
    }
  };
  residency_.index.VisitAll(collect_failed);
  for (const EntryRef ref : failed) Enqueue(ref);
  while (queued_entries() != 0) {
    if (clock.NowNanos() >= deadline_nanos) {
      return absl::DeadlineExceededError(
          absl::StrCat(queued_entries(), " entries are not on disk yet"));
    }
    Progress(deadline_nanos);
  }
  failed.clear();
  residency_.index.VisitAll(collect_failed);
  if (failed.empty()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      failed.size(), " entries are not on disk: ", std::string(last_failure_.message())));
}

void DiskWriter::AwaitFlight() {
  MutexLock lock(&residency_.mutex);
  const uint64_t taken = batches_taken_;
  while (batches_finished_ < taken) Progress(kNoDeadline);
}

void DiskWriter::Progress(int64_t deadline_nanos) {
  if (stage_thread_.joinable()) {
    waiter_.Wait(residency_.mutex, settled_, deadline_nanos);
    return;
  }
  const bool staged = !staged_.empty();
  residency_.mutex.Unlock();
  if (!staged) Stage();
  Publish();
  residency_.mutex.Lock();
}

void DiskWriter::Stage() {
  MutexLock stage_lock(&stage_mutex_);
  std::vector<Job> jobs;
  {
    MutexLock lock(&residency_.mutex);
    jobs = TakeBatch();
    ++batches_taken_;
  }
  std::vector<store::DiskPut> puts;
  for (const Job& job : jobs) puts.push_back(job.put());
  absl::StatusOr<store::DiskTier::StagedPut> staged = residency_.disk->Stage(puts);
  MutexLock lock(&residency_.mutex);
  staged_.push_back({std::move(jobs), std::move(staged)});
  publish_.Signal();
}

void DiskWriter::Publish() {
  // From the look at what they build on until they are recorded nothing is erased: residency.h.
  MutexLock disk_lock(&residency_.disk_mutex);
  std::vector<Batch> batches;
  {
    MutexLock lock(&residency_.mutex);
    batches.swap(staged_);
    FailUnfounded(batches);
  }
  if (!PublishTogether(batches).ok()) PutAgain(batches);
  MutexLock lock(&residency_.mutex);
  Finish(batches);
}

bool DiskWriter::FoundationReady(EntryRef ref) {
  const EntryRef foundation = FoundationOf(ref);
  if (foundation.block == nullptr || foundation->in[kDisk] ||
      in_flight_.contains(foundation.key())) {
    return true;
  }
  if (foundation->disk_failed || !foundation->in[kHost]) {
    Fail(ref, Unfounded());
    return false;
  }
  residency_.index.SetQueued(foundation, true);
  queue_.push_front(ref.key());
  queue_.push_front(foundation.key());
  return false;
}

std::vector<DiskWriter::Job> DiskWriter::TakeBatch() {
  PrefixIndex& index = residency_.index;
  std::vector<Job> jobs;
  uint64_t bytes = 0;
  while (!queue_.empty() && jobs.size() < kBatchEntriesMax &&
         (jobs.empty() || bytes < batch_bytes_max_)) {
    const EntryKey key = queue_.front();
    queue_.pop_front();
    Block* const block = index.Find(key.digest);
    if (block == nullptr || in_flight_.contains(key)) continue;
    const EntryRef ref{block, key.kind};
    if (!ref->queued) continue;
    if (ref->in[kDisk]) {
      index.SetQueued(ref, false);
      continue;
    }
    if (!FoundationReady(ref)) continue;
    std::optional<store::HostPin> pin = residency_.PinHost(ref);
    if (!pin.has_value()) {
      index.Prune(block);
      continue;
    }
    Job job{ref, FoundationOf(ref), std::move(*pin), absl::OkStatus()};
    // Neither may be evicted, here or on disk, while room for this batch is made.
    index.AddHold(ref, 1);
    if (job.foundation.block != nullptr) index.AddHold(job.foundation, 1);
    in_flight_.insert(key);
    bytes += ref->bytes;
    jobs.push_back(std::move(job));
  }
  return jobs;
}

void DiskWriter::FailUnfounded(std::vector<Batch>& batches) {
  absl::flat_hash_set<EntryKey> coming;
  for (Batch& batch : batches) {
    for (Job& job : batch.jobs) {
      const EntryRef& foundation = job.foundation;
      if (foundation.block == nullptr || foundation->in[kDisk] ||
          coming.contains(foundation.key())) {
        coming.insert(job.ref.key());
      } else {
        job.status = Unfounded();
      }
    }
  }
}

absl::Status DiskWriter::PublishTogether(std::vector<Batch>& batches) {
  std::vector<store::DiskTier::StagedPut> puts;
  absl::Status status;
  for (Batch& batch : batches) {
    for (const Job& job : batch.jobs) status.Update(job.status);
    status.Update(batch.staged.status());
    // Whatever comes of it: what is staged must be gone before its entries are put again.
    if (batch.staged.ok()) puts.push_back(*std::move(batch.staged));
  }
  return status.ok() ? residency_.disk->Publish(puts) : status;
}

// Batch by batch, with room made; where that fails, one at a time: what fits is kept, and what is
// damaged (the tier looks) is known.
void DiskWriter::PutAgain(std::vector<Batch>& batches) {
  MutexLock stage_lock(&stage_mutex_);
  absl::flat_hash_set<EntryKey> failed;
  const auto may_go = [&failed](Job& job) {
    if (job.foundation.block != nullptr && failed.contains(job.foundation.key())) {
      job.status.Update(Unfounded());
    }
    if (!job.status.ok()) failed.insert(job.ref.key());
    return job.status.ok();
  };
  for (Batch& batch : batches) {
    std::vector<store::DiskPut> puts;
    for (Job& job : batch.jobs) {
      if (may_go(job)) puts.push_back(job.put());
    }
    const absl::Status together = residency_.PutOnDisk(puts);
    if (together.ok()) continue;
    for (Job& job : batch.jobs) {
      if (!may_go(job)) continue;
      const store::DiskPut alone = job.put();
      job.status = puts.size() == 1 ? together : residency_.PutOnDisk({&alone, 1});
      if (!job.status.ok()) failed.insert(job.ref.key());
    }
  }
}

void DiskWriter::Fail(EntryRef ref, const absl::Status& status) {
  ref->disk_failed = true;
  residency_.index.SetQueued(ref, false);
  residency_.counters.disk_write_failed_entries.Add();
  if (absl::IsFailedPrecondition(status)) return;  // follows from an earlier failure
  last_failure_ = status;
  if (absl::IsResourceExhausted(status)) residency_.counters.disk_full_events.Add();
  if (!failing_) {
    spdlog::warn("entries stay in host memory only, the disk refuses them: {}",
                 std::string(status.message()));
  }
  failing_ = true;
}

void DiskWriter::Finish(std::vector<Batch>& batches) {
  std::vector<Job> jobs;
  for (Batch& batch : batches) {
    std::move(batch.jobs.begin(), batch.jobs.end(), std::back_inserter(jobs));
  }
  PrefixIndex& index = residency_.index;
  for (Job& job : jobs) {
    in_flight_.erase(job.ref.key());
    index.AddHold(job.ref, -1);
    if (job.foundation.block != nullptr) index.AddHold(job.foundation, -1);
    if (job.status.ok()) {
      index.SetQueued(job.ref, false);
      index.SetPresent(job.ref, Place::kDisk, true);
      residency_.counters.disk_written_entries.Add();
      residency_.counters.disk_written_bytes.Add(job.ref->bytes);
      failing_ = false;
    } else if (absl::IsDataLoss(job.status)) {
      residency_.counters.checksum_failures.Add();
      residency_.DropHost(job.ref);
    } else {
      Fail(job.ref, job.status);
    }
    job.pin = store::HostPin();
  }
  // Children after their parents, also from batch to batch: pruning from the back never frees a
  // block that is still to come.
  for (auto job = jobs.rbegin(); job != jobs.rend(); ++job) {
    if (!job->ref->present()) index.Prune(job->ref.block);
  }
  batches_finished_ += batches.size();
  settled_.SignalAll();
  work_.Signal();
}

}  // namespace cairn::cache
