// nth_io: the n-th system call fails, for every n.
//
// Goal: whatever call of an operation fails, and however, the operation says so by the status that
// its header names; what was stored before is still there and reads as it was; a put is whole or
// absent; nothing is leaked; and once the fault is gone the same operation succeeds.
//
// Method: real files through pread and pwrite (failing_calls.h); for each operation of the disk
// tier and of the core, each fault, once and for ever: n = 1, 2, ... until the operation gets
// through without having been struck. A case is one operation with one fault.
//
// Fault contract: EIO from any call; ENOSPC from those that take room; EINTR where the kernel gives
// it; EAGAIN and short transfers. The catalog is in memory; its writes fail as the files' do.
#include <spdlog/spdlog.h>

#include <filesystem>

#include "cache/core/cache_core.h"
#include "store/device/errno_status.h"
#include "store/device/uring_file_system.h"
#include "store/tier/host_tier.h"
#include "store/tier/tier_test_util.h"
#include "tests/faults/campaign.h"
#include "tests/faults/failing_calls.h"
#include "tests/sim/texts.h"

namespace cairn::faults {
namespace {

using store::DiskTier;
using store::MakeEntry;
using store::TestEntry;

constexpr uint64_t kBefore = 12;  // entries stored before; those divisible by 4 stay for certain
constexpr uint64_t kNew = 100;
constexpr uint64_t kCallsMax = 5000;

// A store on real files, in a folder of its own.
class Store {
 public:
  Store() {
    char name[] = "/tmp/cairn-nth-io-XXXXXX";
    Expect(::mkdtemp(name) != nullptr, "no temporary folder");
    folder_ = name;
    catalog_->SetFault([] {
      const int error = StrikeBeside();
      return error == 0 ? absl::OkStatus() : store::ErrnoStatus(error, "write", "the catalog");
    });
  }
  ~Store() {
    tier_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  absl::Status Open() {
    tier_.reset();
    store::RecoveryReport report;
    CAIRN_ASSIGN_OR_RETURN(
        tier_,
        DiskTier::Open({.directory = folder_ + "/data",
                        .capacity_bytes = 1 << 20,
                        .segment_bytes = 64 << 10,
                        .random = &random_},
                       files_, std::make_unique<store::MemoryCatalog>(catalog_), clock_, &report));
    return tier_->Survey(nullptr);
  }
  void MustOpen() {
    const absl::Status opened = Open();
    Expect(opened.ok(), "open answers " + opened.ToString());
  }
  absl::Status Put(uint64_t first, uint64_t count) {
    std::vector<TestEntry> entries;
    std::vector<store::DiskPut> puts;
    for (uint64_t i = 0; i < count; ++i) entries.push_back(EntryOf(first + i));
    for (const TestEntry& entry : entries) puts.push_back(entry.put());
    return tier_->Put(puts);
  }
  absl::Status Erase(uint64_t first, uint64_t count) {
    std::vector<EntryKey> keys;
    for (uint64_t i = 0; i < count; ++i) keys.push_back(store::TestKey(first + i));
    return tier_->Erase(keys);
  }
  absl::Status Read(uint64_t number) {
    const TestEntry expected = EntryOf(number);
    store::IoBuffer buffer(expected.meta.payload_bytes());
    store::DiskRead read{
        .key = expected.meta.key, .destination = buffer.bytes(), .status = {}, .meta = {}};
    tier_->ReadBatch({&read, 1}, store::RecordCheck::kWhole);
    if (!read.status.ok()) return read.status;
    const std::span<const uint8_t> bytes = expected.payload.bytes().first(8000);
    Expect(std::equal(bytes.begin(), bytes.end(), buffer.bytes().begin()), "P1: wrong bytes");
    return absl::OkStatus();
  }
  void ExpectThere(uint64_t number) {
    const absl::Status status = Read(number);
    Expect(status.ok(), absl::StrCat("entry ", number, " is lost: ", status.ToString()));
  }
  // What the tier counts is what lies there, unless a removal failed.
  void ExpectNothingLeaked() {
    uint64_t files = 0, bytes = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder_ + "/data/segments")) {
      ++files;
      bytes += file.file_size();
    }
    const store::DiskTierStats stats = tier_->stats();
    Expect(stats.used_bytes == bytes && stats.segments == files,
           absl::StrCat("the tier counts ", stats.segments, " segments of ", stats.used_bytes,
                        " bytes, there are ", files, " of ", bytes));
    Expect(stats.checksum_failures == 0, "a failed call was taken for damage");
  }

