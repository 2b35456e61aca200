// Reads from the disk tier beside fio, RocksDB's blob files and plain files, on one file system.
//
// Reads are cold: O_DIRECT, at random, over a set larger than a device's cache. fio and the plain
// files read the very segment files that the tier wrote.
#include <fcntl.h>
#include <rocksdb/db.h>
#include <rocksdb/table.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "store/base/checksum.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "store/device/shared_memory.h"
#include "store/device/uring_file_system.h"
#include "store/index/rocks_catalog.h"
#include "store/segment/segment_set.h"
#include "store/tier/disk_tier.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/fio.h"

namespace cairn::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr double kMeasureSeconds = 1.0;
constexpr size_t kParts = 63;  // as a Flash block's rows
constexpr uint64_t kBatchBytes = 32ull << 20;
constexpr uint64_t kFetchChunkBytes = 64ull << 20;  // what a long fetch asks the tier for at once

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

EntryKey KeyOf(uint64_t number) {
  uint8_t bytes[8];
  std::memcpy(bytes, &number, sizeof(bytes));
  return {.digest = Sha256(bytes), .kind = EntryKind::kRows};
}

// Entries of one size with the same bytes under different keys, which the tier cannot see.
struct Entries {
  explicit Entries(uint64_t bytes) : payload(bytes) {
    SeededRandom random(bytes);
    for (size_t at = 0; at + 8 <= bytes; at += 8) {
      const uint64_t word = random.Next();
      std::memcpy(payload.bytes().data() + at, &word, 8);
    }
    uint64_t at = 0;
    for (size_t i = 0; i < kParts; ++i) {
      const uint64_t part = i + 1 < kParts ? bytes / kParts : bytes - at;
      parts.push_back({.bytes = static_cast<uint32_t>(part),
                       .xxh3 = Checksum(payload.bytes().subspan(at, part))});
      at += part;
    }
  }
  EntryMeta Meta(uint64_t number) const {
    return {.key = KeyOf(number), .parts = parts, .attributes = std::string(48, 'a')};
  }
  store::IoBuffer payload;
  std::vector<EntryPart> parts;
};

struct Tier {
  store::UringFileSystem files;
  std::unique_ptr<store::DiskTier> disk;

  static absl::StatusOr<std::shared_ptr<Tier>> Open(const std::string& directory,
                                                    uint64_t capacity_bytes) {
    auto tier = std::make_shared<Tier>();
    CAIRN_ASSIGN_OR_RETURN(
        tier->disk,
        store::DiskTier::Open({.directory = directory, .capacity_bytes = capacity_bytes},
                              tier->files, store::MakeRocksCatalog(), RealClock(), nullptr));
    return tier;
  }

  // Puts entries [first, first + count), a batch of kBatchBytes at a time.
  absl::Status Put(const Entries& entries, uint64_t first, uint64_t count) {
    const uint64_t batch = std::max<uint64_t>(1, kBatchBytes / entries.payload.bytes().size());
    for (uint64_t done = 0; done < count; done += batch) {
      std::vector<EntryMeta> metas;
      for (uint64_t i = done; i < std::min(done + batch, count); ++i) {
        metas.push_back(entries.Meta(first + i));
      }
      std::vector<store::DiskPut> puts;
      for (const EntryMeta& meta : metas) {
        puts.push_back({.meta = &meta, .payload = entries.payload.bytes()});
      }
      CAIRN_RETURN_IF_ERROR(disk->Put(puts));
    }
    return absl::OkStatus();
  }
};

std::string SegmentFiles(const std::string& directory, const char* separator) {
  std::string names;
  for (const auto& file : std::filesystem::directory_iterator(directory + "/segments")) {
    if (file.file_size() < kBatchBytes) continue;  // fio reads in whole blocks
    names += (names.empty() ? "" : separator) + file.path().string();
  }
  return names;
}

// ---- cold reads ----

