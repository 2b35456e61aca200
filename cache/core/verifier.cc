#include "cache/core/verifier.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "cache/core/selection.h"
#include "store/base/fault_point.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr size_t kHost = static_cast<size_t>(Place::kHost);
constexpr size_t kDisk = static_cast<size_t>(Place::kDisk);
constexpr absl::Duration kTellEvery = absl::Seconds(1);
constexpr EntryKind kKinds[] = {EntryKind::kRows, EntryKind::kCheckpoint};

uint64_t BytesOf(const IndexEntry& entry) {
  return entry.bytes * ((entry.in[kHost] ? 1u : 0u) + (entry.in[kDisk] ? 1u : 0u));
}

absl::Status CheckHost(const store::HostPin& pin) {
  if (!pin.TableIntact()) return absl::DataLossError("its table of parts is damaged");
  const std::optional<size_t> part = Residency::DamagedPart(pin.meta(), pin.payload());
  if (!part.has_value()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("part ", *part, " of ", pin.meta().parts.size(), " is damaged"));
}

}  // namespace

struct Verifier::Work {
  const VerifyOptions& options;
  const Progress& progress;
  int64_t began_nanos = 0;
  int64_t told_nanos = 0;
  int64_t turn_nanos = 0;   // of the next entry
  uint64_t read_bytes = 0;  // of the entry looked at, headers included
  store::IoBuffer scratch = {};
  VerifyReport report = {};
};

void Verifier::End() {
  MutexLock lock(&residency_.mutex);
  ending_ = true;
  ended_.SignalAll();
}

bool Verifier::ending() {
  MutexLock lock(&residency_.mutex);
  return ending_;
}

bool Verifier::WaitUntil(int64_t nanos) {
  MutexLock lock(&residency_.mutex);
  while (!ending_ && clock_.NowNanos() < nanos) waiter_.Wait(residency_.mutex, ended_, nanos);
  return !ending_;
}

bool Verifier::Tell(Work& work) {
  work.told_nanos = clock_.NowNanos();
  work.report.elapsed = absl::Nanoseconds(work.told_nanos - work.began_nanos);
  return !work.progress || work.progress(work.report);
}

bool Verifier::AwaitTurn(Work& work) {
  const int64_t every = absl::ToInt64Nanoseconds(kTellEvery);
  while (clock_.NowNanos() < work.turn_nanos) {
    if (!WaitUntil(std::min(work.turn_nanos, work.told_nanos + every))) return false;
    if (clock_.NowNanos() >= work.told_nanos + every && !Tell(work)) return false;
  }
  return !ending() && (clock_.NowNanos() < work.told_nanos + every || Tell(work));
}

void Verifier::CountAll(Work& work) {
  SelectionWalk walk(work.options.filter);
  for (bool more = true; more;) {
    MutexLock lock(&residency_.mutex);
    more = walk.Step(residency_.index, [&](Block& block) {
      for (const EntryKind kind : kKinds) {
        work.report.total_entries += block.entry(kind).present() ? 1 : 0;
        work.report.total_bytes += BytesOf(block.entry(kind));
        if (gpu_ != nullptr && gpu_->Has({&block, kind})) {
          work.report.total_bytes += block.entry(kind).bytes;
        }
      }
    });
  }
}

absl::StatusOr<VerifyReport> Verifier::Pass(const VerifyOptions& options,
                                            const Progress& progress) {
  residency_.AwaitLoaded();
  Work work{.options = options, .progress = progress, .began_nanos = clock_.NowNanos()};
  CountAll(work);
  const absl::Status cut = absl::CancelledError("the verification was ended early");
  if (!Tell(work)) return cut;
  SelectionWalk walk(options.filter);
  std::vector<EntryKey> keys;
  for (bool more = true; more;) {
    keys.clear();
    {
      MutexLock lock(&residency_.mutex);
      more = walk.Step(residency_.index, [&](Block& block) {
        for (const EntryKind kind : kKinds) {
          if (block.entry(kind).present()) keys.push_back(block.key(kind));
        }
      });
    }
    for (const EntryKey& key : keys) {
      if (!AwaitTurn(work)) return cut;
      const int64_t began_nanos = clock_.NowNanos();
      One(key, work);
      if (options.bytes_per_second == 0) continue;
      // Time that was not used before is not made up for.
      const double seconds =
          static_cast<double>(work.read_bytes) / static_cast<double>(options.bytes_per_second);
      work.turn_nanos = began_nanos + static_cast<int64_t>(seconds * 1e9);
    }
  }
  if (!Tell(work)) return cut;
  return work.report;
}

