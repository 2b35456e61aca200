#include "cache/core/disk_writer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <future>
#include <utility>

#include "store/base/fault_point.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

// Between two batches the device waits for a fraction of a millisecond: long enough that this and
// the batch's sync are little beside its writing, short enough to bound what a durable commit waits
// for (where much is queued the one being written, the one that has room, and its own with its
// sync: a tenth of a second at 2.5 GB/s), and little of the disk, as room is taken for two.
constexpr size_t kBatchEntriesMax = 1024;
constexpr uint64_t kBatchBytesLeast = 1ull << 20, kBatchBytesMost = 64ull << 20;
constexpr uint64_t kBatchesPerDisk = 64;

uint64_t BatchBytes(const Residency& residency) {
  if (residency.disk == nullptr) return kBatchBytesLeast;
  return std::clamp(residency.disk->stats().capacity_bytes / kBatchesPerDisk, kBatchBytesLeast,
                    kBatchBytesMost);
}

constexpr size_t kHost = static_cast<size_t>(Place::kHost);
constexpr size_t kDisk = static_cast<size_t>(Place::kDisk);

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
  std::optional<store::DiskTier::Pending> put;  // of what `jobs` pins: goes first
  absl::Status status;

  std::vector<store::DiskPut> puts() const {
    std::vector<store::DiskPut> all;
    for (const Job& job : jobs) all.push_back(job.put());
    return all;
  }
};

DiskWriter::DiskWriter(Residency& residency, Waiter& waiter, Expiry& expiry, bool background)
    : residency_(residency),
      waiter_(waiter),
      expiry_(expiry),
      batch_bytes_max_(BatchBytes(residency)) {
  if (background && residency.disk != nullptr) thread_ = std::thread([this] { Run(); });
}

DiskWriter::~DiskWriter() {
  if (thread_.joinable()) {
    {
      MutexLock lock(&residency_.mutex);
      stop_ = true;
      work_.SignalAll();
    }
    thread_.join();
  } else {
    MutexLock lock(&residency_.mutex);
    while (!queue_.empty()) Progress(kNoDeadline);
  }
}