struct ReadCase {
  uint64_t entry_bytes;
  size_t depth;
  // fio keeps `depth` in flight all the time. Of a batch fewer and fewer are left at its end, so
  // the deepest case reads batches as long as a fetch's.
  size_t batch() const {
    return depth < 64 ? depth : std::max<size_t>(depth, kFetchChunkBytes / entry_bytes);
  }
};

// Bytes that `read` moves, again and again for about a second, as GB/s.
absl::StatusOr<double> Rate(const std::function<absl::StatusOr<uint64_t>()>& read) {
  const SteadyClock::time_point start = SteadyClock::now();
  uint64_t bytes = 0;
  while (SecondsSince(start) < kMeasureSeconds) {
    CAIRN_ASSIGN_OR_RETURN(const uint64_t more, read());
    bytes += more;
  }
  return static_cast<double>(bytes) / SecondsSince(start) / 1e9;
}

Contender OursRead(const ReadCase& c, std::shared_ptr<Tier> tier,
                   std::shared_ptr<store::SharedMemory> arena, uint64_t count) {
  const auto random = std::make_shared<SeededRandom>(1);
  const uint64_t room = RoundUpToIo(c.entry_bytes);
  return {"disk tier, verified", Role::kOurs, [=] {
            return Rate([&]() -> absl::StatusOr<uint64_t> {
              std::vector<store::DiskRead> reads(c.batch());
              for (size_t i = 0; i < reads.size(); ++i) {
                reads[i].key = KeyOf(random->Next() % count);
                const uint64_t places = arena->size() / room / reads.size();
                const uint64_t place = random->Next() % places * reads.size() + i;
                reads[i].destination = arena->writable().subspan(place * room, room);
              }
              tier->disk->ReadBatch(reads);
              for (const store::DiskRead& read : reads) CAIRN_RETURN_IF_ERROR(read.status);
              return reads.size() * room;
            });
          }};
}

Contender PlainFiles(const ReadCase& c, const std::string& directory) {
  struct Files {
    std::vector<int> descriptors;
    std::vector<uint64_t> sizes;
    ~Files() {
      for (const int fd : descriptors) ::close(fd);
    }
  };
  const auto files = std::make_shared<Files>();
  for (const auto& file : std::filesystem::directory_iterator(directory + "/segments")) {
    if (file.file_size() < kBatchBytes) continue;
    files->descriptors.push_back(::open(file.path().c_str(), O_RDONLY | O_CLOEXEC));
    files->sizes.push_back(file.file_size());
  }
  const uint64_t room = RoundUpToIo(c.entry_bytes);
  const auto buffer = std::make_shared<store::IoBuffer>(room);
  const auto random = std::make_shared<SeededRandom>(2);
  return {"plain files, pread, page cache dropped, one thread", Role::kRival, [=] {
            for (const int fd : files->descriptors) ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            return Rate([&]() -> absl::StatusOr<uint64_t> {
              const size_t i = random->Next() % files->descriptors.size();
              const uint64_t at = random->Next() % (files->sizes[i] / room) * room;
              const ssize_t n = ::pread(files->descriptors[i], buffer->bytes().data(), room,
                                        static_cast<off_t>(at));
              if (n != static_cast<ssize_t>(room)) return absl::UnavailableError("pread failed");
              return room;
            });
          }};
}