bool Verifier::HostIsGood(EntryRef ref, const store::HostPin& pin, Work& work) {
  work.read_bytes += pin.payload().size();
  work.report.bytes += pin.payload().size();
  const absl::Status checked = CheckHost(pin);
  if (checked.ok()) return true;
  MutexLock lock(&residency_.mutex);
  if (residency_.DropDamagedHost(ref, pin, checked)) ++work.report.damaged_host;
  return false;
}

absl::Status Verifier::ReadDisk(const EntryKey& key, uint64_t bytes, Work& work) {
  const uint64_t whole = RoundUpToIo(bytes);
  if (work.scratch.bytes().size() < whole) work.scratch = store::IoBuffer(whole);
  store::DiskRead read{
      .key = key, .destination = work.scratch.bytes().first(whole), .status = {}, .meta = {}};
  residency_.disk->ReadBatch({&read, 1}, store::RecordCheck::kWhole);
  CAIRN_FAULT_POINT(kVerifyRead);
  work.read_bytes += whole + kIoAlignment;  // nearly every header is one I/O unit
  work.report.bytes += bytes;
  if (absl::IsDataLoss(read.status) || absl::IsNotFound(read.status)) {
    if (absl::IsNotFound(read.status)) residency_.ForgetIfGone({&key, 1});
    ++work.report.damaged_disk;
  } else if (!read.status.ok()) {
    residency_.counters.disk_read_failures.Add();
    ++work.report.unreadable;
  }
  return read.status;
}

bool Verifier::GpuIsDamaged(EntryRef ref, const store::GpuPin& pin, uint64_t bytes, Work& work) {
  work.read_bytes += bytes;
  work.report.bytes += bytes;
  const absl::Status checked = gpu_->Check(pin);
  if (checked.ok()) return false;
  if (!absl::IsDataLoss(checked)) {
    ++work.report.unreadable;
    return false;
  }
  MutexLock lock(&residency_.mutex);
  if (gpu_->DropDamaged(ref, pin, checked)) ++work.report.damaged_gpu;
  return true;
}

void Verifier::One(const EntryKey& key, Work& work) {
  work.read_bytes = 0;
  EntryRef ref;
  std::optional<store::HostPin> pin;
  store::GpuPin gpu_pin;
  uint64_t bytes = 0;
  bool on_disk = false;
  {
    MutexLock lock(&residency_.mutex);
    ref = {residency_.index.Find(key.digest), key.kind};
    if (ref.block == nullptr || !ref->present()) return;  // gone since it was listed
    residency_.index.AddHold(ref, 1);
    if (ref->in[kHost]) pin = residency_.PinHost(ref);
    if (gpu_ != nullptr) gpu_pin = gpu_->Pin(ref);
    on_disk = ref->in[kDisk];
    bytes = ref->bytes;
  }
  const uint64_t bytes_before = work.report.bytes;
  // The copy in host memory first: if it is damaged it must not be written over the disk's.
  const bool host_good = pin.has_value() && HostIsGood(ref, *pin, work);
  const bool host_damaged = pin.has_value() && !host_good;
  const absl::Status disk = on_disk ? ReadDisk(key, bytes, work) : absl::OkStatus();
  const bool disk_damaged = absl::IsDataLoss(disk) || absl::IsNotFound(disk);
  const bool good = host_good || (on_disk && disk.ok());
  const bool gpu_damaged = gpu_pin && GpuIsDamaged(ref, gpu_pin, bytes, work);
  if (good) {
    work.report.healed +=
        (host_damaged ? 1u : 0u) + (disk_damaged ? 1u : 0u) + (gpu_damaged ? 1u : 0u);
  }
  ++work.report.entries;
  residency_.counters.verified_entries.Add();
  residency_.counters.verified_bytes.Add(work.report.bytes - bytes_before);

  pin.reset();
  gpu_pin = {};
  MutexLock lock(&residency_.mutex);
  residency_.index.AddHold(ref, -1);
  residency_.index.Prune(ref.block);
}

}  // namespace cairn::cache
