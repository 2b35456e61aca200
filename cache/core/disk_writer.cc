#include "cache/core/disk_writer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "store/base/fault_point.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

// The tier writes a group of a batch while it syncs the one before, so only the batch's end finds
// the device idle (about 2 ms): several groups long, but short enough to bound what a durable
// commit waits for (a tenth of a second at 2.5 GB/s, where so much is queued), and little of the
// disk, as room is made for all of it at once.
constexpr size_t kBatchEntriesMax = 1024;
constexpr uint64_t kBatchBytesLeast = 32ull << 20, kBatchBytesMost = 256ull << 20;
constexpr uint64_t kBatchesPerDisk = 16;

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
    WriteBatch();
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
  WriteBatch();
  residency_.mutex.Lock();
}

void DiskWriter::WriteBatch() {
  MutexLock disk_lock(&residency_.disk_mutex);
  std::vector<Job> jobs;
  {
    MutexLock lock(&residency_.mutex);
    jobs = TakeBatch();
    batch_entries_ = jobs.size();
  }
  CAIRN_FAULT_POINT(kWriterBatchTaken);
  if (!jobs.empty()) Put(jobs);
  CAIRN_FAULT_POINT(kWriterBatchPut);
  {
    MutexLock lock(&residency_.mutex);
    Finish(jobs);
  }
  expiry_.Step();
}

bool DiskWriter::FoundationReady(EntryRef ref, const absl::flat_hash_set<EntryKey>& in_batch) {
  const EntryRef foundation = FoundationOf(ref);
  if (foundation.block == nullptr || foundation->in[kDisk] || in_batch.contains(foundation.key())) {
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

std::vector<DiskWriter::Job> DiskWriter::TakeBatch() {
  PrefixIndex& index = residency_.index;
  std::vector<Job> jobs;
  absl::flat_hash_set<EntryKey> in_batch;
  uint64_t bytes = 0;
  while (!queue_.empty() && jobs.size() < kBatchEntriesMax && bytes < batch_bytes_max_) {
    const EntryKey key = queue_.front();
    queue_.pop_front();
    Block* const block = index.Find(key.digest);
    if (block == nullptr || in_batch.contains(key)) continue;
    const EntryRef ref{block, key.kind};
    if (!ref->queued) continue;
    if (ref->in[kDisk]) {
      index.SetQueued(ref, false);
      continue;
    }
    if (!FoundationReady(ref, in_batch)) continue;
    std::optional<store::HostPin> pin = residency_.PinHost(ref);
    if (!pin.has_value()) {
      index.Prune(block);
      continue;
    }
    Job job{ref, FoundationOf(ref), std::move(*pin), absl::OkStatus()};
    // Neither may be evicted, here or on disk, while room for this batch is made.
    index.AddHold(ref, 1);
    if (job.foundation.block != nullptr) index.AddHold(job.foundation, 1);
    in_batch.insert(key);
    bytes += ref->bytes;
    jobs.push_back(std::move(job));
  }
  return jobs;
}

void DiskWriter::Put(std::vector<Job>& jobs) {
  absl::flat_hash_set<EntryKey> failed;
  std::vector<store::DiskPut> puts;
  const auto add = [](const Job& job, std::vector<store::DiskPut>& to) {
    const std::span<const uint8_t> payload = job.pin.payload();
    // The room in the arena is whole I/O units, and so is what the disk takes.
    to.push_back({&job.pin.meta(), {payload.data(), RoundUpToIo(payload.size())}});
  };
  for (const Job& job : jobs) add(job, puts);
  const absl::Status together = residency_.PutOnDisk(puts);
  if (together.ok()) return;
  // One at a time: what fits is kept, and what is damaged (the tier looks) is known.
  for (Job& job : jobs) {
    if (puts.size() == 1) {
      job.status = together;
    } else if (job.foundation.block != nullptr && failed.contains(job.foundation.key())) {
      job.status = absl::FailedPreconditionError("what it builds on is not on disk");
    } else {
      std::vector<store::DiskPut> alone;
      add(job, alone);
      job.status = residency_.PutOnDisk(alone);
    }
    if (!job.status.ok()) failed.insert(job.ref.key());
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

void DiskWriter::Finish(std::vector<Job>& jobs) {
  PrefixIndex& index = residency_.index;
  for (Job& job : jobs) {
    index.AddHold(job.ref, -1);
    if (job.foundation.block != nullptr) index.AddHold(job.foundation, -1);
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
  batch_entries_ = 0;
  CAIRN_FAULT_POINT(kWriterBatchFinished);
  settled_.SignalAll();
}

}  // namespace cairn::cache