absl::StatusOr<Contender> BlobFiles(const ReadCase& c, const std::string& directory,
                                    uint64_t set_bytes) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.enable_blob_files = true;
  options.min_blob_size = 4096;
  options.use_direct_reads = true;
  options.use_direct_io_for_flush_and_compaction = true;
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, directory, &opened);
  if (!status.ok()) return absl::UnavailableError(status.ToString());
  const std::shared_ptr<rocksdb::DB> db(opened);
  const Entries entries(c.entry_bytes);
  const rocksdb::Slice value(reinterpret_cast<const char*>(entries.payload.bytes().data()),
                             c.entry_bytes);
  const uint64_t count = set_bytes / c.entry_bytes;
  rocksdb::WriteOptions unlogged;
  unlogged.disableWAL = true;
  for (uint64_t i = 0; i < count; ++i) {
    if (const rocksdb::Status put = db->Put(unlogged, std::to_string(i), value); !put.ok()) {
      return absl::UnavailableError(put.ToString());
    }
  }
  db->Flush({}).PermitUncheckedError();
  const auto random = std::make_shared<SeededRandom>(3);
  return Contender{"RocksDB blob files, direct, MultiGet", Role::kRival, [=] {
                     return Rate([&]() -> absl::StatusOr<uint64_t> {
                       std::vector<std::string> names;
                       for (size_t i = 0; i < c.depth; ++i) {
                         names.push_back(std::to_string(random->Next() % count));
                       }
                       const std::vector<rocksdb::Slice> keys(names.begin(), names.end());
                       std::vector<std::string> values;
                       for (const rocksdb::Status& s : db->MultiGet({}, keys, &values)) {
                         if (!s.ok()) return absl::UnavailableError(s.ToString());
                       }
                       return c.depth * c.entry_bytes;
                     });
                   }};
}

absl::StatusOr<Prepared> PrepareRead(const ReadCase& c, const BenchContext& context) {
  const uint64_t set_bytes = context.scratch_bytes_max * 5 / 8;
  const std::string directory = context.directory + "/tier";
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Tier> tier,
                         Tier::Open(directory, set_bytes + set_bytes / 4));
  const Entries entries(c.entry_bytes);
  const uint64_t count = set_bytes / (RoundUpToIo(c.entry_bytes) + kIoAlignment);
  CAIRN_RETURN_IF_ERROR(tier->Put(entries, 0, count));
  CAIRN_ASSIGN_OR_RETURN(store::SharedMemory memory,
                         store::SharedMemory::Create("bench", {.bytes = 256ull << 20}));
  const auto arena = std::make_shared<store::SharedMemory>(std::move(memory));

  Prepared prepared;
  CAIRN_RETURN_IF_ERROR(AddFio(
      {.direction = "read",
       .arguments = "--readonly --rw=randread --norandommap --file_service_type=random "
                    "--time_based --runtime=1 --bs=" +
                    std::to_string(RoundUpToIo(c.entry_bytes)) + " --iodepth=" +
                    std::to_string(c.depth) + " '--filename=" + SegmentFiles(directory, ":") + "'",
       .ways = {"", "--fixedbufs"}},
      prepared));
  prepared.contenders.push_back(OursRead(c, tier, arena, count));
  prepared.contenders.push_back(PlainFiles(c, directory));
  CAIRN_ASSIGN_OR_RETURN(Contender blobs,
                         BlobFiles(c, context.directory + "/blobs", context.scratch_bytes_max / 4));
  prepared.contenders.push_back(std::move(blobs));
  return prepared;
}

}  // namespace

void AddDiskBenches(std::vector<Bench>& benches) {
  for (const uint64_t bytes : {uint64_t{449'824}, uint64_t{644'024}}) {
    const std::string size = bytes < 500'000 ? "450k" : "640k";
    for (const size_t depth : {size_t{1}, size_t{8}, size_t{64}}) {
      benches.push_back({.name = "disk-read-" + size + "-" + std::to_string(depth),
                         .what = "cold reads of " + std::to_string(bytes) + " B entries, " +
                                 std::to_string(depth) + " at once" +
                                 (depth < 64 ? "" : " and more: batches as long as a fetch's"),
                         .unit = "GB/s",
                         .higher_is_better = true,
                         .ratio_bound = 0.95,
                         .figure_bound = 0,
                         .prepare = [c = ReadCase{bytes, depth}](const BenchContext& context) {
                           return PrepareRead(c, context);
                         }});
    }
  }
}

}  // namespace cairn::bench
