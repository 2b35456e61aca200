// core_rig.h: a whole core over real tiers, in memory, for tests: a small arena, segments on a file
// system that can forget and decay, a clock turned by hand. Payloads are a function of their key,
// so any wrong byte is seen.
//
// Threads: the test's; only `waiter` and the core are used by several.
#ifndef CAIRN_CACHE_CORE_CORE_RIG_H_
#define CAIRN_CACHE_CORE_CORE_RIG_H_

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/client/digest_chain.h"
#include "cache/core/cache_core.h"
#include "cache/core/rig_entries.h"
#include "cache/core/waiter.h"
#include "gtest/gtest.h"
#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "store/device/faulty_file_system.h"
#include "store/device/memory_file_system.h"
#include "store/index/memory_catalog.h"

namespace cairn::cache {

// Looks at the fake clock once a millisecond of real time, and counts those who wait.
class PollingWaiter final : public Waiter {
 public:
  void Wait(Mutex& mutex, CondVar& signal, int64_t) override {
    ++waits_;
    signal.WaitWithTimeout(&mutex, absl::Milliseconds(1));
  }
  // Returns when some thread has begun to wait since `before` waits.
  void Await(uint64_t before) const {
    while (waits_ == before) std::this_thread::yield();
  }
  uint64_t waits() const { return waits_; }

 private:
  std::atomic<uint64_t> waits_{0};
};

struct CoreRig {
  struct Sizes {
    uint64_t host_units = 64;
    uint64_t disk_bytes = 8 << 20;  // 0: no disk
    uint64_t segment_bytes = 256 << 10;
    bool background = false;
    CacheCore::Options options = {};
    // So that a test can say what goes next.
    std::string eviction_disk = "lru";
  };

  explicit CoreRig(const Sizes& asked) : sizes(asked) { Start(); }
  CoreRig() : CoreRig(Sizes()) {}

  void Start() {
    host = *store::HostTier::Create(
        {.capacity_bytes = sizes.host_units * kIoAlignment, .memory = store::ArenaMemory::kAtUse});
    if (sizes.disk_bytes != 0) {
      store::RecoveryReport report;
      auto opened = store::DiskTier::Open({.directory = "/data",
                                           .capacity_bytes = sizes.disk_bytes,
                                           .segment_bytes = sizes.segment_bytes},
                                          device, std::make_unique<store::MemoryCatalog>(catalog),
                                          clock, &report);
      ASSERT_TRUE(opened.ok()) << opened.status();
      disk = std::move(*opened);
    }
    CacheCore::Options options = sizes.options;
    if (options.waiter == nullptr) options.waiter = &waiter;
    options.background_writes = sizes.background;
    options.background_load = sizes.background;
    options.eviction_host = "lru";
    options.eviction_disk = sizes.eviction_disk;
    options.default_tenant_key = "secret";
    options.tenant_keys = {{"a", "secret a"}, {"b", "secret b"}};
    auto created = CacheCore::Create(options, *host, disk.get(), clock, random);
    ASSERT_TRUE(created.ok()) << created.status();
    core = std::move(*created);
    session = Open();
  }
  // A clean stop when not `crash`; the arena is lost in any case.
  void Restart(bool crash = false) {
    if (crash) {
      // What the core writes while it is taken down goes nowhere.
      const absl::Status off = absl::UnavailableError("power is off");
      device.SetPlan({.fail_at = 1, .status = off, .fail_for_ever = true});
      catalog->SetFault([off] { return off; });
    }
    core.reset();
    disk.reset();
    host.reset();
    if (crash) {
      files.Crash(random);
      catalog->Crash(random);
      device.SetPlan({});
      catalog->SetFault(nullptr);
    }
    Start();
  }

  SessionId Open(const std::string& tenant = "") {
    Registration registration;
    auto opened = core->OpenSession(RigSpec(tenant), &registration);
    EXPECT_TRUE(opened.ok()) << opened.status();
    roots[*opened] = registration.root;
    return *opened;
  }

  // The chain of a text: `stem` decides the first `shared` blocks' tokens, `leaf` the others.
  std::vector<Digest> Chain(size_t blocks, int stem = 0, size_t shared = SIZE_MAX, int leaf = 0,
                            SessionId by = 0) {
    std::vector<int32_t> tokens(blocks * kBlockTokens);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool in_stem = i / kBlockTokens < shared;
      tokens[i] = static_cast<int32_t>(i) + 1000 * (in_stem ? stem : 500 + leaf);
    }
    return DigestChain(roots.at(by == 0 ? session : by), tokens);
  }

  ReserveItem Item(std::span<const Digest> chain, size_t i, EntryKind kind, SessionId by = 0) {
    return {{chain[i], kind},
            i == 0 ? roots.at(by == 0 ? session : by) : chain[i - 1],
            static_cast<uint32_t>(i)};
  }

  // Reserves one; 0 unless it is kGo.
  uint64_t Reserve(const ReserveItem& item, SessionId by = 0) {
    auto results = core->Reserve(by == 0 ? session : by, {&item, 1}, absl::ZeroDuration());
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() && (*results)[0].state == ReserveState::kGo ? (*results)[0].reservation : 0;
  }