  static TestEntry EntryOf(uint64_t number) { return MakeEntry(number, {5000, 3000}); }
  DiskTier& tier() { return *tier_; }
  FakeClock& clock() { return clock_; }
  Random& random() { return random_; }
  store::MemoryCatalogDisk& catalog() { return *catalog_; }

 private:
  std::string folder_;
  store::UringFileSystem files_{{.use_uring = false, .use_direct = false}};
  std::shared_ptr<store::MemoryCatalogDisk> catalog_ = std::make_shared<store::MemoryCatalogDisk>();
  FakeClock clock_;
  SeededRandom random_{7};
  std::unique_ptr<DiskTier> tier_;
};

// One operation, from the state before it to what must hold after it.
class Scene {
 public:
  virtual ~Scene() = default;
  virtual absl::Status Run() = 0;
  // `status` is that of Run, the fault is gone.
  virtual void Check(const absl::Status& status) = 0;
};

// ---- the disk tier ----

class TierScene : public Scene {
 public:
  enum class What : uint8_t { kOpenNew, kOpen, kRebuild, kPut, kPutMany, kErase, kRead, kReclaim };

  explicit TierScene(What what) : what_(what) {
    if (what == What::kOpenNew) return;
    store_.MustOpen();
    for (uint64_t number = 0; number < kBefore; number += 2) {
      Expect(store_.Put(number, 2).ok(), "put fails without a fault");
    }
    if (what == What::kReclaim) {
      for (uint64_t number = 0; number < kBefore; ++number) {
        if (number % 4 != 0) Expect(store_.Erase(number, 1).ok(), "erase fails without a fault");
      }
    }
    if (what == What::kRebuild) store_.catalog().Delete();
  }

  absl::Status Run() override {
    switch (what_) {
      case What::kOpenNew:
      case What::kOpen:
      case What::kRebuild:
        return store_.Open();
      case What::kPut:
        return store_.Put(kNew, 1);
      case What::kPutMany:
        return store_.Put(kNew, 5);  // more than the file that is written on has room for
      case What::kErase:
        return store_.Erase(1, 3);
      case What::kRead:
        return store_.Read(4);
      case What::kReclaim:
        return store_.tier().Reclaim(900'000);
    }
    return absl::OkStatus();
  }

  void Check(const absl::Status& status) override {
    const bool opens = what_ <= What::kRebuild;
    if (!opens) CheckStored(status);
    const absl::Status again = Run();
    const bool refused = what_ == What::kReclaim && absl::IsResourceExhausted(again);
    Expect(again.ok() || refused, "without the fault it answers " + again.ToString());
    if (what_ != What::kOpenNew) CheckStored(again);
    store_.MustOpen();
    if (what_ != What::kOpenNew) CheckStored(again);
    store_.ExpectNothingLeaked();
  }

 private:
  void CheckStored(const absl::Status& status) {
    for (uint64_t number = 0; number < kBefore; number += 4) store_.ExpectThere(number);
    if (what_ != What::kPut && what_ != What::kPutMany) return;
    const uint64_t count = what_ == What::kPut ? 1 : 5;
    uint64_t there = 0;
    for (uint64_t i = 0; i < count; ++i) {
      const absl::Status read = store_.Read(kNew + i);
      there += read.ok() ? 1 : 0;
      Expect(read.ok() || absl::IsNotFound(read), "a put left a part: " + read.ToString());
    }
    Expect(there == (status.ok() ? count : 0),
           absl::StrCat("of a put of ", count, " that answers ", status.ToString(), ", ", there,
                        " are there"));
  }

  const What what_;
  Store store_;
};

// ---- the core ----

class CoreScene : public Scene {
 public:
  enum class What : uint8_t { kStart, kCommit, kFlush, kFetch, kVerify, kEvict };

  explicit CoreScene(What what) : what_(what) {
    store_.MustOpen();
    host_ = *store::HostTier::Create(
        {.capacity_bytes = 64 * kIoAlignment, .memory = store::ArenaMemory::kAtUse});
    MustStart();
    MustPut(0, kBlocksBefore, /*durable=*/true);
    // In host memory there is nothing from before.
    core_.reset();
    host_ = *store::HostTier::Create(
        {.capacity_bytes = 64 * kIoAlignment, .memory = store::ArenaMemory::kAtUse});
    if (what == What::kStart) return;
    MustStart();
    if (what == What::kFlush) MustPut(kBlocksBefore, 1, /*durable=*/false);
  }

