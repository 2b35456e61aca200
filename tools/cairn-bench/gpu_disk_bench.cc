// Restoring a 128k-token Flash prefix from disk into a session on the GPU: reads into the arena,
// verified, by two threads that take one batch of blocks after the other; behind them each batch
// goes up, layer by layer. Beside the disk's own rate: the same files read straight, as deep.
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>

#include "store/device/uring_file_system.h"
#include "store/index/memory_catalog.h"
#include "store/tier/disk_tier.h"
#include "tools/cairn-bench/gpu_benches.h"
#include "tools/cairn-bench/gpu_prefix.h"

namespace cairn::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr uint32_t kReaders = 2;
constexpr uint32_t kBatchBlocks = 64;  // 29 MB
constexpr uint32_t kBatches = GpuPrefix::kBlocks / kBatchBlocks;
constexpr uint64_t kPieceBytes = 512ull << 10;  // of a straight read: about an entry

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// Runs `work` on kReaders threads; the first error.
absl::Status OnReaders(const std::function<absl::Status()>& work) {
  std::vector<absl::Status> statuses(kReaders);
  std::vector<std::thread> threads;
  for (absl::Status& status : statuses) {
    threads.emplace_back([&status, &work] { status = work(); });
  }
  for (std::thread& thread : threads) thread.join();
  absl::Status all;
  for (const absl::Status& status : statuses) all.Update(status);
  return all;
}

// The prefix on disk, and a second arena that it is read into.
struct OnDisk {
  std::shared_ptr<GpuPrefix> prefix;
  std::string directory;
  store::UringFileSystem files;
  std::unique_ptr<store::DiskTier> disk;
  std::unique_ptr<store::HostTier> host;
  std::unique_ptr<store::Gpu::Pinned> pinned;
  std::vector<store::HostRoom> rooms;  // one an entry

  absl::Status Make(const BenchContext& context) {
    CAIRN_ASSIGN_OR_RETURN(prefix, GpuPrefix::Make());
    directory = context.directory + "/tier";
    auto catalog =
        std::make_unique<store::MemoryCatalog>(std::make_shared<store::MemoryCatalogDisk>());
    CAIRN_ASSIGN_OR_RETURN(
        disk, store::DiskTier::Open({.directory = directory, .capacity_bytes = 4 * prefix->bytes()},
                                    files, std::move(catalog), RealClock(), nullptr));
    CAIRN_ASSIGN_OR_RETURN(
        host, store::HostTier::Create({.capacity_bytes = prefix->host().arena_bytes()}));
    CAIRN_ASSIGN_OR_RETURN(pinned, prefix->gpu().Pin(host->arena(), store::PinnedUse::kReadWrite));
    for (uint32_t i = 0; i <= GpuPrefix::kBlocks; ++i) {
      const EntryMeta meta = prefix->Meta(i);
      const std::span<const uint8_t> payload = prefix->Payload(i);
      CAIRN_ASSIGN_OR_RETURN(store::HostRoom room,
                             host->Reserve(payload.size(), meta.parts.size()));
      rooms.push_back(std::move(room));
      const store::DiskPut put{.meta = &meta,
                               .payload = {payload.data(), RoundUpToIo(payload.size())}};
      CAIRN_RETURN_IF_ERROR(disk->Put({&put, 1}));
    }
    return absl::OkStatus();
  }

  // A batch's blocks, the last one's with the checkpoint, into their rooms, verified.
  absl::Status Read(uint32_t batch) {
    const uint32_t begin = batch * kBatchBlocks;
    const uint32_t end = begin + kBatchBlocks + (batch + 1 == kBatches ? 1 : 0);
    std::vector<store::DiskRead> reads(end - begin);
    for (uint32_t i = begin; i < end; ++i) {
      reads[i - begin].key = prefix->Meta(i).key;
      reads[i - begin].destination = rooms[i].bytes().first(RoundUpToIo(prefix->Payload(i).size()));
    }
    disk->ReadBatch(reads);
    absl::Status all;
    for (const store::DiskRead& read : reads) all.Update(read.status);
    return all;
  }

