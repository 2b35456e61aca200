// Durable puts beside fio's sequential write: the daemon's own way from the arena to disk (the
// core's DiskWriter), from the first entry queued until the last one is durable.
#include <chrono>
#include <cstring>
#include <memory>

#include "cache/core/disk_writer.h"
#include "cache/core/residency.h"
#include "store/base/checksum.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "store/device/uring_file_system.h"
#include "store/index/rocks_catalog.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/fio.h"
#include "tools/cairn-bench/flash_layout.h"

namespace cairn::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr uint64_t kPutBytes = 512ull << 20;  // of one measurement

struct PutFixture {
  store::UringFileSystem files;
  std::unique_ptr<store::HostTier> host;
  std::unique_ptr<store::DiskTier> disk;
  cache::ClockWaiter waiter{RealClock()};
  SeededRandom random{1};
  std::vector<uint32_t> parts = FlashLayout().part_bytes(cache::LayoutScope::kPrefix);
  uint64_t entry_bytes = FlashLayout().entry_bytes(cache::LayoutScope::kPrefix);
  uint64_t entries() const { return kPutBytes / entry_bytes; }
};

// A chain of rows in the arena whose names nobody had before.
absl::StatusOr<std::vector<cache::EntryRef>> FillArena(PutFixture& fixture,
                                                       cache::Residency& residency) {
  cache::EntryAttributes attributes;
  fixture.random.Fill(attributes.root.bytes);
  attributes.parent = attributes.root;
  std::vector<cache::EntryRef> refs;
  MutexLock lock(&residency.mutex);
  for (; attributes.index < fixture.entries(); ++attributes.index) {
    CAIRN_ASSIGN_OR_RETURN(store::HostRoom room,
                           residency.ReserveHost(fixture.entry_bytes, fixture.parts.size()));
    Digest digest;
    fixture.random.Fill(digest.bytes);
    fixture.random.Fill(room.bytes().first(fixture.entry_bytes));
    EntryMeta meta{{digest, EntryKind::kRows}, {}, cache::EncodeAttributes(attributes)};
    size_t at = 0;
    for (const uint32_t bytes : fixture.parts) {
      meta.parts.push_back({bytes, Checksum(room.bytes().subspan(at, bytes))});
      at += bytes;
    }
    refs.push_back({residency.index.Add(digest, attributes), EntryKind::kRows});
    CAIRN_RETURN_IF_ERROR(residency.PublishHost(refs.back(), std::move(meta), std::move(room)));
    attributes.parent = digest;
  }
  return refs;
}

absl::StatusOr<double> MeasurePut(PutFixture& fixture) {
  cache::Residency residency(*fixture.host, fixture.disk.get(), RealClock(), {});
  std::vector<EntryKey> keys;
  double seconds = 0;
  {
    cache::Expiry expiry(residency, {});
    cache::DiskWriter writer(residency, fixture.waiter, expiry, /*background=*/true);
    CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::EntryRef> refs, FillArena(fixture, residency));
    for (const cache::EntryRef ref : refs) keys.push_back(ref.key());
    const SteadyClock::time_point start = SteadyClock::now();
    {
      MutexLock lock(&residency.mutex);
      for (const cache::EntryRef ref : refs) writer.Enqueue(ref);
    }
    CAIRN_RETURN_IF_ERROR(writer.Drain(cache::kNoDeadline, RealClock()));
    seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  }
  for (const EntryKey& key : keys) fixture.host->Erase(key);
  CAIRN_RETURN_IF_ERROR(fixture.disk->Erase(keys));
  return static_cast<double>(keys.size() * fixture.entry_bytes) / seconds / 1e9;
}

absl::StatusOr<Prepared> PreparePut(const BenchContext& context) {
  Prepared prepared;
  CAIRN_RETURN_IF_ERROR(AddFio(
      {.direction = "write",
       .arguments = "--rw=write --end_fsync=1 --overwrite=0 --unlink=1 --fixedbufs --size=" +
                    std::to_string(kPutBytes) + " '--filename=" + context.directory + "/fio.data'",
       .ways = {"--bs=1m --iodepth=8", "--bs=1m --iodepth=32", "--bs=4m --iodepth=8"}},
      prepared));
  const auto fixture = std::make_shared<PutFixture>();
  const uint64_t room = store::HostRoomBytes(fixture->entry_bytes, fixture->parts.size());
  CAIRN_ASSIGN_OR_RETURN(
      fixture->host, store::HostTier::Create({.capacity_bytes = (fixture->entries() + 1) * room}));
  CAIRN_ASSIGN_OR_RETURN(
      fixture->disk, store::DiskTier::Open(
                         {.directory = context.directory + "/tier", .capacity_bytes = 16ull << 30},
                         fixture->files, store::MakeRocksCatalog(), RealClock(), nullptr));
  prepared.contenders.push_back({"the core's writer, verified, durable batch by batch", Role::kOurs,
                                 [fixture] { return MeasurePut(*fixture); }});
  return prepared;
}

}  // namespace

void AddDiskPutBench(std::vector<Bench>& benches) {
  benches.push_back({.name = "disk-put",
                     .what = "durable puts of 449824 B entries, 512 MiB",
                     .unit = "GB/s",
                     .higher_is_better = true,
                     .ratio_bound = 0.9,
                     .figure_bound = 0,
                     .prepare = PreparePut});
}

}  // namespace cairn::bench