  absl::Status Run() override {
    switch (what_) {
      case What::kStart:
        return Start();
      case What::kCommit:
        return Put(kBlocksBefore, 1, /*durable=*/true);
      case What::kFlush:
        return core_->Flush(absl::Seconds(10));
      case What::kFetch:
        return Fetch(kBlocksBefore);
      case What::kVerify: {
        const auto report = core_->Verify({}, nullptr);
        Expect(!report.ok() || report->damaged() == 0, "a failed call was taken for damage");
        return report.status();
      }
      case What::kEvict: {
        uint64_t kept = 0;
        return core_->Evict({.prefix = Chain()[kBlocksBefore - 1]}, &kept).status();
      }
    }
    return absl::OkStatus();
  }

  void Check(const absl::Status& status) override {
    if (core_ == nullptr) MustStart();
    const size_t kept = what_ == What::kEvict ? kBlocksBefore - 1 : kBlocksBefore;
    Expect(Fetch(kept).ok(), "what was stored cannot be fetched any more");
    if (what_ == What::kCommit && !status.ok()) {
      Expect(absl::IsResourceExhausted(status), "a durable commit answers " + status.ToString());
      Expect(core_->Flush(absl::Seconds(10)).ok(), "what was kept in host memory cannot be saved");
    } else if (what_ != What::kStart && what_ != What::kEvict) {
      const absl::Status again = what_ == What::kCommit ? absl::OkStatus() : Run();
      Expect(again.ok(), "without the fault it answers " + again.ToString());
    }
    core_->CloseSession(session_);
    for (const char* name :
         {"open_leases", "open_reservations", "host_pinned_bytes", "disk_queued_entries"}) {
      Expect(Stat(name) == 0, absl::StrCat(name, " is ", Stat(name), " in the end"));
    }
    core_.reset();
    store_.MustOpen();
    MustStart();
    Expect(Fetch(kept).ok(), "what was stored is gone after a start");
    if (what_ == What::kCommit || what_ == What::kFlush) {
      Expect(Fetch(kBlocksBefore + 1).ok(), "what was saved is gone after a start");
    }
    store_.ExpectNothingLeaked();
  }

 private:
  static constexpr size_t kBlocksBefore = 4;

  const sim::Text& TheText() const { return texts_.all().front(); }
  const std::vector<Digest>& Chain() const { return TheText().chain; }

  absl::Status Start() {
    cache::CacheCore::Options options;
    options.default_tenant_key = sim::kSecrets[0];
    options.background_writes = options.background_load = false;
    CAIRN_ASSIGN_OR_RETURN(core_, cache::CacheCore::Create(options, *host_, &store_.tier(),
                                                           store_.clock(), store_.random()));
    cache::Registration registration;
    CAIRN_ASSIGN_OR_RETURN(session_, core_->OpenSession(cache::RigSpec(), &registration));
    return absl::OkStatus();
  }
  void MustStart() {
    const absl::Status started = Start();
    Expect(started.ok(), "the core answers " + started.ToString());
  }

  void MustPut(size_t first, size_t count, bool durable) {
    const absl::Status put = Put(first, count, durable);
    Expect(put.ok(), "a commit without a fault answers " + put.ToString());
  }
  absl::Status Put(size_t first, size_t count, bool durable) {
    std::vector<cache::ReserveItem> items;
    std::vector<std::vector<uint8_t>> payloads;
    for (size_t i = first; i < first + count; ++i) {
      items.push_back(texts_.Item(TheText(), i, EntryKind::kRows));
      payloads.push_back(cache::PayloadOf(items.back().key));
    }
    const auto reserved = core_->Reserve(session_, items, absl::ZeroDuration());
    CAIRN_RETURN_IF_ERROR(reserved.status());
    std::vector<cache::CoreCommitItem> commits;
    for (size_t i = 0; i < items.size(); ++i) {
      commits.push_back(
          {(*reserved)[i].reservation, payloads[i], cache::PartsOf(EntryKind::kRows, payloads[i])});
    }
    const auto statuses = core_->Commit(session_, commits, durable);
    CAIRN_RETURN_IF_ERROR(statuses.status());
    absl::Status all;
    for (const absl::Status& status : *statuses) all.Update(status);
    return all;
  }