void DiskWriter::Run() {
  while (true) {
    {
      MutexLock lock(&residency_.mutex);
      while (queue_.empty() && !stop_) work_.Wait(&residency_.mutex);
      if (queue_.empty()) return;
    }
    WriteQueued();
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

void DiskWriter::Progress(int64_t deadline_nanos) {
  if (thread_.joinable()) {
    waiter_.Wait(residency_.mutex, settled_, deadline_nanos);
    return;
  }
  residency_.mutex.Unlock();
  WriteQueued();
  residency_.mutex.Lock();
}

void DiskWriter::WriteQueued() {
  MutexLock disk_lock(&residency_.disk_mutex);
  residency_.disk_mutex.Await([this] { return !residency_.disk_is_wanted(); });
  std::optional<Batch> written, next = TakeBatch();
  while (written.has_value() || next.has_value()) {
    std::optional<Batch> after;
    const bool has_room = next.has_value() && next->status.ok();
    const auto beside = [&, goes_on = has_room || !next.has_value()] {
      if (written.has_value()) Publish(*written);
      if (goes_on && (!written.has_value() || written->status.ok())) after = TakeBatch();
    };
    // Beside nothing, or where no thread is to be had, it is done below.
    const bool both = thread_.joinable() && written.has_value() && has_room;
    std::future<void> done = std::async(
        both ? std::launch::async | std::launch::deferred : std::launch::deferred, beside);
    if (has_room) next->status = residency_.disk->Write(*next->put);
    done.get();
    if (written.has_value() && !written->status.ok()) {
      // Nothing that came later may be there before it.
      GiveUp(std::move(after));
      GiveUp(std::move(next));
      PutAlone(*std::exchange(written, std::nullopt));
      next = TakeBatch();
    } else if (next.has_value() && !next->status.ok()) {
      written.reset();
      GiveUp(std::move(after));
      PutAlone(*std::exchange(next, std::nullopt));
      next = TakeBatch();
    } else {
      written = std::exchange(next, std::exchange(after, std::nullopt));
    }
    expiry_.Step();
  }
}

std::optional<DiskWriter::Batch> DiskWriter::TakeBatch() {
  if (residency_.disk_is_wanted()) return std::nullopt;
  Batch batch;
  {
    MutexLock lock(&residency_.mutex);
    batch.jobs = TakeJobs();
    settled_.SignalAll();  // it may have failed some
  }
  CAIRN_FAULT_POINT(kWriterBatchTaken);
  if (batch.jobs.empty()) return std::nullopt;
  absl::StatusOr<store::DiskTier::Pending> put = residency_.disk->Prepare(batch.puts());
  batch.status = put.status();
  if (put.ok()) batch.put = *std::move(put);
  return batch;
}

void DiskWriter::Publish(Batch& batch) {
  batch.status = residency_.disk->Publish(*batch.put);
  if (!batch.status.ok()) return;
  batch.put.reset();
  CAIRN_FAULT_POINT(kWriterBatchPut);
  MutexLock lock(&residency_.mutex);
  Finish(batch.jobs);
}

bool DiskWriter::FoundationReady(EntryRef ref) {
  const EntryRef foundation = FoundationOf(ref);
  if (foundation.block == nullptr || foundation->in[kDisk] ||
      under_way_.contains(foundation.key())) {
    return true;
  }
  if (foundation->disk_failed || !foundation->in[kHost]) {
    Fail(ref, absl::FailedPreconditionError("what it builds on is not on disk"));
    return false;
  }
  residency_.index.SetQueued(foundation, true);
  queue_.push_front(ref.key());
  queue_.push_front(foundation.key());
  return false;
}

std::vector<DiskWriter::Job> DiskWriter::TakeJobs() {
  PrefixIndex& index = residency_.index;
  std::vector<Job> jobs;
  uint64_t bytes = 0;
  while (!queue_.empty() && jobs.size() < kBatchEntriesMax && bytes < batch_bytes_max_) {
    const EntryKey key = queue_.front();
    queue_.pop_front();
    Block* const block = index.Find(key.digest);
    if (block == nullptr || under_way_.contains(key)) continue;
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
    under_way_.insert(key);
    bytes += ref->bytes;
    jobs.push_back(std::move(job));
  }
  return jobs;
}

void DiskWriter::PutAlone(Batch batch) {
  batch.put.reset();
  if (absl::IsResourceExhausted(batch.status)) batch.status = residency_.PutOnDisk(batch.puts());
  if (!batch.status.ok()) {
    // One at a time: what fits is kept, and what is damaged (the tier looks) is known.
    absl::flat_hash_set<EntryKey> failed;
    for (Job& job : batch.jobs) {
      if (batch.jobs.size() == 1) {
        job.status = batch.status;
      } else if (job.foundation.block != nullptr && failed.contains(job.foundation.key())) {
        job.status = absl::FailedPreconditionError("what it builds on is not on disk");
      } else {
        const store::DiskPut put = job.put();
        job.status = residency_.PutOnDisk({&put, 1});
      }
      if (!job.status.ok()) failed.insert(job.ref.key());
    }
  }
  CAIRN_FAULT_POINT(kWriterBatchPut);
  MutexLock lock(&residency_.mutex);
  Finish(batch.jobs);
}

void DiskWriter::GiveUp(std::optional<Batch> batch) {
  if (!batch.has_value()) return;
  batch->put.reset();
  MutexLock lock(&residency_.mutex);
  for (auto job = batch->jobs.rbegin(); job != batch->jobs.rend(); ++job) {
    queue_.push_front(job->ref.key());
    LetGo(*job);
  }
}

void DiskWriter::LetGo(Job& job) {
  residency_.index.AddHold(job.ref, -1);
  if (job.foundation.block != nullptr) residency_.index.AddHold(job.foundation, -1);
  under_way_.erase(job.ref.key());
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

void DiskWriter::Finish(std::vector<Job>& jobs) {
  PrefixIndex& index = residency_.index;
  for (Job& job : jobs) {
    LetGo(job);
    if (job.status.ok()) {
      index.SetQueued(job.ref, false);
      index.SetPresent(job.ref, Place::kDisk, true);
      residency_.counters.disk_written_entries.Add();
      residency_.counters.disk_written_bytes.Add(job.ref->bytes);
      if (job.ref->heals) residency_.counters.healed_disk_entries.Add();
      job.ref->heals = false;
      failing_ = false;
    } else if (absl::IsDataLoss(job.status)) {
      residency_.DropDamagedHost(job.ref, job.pin, job.status);
    } else {
      Fail(job.ref, job.status);
    }
    job.pin = store::HostPin();
  }
  // Children after their parents in a batch: pruning from the back never frees a block that is
  // still to come.
  for (auto job = jobs.rbegin(); job != jobs.rend(); ++job) {
    if (!job->ref->present()) index.Prune(job->ref.block);
  }
  CAIRN_FAULT_POINT(kWriterBatchFinished);
  settled_.SignalAll();
}

}  // namespace cairn::cache