  absl::Status BeginUp(uint32_t batch) {
    const uint32_t begin = batch * kBatchBlocks;
    const bool last = batch + 1 == kBatches;
    std::vector<const uint8_t*> sources;
    for (uint32_t i = begin; i < begin + kBatchBlocks; ++i) {
      sources.push_back(rooms[i].bytes().data());
    }
    if (last) sources.push_back(rooms[GpuPrefix::kBlocks].bytes().data());
    CAIRN_RETURN_IF_ERROR(prefix->restore().Wait());  // it has been done for long
    return prefix->restore().Begin(sources, prefix->Steps(begin, begin + kBatchBlocks, last),
                                   store::GatherFrom::kHost);
  }

  // One reader puts its batch on its way up before it takes the next one.
  absl::Status Restore() {
    std::atomic<uint32_t> next{0};
    std::mutex up;
    const absl::Status read = OnReaders([&]() -> absl::Status {
      for (uint32_t batch = next++; batch < kBatches; batch = next++) {
        CAIRN_RETURN_IF_ERROR(Read(batch));
        const std::lock_guard<std::mutex> lock(up);
        CAIRN_RETURN_IF_ERROR(BeginUp(batch));
      }
      return absl::OkStatus();
    });
    CAIRN_RETURN_IF_ERROR(read);
    return prefix->restore().Wait();
  }
};

// The segment files' bytes, as many as the prefix has, by as many threads and requests.
absl::StatusOr<double> StraightRate(OnDisk& on) {
  std::vector<std::unique_ptr<store::File>> files;
  std::vector<std::pair<store::File*, uint64_t>> pieces;
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                         on.files.List(on.directory + "/segments"));
  for (const std::string& name : names) {
    CAIRN_ASSIGN_OR_RETURN(
        auto file, on.files.Open(on.directory + "/segments/" + name, store::OpenMode::kReadOnly));
    CAIRN_ASSIGN_OR_RETURN(const uint64_t bytes, file->Size());
    for (uint64_t at = 0; at + kPieceBytes <= bytes; at += kPieceBytes) {
      pieces.emplace_back(file.get(), at);
    }
    files.push_back(std::move(file));
  }
  pieces.resize(std::min<size_t>(pieces.size(), on.prefix->bytes() / kPieceBytes));
  const std::span<uint8_t> arena(on.rooms[0].bytes().data(), pieces.size() * kPieceBytes);
  std::atomic<size_t> next{0};
  const SteadyClock::time_point start = SteadyClock::now();
  const absl::Status read = OnReaders([&]() -> absl::Status {
    for (size_t begin = next.fetch_add(kBatchBlocks); begin < pieces.size();
         begin = next.fetch_add(kBatchBlocks)) {
      std::vector<store::IoRequest> requests;
      for (size_t i = begin; i < std::min(begin + kBatchBlocks, pieces.size()); ++i) {
        requests.push_back(store::IoRequest::Read(*pieces[i].first, pieces[i].second,
                                                  arena.subspan(i * kPieceBytes, kPieceBytes)));
      }
      on.files.Submit(requests);
      for (const store::IoRequest& request : requests) CAIRN_RETURN_IF_ERROR(request.status);
    }
    return absl::OkStatus();
  });
  CAIRN_RETURN_IF_ERROR(read);
  return static_cast<double>(arena.size()) / SecondsSince(start) * 1e-9;
}

absl::StatusOr<Prepared> Prepare(const BenchContext& context) {
  const auto on = std::make_shared<OnDisk>();
  CAIRN_RETURN_IF_ERROR(on->Make(context));
  Prepared prepared;
  prepared.contenders.push_back({"the files read straight, io_uring, O_DIRECT", Role::kLimit,
                                 [on] { return StraightRate(*on); }});
  prepared.contenders.push_back(
      {"disk to session, verified", Role::kOurs, [on]() -> absl::StatusOr<double> {
         CAIRN_RETURN_IF_ERROR(on->prefix->Poison());
         const SteadyClock::time_point start = SteadyClock::now();
         CAIRN_RETURN_IF_ERROR(on->Restore());
         const double seconds = SecondsSince(start);
         CAIRN_RETURN_IF_ERROR(on->prefix->Compare());
         return static_cast<double>(on->prefix->bytes()) / seconds * 1e-9;
       }});
  return prepared;
}

}  // namespace

void AddGpuDiskBench(std::vector<Bench>& benches) {
  benches.push_back(
      {.name = "gpu-restore-disk",
       .what = "a 128k-token Flash prefix, 463 MB, from disk into a session on the GPU",
       .unit = "GB/s",
       .ratio_bound = 0.9,
       .prepare = Prepare});
}

}  // namespace cairn::bench