  // All of it, or an error: a prefix that is cut short is one.
  absl::Status Fetch(size_t blocks) {
    const auto chain = std::span(Chain()).first(blocks);
    const auto prefix = core_->Fetch(session_, {.chain = chain, .checkpoint = false});
    CAIRN_RETURN_IF_ERROR(prefix.status());
    for (const cache::LeasedEntry& entry : prefix->rows) {
      const std::vector<uint8_t> expected = cache::PayloadOf(entry.key);
      Expect(std::equal(expected.begin(), expected.end(), entry.payload.begin()),
             "P1: wrong bytes");
    }
    CAIRN_RETURN_IF_ERROR(core_->Release(session_, prefix->lease));
    if (prefix->rows.size() == blocks) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(prefix->rows.size(), " of ", blocks, " blocks"));
  }

  uint64_t Stat(const std::string& name) {
    for (const cache::NamedCount& count : core_->Stats()) {
      if (count.name == name) return count.value;
    }
    Fail("no figure " + name);
  }

  const What what_;
  const sim::Texts texts_;
  Store store_;
  std::unique_ptr<store::HostTier> host_;
  std::unique_ptr<cache::CacheCore> core_;
  cache::SessionId session_ = 0;
};

struct Operation {
  const char* name;
  std::function<std::unique_ptr<Scene>()> make;
};

const std::vector<Operation>& Operations() {
  using Tier = TierScene::What;
  using Core = CoreScene::What;
  const auto tier = [](Tier what) { return [what] { return std::make_unique<TierScene>(what); }; };
  const auto core = [](Core what) { return [what] { return std::make_unique<CoreScene>(what); }; };
  static const std::vector<Operation> operations = {{"open a new store", tier(Tier::kOpenNew)},
                                                    {"open a store", tier(Tier::kOpen)},
                                                    {"rebuild a catalog", tier(Tier::kRebuild)},
                                                    {"put", tier(Tier::kPut)},
                                                    {"put many", tier(Tier::kPutMany)},
                                                    {"erase", tier(Tier::kErase)},
                                                    {"read", tier(Tier::kRead)},
                                                    {"reclaim", tier(Tier::kReclaim)},
                                                    {"start the core", core(Core::kStart)},
                                                    {"commit durably", core(Core::kCommit)},
                                                    {"flush", core(Core::kFlush)},
                                                    {"fetch", core(Core::kFetch)},
                                                    {"verify", core(Core::kVerify)},
                                                    {"evict", core(Core::kEvict)}};
  return operations;
}

void OneCase(uint64_t number, bool verbose, Counts& counts) {
  constexpr uint64_t kFaults = std::size(kCallFaults);
  const uint64_t at = number - 1;
  const bool for_ever = at % 2 == 1;
  const CallFault fault = kCallFaults[at / 2 % kFaults];
  const Operation& operation = Operations()[at / 2 / kFaults];
  for (uint64_t n = 1; n < kCallsMax; ++n) {
    const std::unique_ptr<Scene> scene = operation.make();
    Arm(fault, n, for_ever);
    const absl::Status status = scene->Run();
    const bool struck = Disarm();
    if (verbose) {
      std::fprintf(stderr, "%s, %s%s at call %lu: %s\n", operation.name, NameOf(fault),
                   for_ever ? " for ever" : "", n, status.ToString().c_str());
    }
    const bool documented =
        status.ok() || absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
    Expect(documented, absl::StrCat(operation.name, ", ", NameOf(fault), " at call ", n,
                                    ": answers ", status.ToString()));
    scene->Check(status);
    if (!struck) return;
    ++counts["calls_failed"];
    ++counts[status.ok() ? "survived" : "refused"];
  }
  Fail(absl::StrCat(operation.name, " never gets through"));
}

}  // namespace
}  // namespace cairn::faults

int main(int argc, char** argv) {
  using namespace cairn::faults;  // NOLINT(google-build-using-namespace)
  spdlog::set_level(spdlog::level::off);
  Campaign campaign("nth_io", Operations().size() * std::size(kCallFaults) * 2, /*exact=*/true);
  return campaign.Run(argc, argv, [&](uint64_t number, Counts& counts) {
    OneCase(number, campaign.verbose(), counts);
  });
}