  absl::Status CommitOne(uint64_t reservation, const EntryKey& key, bool durable = false,
                         SessionId by = 0) {
    const std::vector<uint8_t> payload = PayloadOf(key);
    const CoreCommitItem item{reservation, payload, PartsOf(key.kind, payload)};
    auto statuses = core->Commit(by == 0 ? session : by, {&item, 1}, durable);
    return statuses.ok() ? (*statuses)[0] : statuses.status();
  }

  // Reserves and commits one entry.
  absl::Status Put(std::span<const Digest> chain, size_t i, EntryKind kind, bool durable = false,
                   SessionId by = 0) {
    const ReserveItem item = Item(chain, i, kind, by);
    const uint64_t reservation = Reserve(item, by);
    if (reservation == 0) return absl::AlreadyExistsError("not to be made");
    return CommitOne(reservation, item.key, durable, by);
  }
  // All rows, and the checkpoint at the end.
  absl::Status PutAll(std::span<const Digest> chain, bool durable = false, SessionId by = 0) {
    for (size_t i = 0; i < chain.size(); ++i) {
      const absl::Status status = Put(chain, i, EntryKind::kRows, durable, by);
      if (!status.ok() && !absl::IsAlreadyExists(status)) return status;
    }
    return Put(chain, chain.size() - 1, EntryKind::kCheckpoint, durable, by);
  }

  uint32_t Rows(std::span<const Digest> chain, SessionId by = 0) {
    return core->Match(by == 0 ? session : by, chain)->rows_blocks;
  }

  static void ExpectTrue(const LeasedEntry& entry) {
    const std::vector<uint8_t> expected = PayloadOf(entry.key);
    ASSERT_TRUE(
        std::equal(entry.payload.begin(), entry.payload.end(), expected.begin(), expected.end()));
    const std::vector<EntryPart> parts = PartsOf(entry.key.kind, expected);
    ASSERT_EQ(entry.part_xxh3.size(), parts.size());
    for (size_t i = 0; i < parts.size(); ++i) ASSERT_EQ(entry.part_xxh3[i], parts[i].xxh3);
    // Where readers that are told (offset, sizes) look for it.
    const auto* table = reinterpret_cast<const uint8_t*>(entry.part_xxh3.data());
    ASSERT_EQ(table, entry.payload.data() + PartTableOffset(entry.payload.size()));
    ASSERT_EQ(entry.table_xxh3, Checksum({table, entry.part_xxh3.size_bytes()}));
  }
  // Of a whole prefix: the bytes and the names.
  static void ExpectTrue(const LeasedPrefix& prefix, std::span<const Digest> chain) {
    ASSERT_EQ(prefix.rows.size(), chain.size());
    for (size_t i = 0; i < chain.size(); ++i) {
      EXPECT_EQ(prefix.rows[i].key, (EntryKey{chain[i], EntryKind::kRows}));
      ExpectTrue(prefix.rows[i]);
    }
    ASSERT_TRUE(prefix.checkpoint.has_value());
    EXPECT_EQ(prefix.checkpoint->key, (EntryKey{chain.back(), EntryKind::kCheckpoint}));
    ExpectTrue(*prefix.checkpoint);
  }
  // Fetches, checks every byte, and leaves the lease to the caller.
  absl::StatusOr<LeasedPrefix> Fetch(std::span<const Digest> chain, SessionId by = 0) {
    auto prefix = core->Fetch(by == 0 ? session : by, {.chain = chain});
    if (!prefix.ok()) return prefix;
    EXPECT_LE(prefix->rows.size(), chain.size());
    for (size_t i = 0; i < prefix->rows.size(); ++i) {
      EXPECT_EQ(prefix->rows[i].key, (EntryKey{chain[i], EntryKind::kRows}));
      ExpectTrue(prefix->rows[i]);
    }
    if (prefix->checkpoint.has_value()) {
      EXPECT_EQ(prefix->rows.size(), chain.size());
      EXPECT_EQ(prefix->checkpoint->key, (EntryKey{chain.back(), EntryKind::kCheckpoint}));
      ExpectTrue(*prefix->checkpoint);
    }
    return prefix;
  }

  uint64_t Stat(const std::string& name) {
    for (const NamedCount& count : core->Stats()) {
      if (count.name == name) return count.value;
    }
    ADD_FAILURE() << "no figure " << name;
    return 0;
  }

  // All on disk, nothing in host memory.
  void DropFromHost() {
    ASSERT_TRUE(core->Flush(absl::Seconds(10)).ok());
    Restart();
  }

  Sizes sizes;
  FakeClock clock;
  SeededRandom random{7};
  PollingWaiter waiter;
  store::MemoryFileSystem files;
  store::FaultyFileSystem device{files};
  std::shared_ptr<store::MemoryCatalogDisk> catalog = std::make_shared<store::MemoryCatalogDisk>();
  std::unique_ptr<store::HostTier> host;
  std::unique_ptr<store::DiskTier> disk;
  std::unique_ptr<CacheCore> core;
  SessionId session = 0;
  std::map<SessionId, Digest> roots;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_CORE_RIG_H_
