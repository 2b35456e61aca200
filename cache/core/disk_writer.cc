#include "cache/core/disk_writer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "store/base/fault_point.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

// Large enough that a sync and a catalog batch for each are little, small enough to bound what a
// durable commit waits for.
constexpr size_t kBatchEntriesMax = 64;
constexpr uint64_t kBatchBytesMax = 32ull << 20;
// Two are written while one is synced and one catalogued: the device is busy all the while.
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
  uint64_t number = 0;
  std::vector<Job> jobs;
  absl::StatusOr<store::DiskTier::StagedPut> staged;  // dropped before the pins in `jobs`
};

DiskWriter::DiskWriter(Residency& residency, Waiter& waiter, bool background)
    : residency_(residency), waiter_(waiter), batch_bytes_max_(BatchBytesMax(residency)) {
  if (!background || residency.disk == nullptr) return;
  for (uint64_t i = 0; i < kBatchesInFlightMax; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

DiskWriter::~DiskWriter() {
  MutexLock lock(&residency_.mutex);
  stop_ = true;
  work_.SignalAll();
  while (queued_entries() != 0) Progress(kNoDeadline);
  residency_.mutex.Unlock();
  for (std::thread& thread : threads_) thread.join();
  residency_.mutex.Lock();
}

void DiskWriter::Run() {
  while (true) {
    {
      MutexLock lock(&residency_.mutex);
      while (!MayTake() && !(stop_ && queue_.empty())) work_.Wait(&residency_.mutex);
      if (queue_.empty()) return;
    }
    WriteBatch();
  }
}

bool DiskWriter::MayTake() const {
  return !queue_.empty() && !short_of_room_ && pauses_ == 0 &&
         batches_taken_ - batches_finished_ < kBatchesInFlightMax;
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

DiskWriter::Pause::Pause(DiskWriter& writer) : writer_(writer) {
  MutexLock lock(&writer_.residency_.mutex);
  ++writer_.pauses_;
  while (writer_.batches_finished_ != writer_.batches_taken_) writer_.Progress(kNoDeadline);
}

DiskWriter::Pause::~Pause() {
  MutexLock lock(&writer_.residency_.mutex);
  --writer_.pauses_;
  writer_.work_.SignalAll();
  writer_.settled_.SignalAll();
}

void DiskWriter::Progress(int64_t deadline_nanos) {
  if (!threads_.empty() || !MayTake()) {
    waiter_.Wait(residency_.mutex, settled_, deadline_nanos);
    return;
  }
  residency_.mutex.Unlock();
  WriteBatch();
  residency_.mutex.Lock();
}

void DiskWriter::WriteBatch() {
  Batch batch;
  if (!Begin(batch)) return;
  if (batch.staged.ok()) {
    if (const absl::Status written = residency_.disk->Write(*batch.staged); !written.ok()) {
      batch.staged = written;
    }
  }
  {
    MutexLock lock(&residency_.mutex);
    while (batches_finished_ != batch.number) settled_.Wait(&residency_.mutex);
  }
  if (!Publish(batch)) PutOneByOne(batch);
}

bool DiskWriter::Begin(Batch& batch) {
  MutexLock room_lock(&room_mutex_);
  {
    MutexLock lock(&residency_.mutex);
    if (!MayTake()) return false;
    batch.number = batches_taken_++;
    TakeJobs(batch);
  }
  CAIRN_FAULT_POINT(kWriterBatchTaken);
  std::vector<store::DiskPut> puts;
  for (const Job& job : batch.jobs) puts.push_back(job.put());
  batch.staged = residency_.disk->Stage(puts);
  if (absl::IsResourceExhausted(batch.staged.status())) {
    MutexLock disk_lock(&residency_.disk_mutex);
    batch.staged = residency_.StageOnDisk(puts);
  }
  MutexLock lock(&residency_.mutex);
  short_of_room_ = !batch.staged.ok();
  return true;
}

bool DiskWriter::Publish(Batch& batch) {
  if (!batch.staged.ok()) return false;
  // From the look at what they build on until they are recorded nothing is erased: residency.h.
  MutexLock disk_lock(&residency_.disk_mutex);
  {
    MutexLock lock(&residency_.mutex);
    if (!Founded(batch)) return false;
  }
  if (!residency_.disk->Publish(*std::move(batch.staged)).ok()) return false;
  CAIRN_FAULT_POINT(kWriterBatchPut);
  MutexLock lock(&residency_.mutex);
  Finish(batch);
  return true;
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

void DiskWriter::TakeJobs(Batch& batch) {
  PrefixIndex& index = residency_.index;
  uint64_t bytes = 0;
  while (!queue_.empty() && batch.jobs.size() < kBatchEntriesMax &&
         (batch.jobs.empty() || bytes < batch_bytes_max_)) {
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
    batch.jobs.push_back(std::move(job));
  }
}

bool DiskWriter::Founded(const Batch& batch) const {
  absl::flat_hash_set<EntryKey> here;
  for (const Job& job : batch.jobs) {
    const EntryRef foundation = job.foundation;
    if (foundation.block != nullptr && !foundation->in[kDisk] && !here.contains(foundation.key())) {
      return false;
    }
    here.insert(job.ref.key());
  }
  return true;
}

void DiskWriter::PutOneByOne(Batch& batch) {
  batch.staged = absl::AbortedError("put one by one");  // gives back what it has
  MutexLock room_lock(&room_mutex_);
  MutexLock disk_lock(&residency_.disk_mutex);
  absl::flat_hash_set<EntryKey> saved;
  for (Job& job : batch.jobs) {
    const EntryRef foundation = job.foundation;
    bool founded = foundation.block == nullptr || saved.contains(foundation.key());
    if (!founded) {
      MutexLock lock(&residency_.mutex);
      founded = foundation->in[kDisk];
    }
    job.status = founded ? residency_.PutOnDisk(job.put()) : Unfounded();
    if (job.status.ok()) saved.insert(job.ref.key());
  }
  MutexLock lock(&residency_.mutex);
  Finish(batch);
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

void DiskWriter::Finish(Batch& batch) {
  PrefixIndex& index = residency_.index;
  for (Job& job : batch.jobs) {
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
  // Children after their parents in a batch: pruning from the back never frees a block that is
  // still to come.
  for (auto job = batch.jobs.rbegin(); job != batch.jobs.rend(); ++job) {
    if (!job->ref->present()) index.Prune(job->ref.block);
  }
  if (++batches_finished_ == batches_taken_) short_of_room_ = false;
  CAIRN_FAULT_POINT(kWriterBatchFinished);
  settled_.SignalAll();
  work_.SignalAll();
}

}  // namespace cairn::cache
