// Goal: what is leased again and again comes to the GPU, whole prefixes in the order in which they
// can be used; what is wanted least goes first, leaves before what they stand on, and never what a
// reader holds; and nothing that happens to the GPU costs an entry elsewhere. Over the fake GPU.
#include "cache/core/gpu_copies.h"

#include <gtest/gtest.h>

#include <thread>

#include "cache/core/core_rig.h"
#include "store/device/fake_gpu.h"

namespace cairn::cache {
namespace {

constexpr uint64_t kUnit = kIoAlignment;

// A residency without a disk, and copies that move when the test says so.
struct Rig {
  explicit Rig(uint64_t gpu_units)
      : tier(*store::GpuTier::Create(gpu, gpu_units * kUnit)),
        residency(*host, nullptr, clock, {.policy = {"lru", "lru"}, .random = &random}),
        copies({.policy = "lru", .random = &random, .background = false}, gpu, *tier, residency) {
    residency.left_both = [this](EntryRef ref) { copies.Forget(ref); };
  }

  // A chain of blocks in host memory, the first `shared` of them those of chain 0.
  std::vector<Digest> Put(size_t blocks, int number, size_t shared = 0) {
    std::vector<Digest> chain;
    for (size_t i = 0; i < blocks; ++i) {
      const std::vector<int32_t> tokens(kBlockTokens, i < shared ? 0 : number);
      const Digest parent = i == 0 ? root : chain.back();
      chain.push_back(BlockDigest(parent, static_cast<uint32_t>(i), tokens));
      PutEntry(chain.back(), {root, parent, static_cast<uint32_t>(i)}, EntryKind::kRows);
    }
    PutEntry(chain.back(),
             {root, blocks == 1 ? root : chain[blocks - 2], static_cast<uint32_t>(blocks - 1)},
             EntryKind::kCheckpoint);
    return chain;
  }
  void PutEntry(const Digest& digest, const EntryAttributes& attributes, EntryKind kind) {
    MutexLock lock(&residency.mutex);
    const EntryRef ref{residency.index.Add(digest, attributes), kind};
    if (ref->in[0]) return;
    const std::vector<uint8_t> payload = PayloadOf(ref.key());
    EntryMeta meta{.key = ref.key(), .parts = PartsOf(kind, payload), .attributes = ""};
    auto room = residency.ReserveHost(payload.size(), meta.parts.size());
    ASSERT_TRUE(room.ok()) << room.status();
    std::copy(payload.begin(), payload.end(), room->bytes().begin());
    ASSERT_TRUE(residency.PublishHost(ref, std::move(meta), *std::move(room)).ok());
  }
  GpuLease Lease(const std::vector<Digest>& chain) {
    MutexLock lock(&residency.mutex);
    return copies.Lease(chain, /*with_checkpoint=*/true);
  }
  void Release(GpuLease lease) {
    MutexLock lock(&residency.mutex);
    copies.Release(std::move(lease));
  }
  // How many entries of it a lease finds, and that their bytes are right; then all moves are made.
  size_t Use(const std::vector<Digest>& chain) {
    GpuLease lease = Lease(chain);
    const size_t found = lease.pins.size();
    for (size_t i = 0; i < found; ++i) {
      const EntryKey key = i < chain.size() ? EntryKey{chain[i], EntryKind::kRows}
                                            : EntryKey{chain.back(), EntryKind::kCheckpoint};
      const std::vector<uint8_t> payload = PayloadOf(key);
      EXPECT_EQ(lease.pins[i].payload_bytes, payload.size());
      EXPECT_TRUE(std::equal(payload.begin(), payload.end(), lease.pins[i].payload));
    }
    Release(std::move(lease));
    Settle();
    return found;
  }
  void Settle() {
    while (copies.Step()) {
    }
  }
  // Leading entries that are there: rows, then the checkpoint.
  size_t There(const std::vector<Digest>& chain) {
    const size_t rows = tier->FindAll(chain, EntryKind::kRows).size();
    const bool checkpoint = tier->Contains({chain.back(), EntryKind::kCheckpoint});
    EXPECT_TRUE(rows == chain.size() || !checkpoint) << "of no use without its rows";
    return rows + (checkpoint ? 1 : 0);
  }
  EntryRef RefOf(const Digest& digest, EntryKind kind = EntryKind::kRows)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency.mutex) {
    return {residency.index.Find(digest), kind};
  }
  uint64_t Stat(const std::string& name) {
    for (const NamedCount& count : copies.Stats()) {
      if (count.name == name) return count.value;
    }
    ADD_FAILURE() << name;
    return 0;
  }

  FakeClock clock;
  SeededRandom random{3};
  const Digest root = Sha256(std::vector<uint8_t>{1});
  store::FakeGpu gpu;
  std::unique_ptr<store::GpuTier> tier;
  std::unique_ptr<store::HostTier> host = *store::HostTier::Create(
      {.capacity_bytes = 256 * kUnit, .memory = store::ArenaMemory::kAtUse});
  Residency residency;
  GpuCopies copies;
};

TEST(GpuCopies, APrefixComesWhenItIsLeasedAgain) {
  Rig rig(64);
  const auto chain = rig.Put(5, 1);
  EXPECT_EQ(rig.Use(chain), 0u);
  EXPECT_EQ(rig.There(chain), 0u) << "once is not often";
  EXPECT_EQ(rig.Use(chain), 0u);
  EXPECT_EQ(rig.There(chain), 6u);
  EXPECT_EQ(rig.Use(chain), 6u);
  EXPECT_EQ(rig.Stat("gpu_promoted_entries"), 6u);
}

TEST(GpuCopies, WhatIsSharedComesAndTheRestStays) {
  Rig rig(64);
  const auto one = rig.Put(6, 0), other = rig.Put(6, 1, 4);
  rig.Use(one);
  rig.Use(other);
  EXPECT_EQ(rig.There(one), 4u);
  EXPECT_EQ(rig.There(other), 4u);
}

TEST(GpuCopies, TheLeastWantedGoesLeavesFirst) {
  Rig rig(12);
  const auto first = rig.Put(5, 1), second = rig.Put(5, 2);  // 7 units each
  for (int i = 0; i < 2; ++i) rig.Use(first);
  ASSERT_EQ(rig.There(first), 6u);
  for (int i = 0; i < 2; ++i) rig.Use(second);
  EXPECT_EQ(rig.There(second), 6u);
  EXPECT_EQ(rig.There(first), 5u) << "its checkpoint went, its rows did not";
  EXPECT_EQ(rig.Stat("gpu_evicted_entries"), 1u);
}

TEST(GpuCopies, APrefixThatDoesNotFitComesAsFarAsItDoes) {
  Rig rig(8);
  const auto small = rig.Put(2, 1), large = rig.Put(20, 2);
  for (int i = 0; i < 2; ++i) rig.Use(small);
  for (int i = 0; i < 2; ++i) rig.Use(large);
  EXPECT_EQ(rig.There(large), 8u);
  EXPECT_EQ(rig.There(small), 0u);
  EXPECT_EQ(rig.Use(large), 8u);
  EXPECT_EQ(rig.There(large), 8u);
  EXPECT_EQ(rig.Stat("gpu_promoted_entries"), 3u + 8u) << "it does not go round in circles";
}

TEST(GpuCopies, WhatAReaderHoldsStays) {
  Rig rig(8);
  const auto held = rig.Put(5, 1), other = rig.Put(5, 2);
  for (int i = 0; i < 2; ++i) rig.Use(held);
  GpuLease lease = rig.Lease(held);
  ASSERT_EQ(lease.pins.size(), 6u);
  for (int i = 0; i < 2; ++i) rig.Use(other);
  EXPECT_EQ(rig.There(held), 6u);
  EXPECT_EQ(rig.There(other), 1u) << "in what was free";
  rig.Release(std::move(lease));
  rig.Use(other);
  EXPECT_EQ(rig.There(other), 6u);
}

TEST(GpuCopies, AReaderOfWhatWentDoesNotBindWhatCameInItsPlace) {
  Rig rig(16);
  const auto chain = rig.Put(5, 1);
  for (int i = 0; i < 2; ++i) rig.Use(chain);
  GpuLease lease = rig.Lease(chain);
  ASSERT_EQ(lease.held.size(), 2u);
  {
    MutexLock lock(&rig.residency.mutex);
    rig.residency.DropHost(rig.RefOf(chain.back(), EntryKind::kCheckpoint));
    rig.residency.DropHost(rig.RefOf(chain.back()));
  }
  ASSERT_EQ(rig.Put(5, 1), chain);
  rig.Use(chain);
  ASSERT_EQ(rig.There(chain), 6u);
  rig.Release(std::move(lease));
  const auto other = rig.Put(14, 2);  // all 16 units
  for (int i = 0; i < 2; ++i) rig.Use(other);
  EXPECT_EQ(rig.There(other), 15u);
  EXPECT_EQ(rig.There(chain), 0u);
}

TEST(GpuCopies, WhatLeavesItsOtherPlacesLeavesTheGpu) {
  Rig rig(64);
  const auto chain = rig.Put(4, 1);
  for (int i = 0; i < 2; ++i) rig.Use(chain);
  {
    MutexLock lock(&rig.residency.mutex);
    rig.residency.DropHost(rig.RefOf(chain.back(), EntryKind::kCheckpoint));
    rig.residency.DropHost(rig.RefOf(chain.back()));
  }
  EXPECT_EQ(rig.There(chain), 3u);
  EXPECT_EQ(rig.Stat("gpu_entries"), 3u);
}

TEST(GpuCopies, WhatStandsOnAGapGoesTooAndComesBackWithIt) {
  Rig rig(64);
  const auto chain = rig.Put(4, 1);
  for (int i = 0; i < 2; ++i) rig.Use(chain);
  {
    MutexLock lock(&rig.residency.mutex);
    rig.residency.DropHost(rig.RefOf(chain[1]));  // as when it is found damaged
  }
  EXPECT_EQ(rig.Stat("gpu_entries"), 1u);
  EXPECT_EQ(rig.Use(chain), 1u);
  EXPECT_EQ(rig.Put(4, 1), chain);
  EXPECT_EQ(rig.Use(chain), 1u);
  EXPECT_EQ(rig.Use(chain), 5u);
  MutexLock lock(&rig.residency.mutex);
  for (auto digest = chain.rbegin(); digest != chain.rend(); ++digest) {
    if (*digest == chain.back()) {
      rig.residency.DropHost(rig.RefOf(*digest, EntryKind::kCheckpoint));
    }
    rig.residency.DropHost(rig.RefOf(*digest));
  }
  EXPECT_EQ(rig.tier->stats().entries, 0u);
}

TEST(GpuCopies, DamageInHostMemoryIsFoundOnTheWay) {
  Rig rig(64);
  const auto chain = rig.Put(4, 1);
  const auto pin = rig.host->Find({chain[2], EntryKind::kRows});
  const_cast<uint8_t*>(pin->payload().data())[0] ^= 1;
  for (int i = 0; i < 2; ++i) rig.Use(chain);
  EXPECT_EQ(rig.There(chain), 2u);
  EXPECT_EQ(rig.residency.counters.damaged_host_rows.value(), 1u);
  EXPECT_FALSE(rig.host->Contains({chain[2], EntryKind::kRows}));
}

TEST(GpuCopies, ALostGpuCostsNothingElse) {
  Rig rig(64);
  const auto there = rig.Put(4, 1), later = rig.Put(4, 2);
  for (int i = 0; i < 2; ++i) rig.Use(there);
  rig.Use(later);
  GpuLease lease = rig.Lease(later);
  rig.gpu.FailNext();
  rig.Settle();
  EXPECT_EQ(rig.There(later), 0u);
  EXPECT_EQ(rig.Lease(there).pins.size(), 0u) << "what is there cannot be read any more";
  EXPECT_TRUE(rig.host->Contains({later.back(), EntryKind::kCheckpoint}));
  rig.Release(std::move(lease));
}

// The whole core, with its thread.
TEST(CoreGpu, LeasesSayWhereTheCopiesLie) {
  store::FakeGpu gpu;
  const auto tier = *store::GpuTier::Create(gpu, 64 * kUnit);
  CoreRig rig({.background = true, .options = {.gpu = &gpu, .gpu_tier = tier.get()}});
  const auto chain = rig.Chain(5);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  auto exported = rig.core->AttachGpu(rig.session);
  ASSERT_TRUE(exported.ok()) << exported.status();
  EXPECT_EQ(exported->bytes, rig.core->gpu_bytes());
  for (int i = 0; i < 2; ++i) {
    const auto fetched = rig.Fetch(chain);
    ASSERT_TRUE(fetched.ok()) << fetched.status();
    EXPECT_TRUE(rig.core->Release(rig.session, fetched->lease).ok());
  }
  while (rig.Stat("gpu_entries") < 6) std::this_thread::yield();
  const auto match = rig.core->MatchAndLease(rig.session, chain);
  ASSERT_TRUE(match.ok() && match->leased.has_value()) << match.status();
  rig.ExpectTrue(*match->leased, chain);
  ASSERT_EQ(match->leased->gpu_offsets.size(), 6u);
  const auto pool = *gpu.Import(*std::move(exported));
  for (size_t i = 0; i < 6; ++i) {
    const std::span<const uint8_t> expected =
        i < 5 ? match->leased->rows[i].payload : match->leased->checkpoint->payload;
    EXPECT_TRUE(
        std::equal(expected.begin(), expected.end(), pool->data() + match->leased->gpu_offsets[i]));
  }
  EXPECT_GT(rig.Stat("gpu_pinned_bytes"), 0u);
  EXPECT_TRUE(rig.core->Release(rig.session, match->leased->lease).ok());
  EXPECT_EQ(rig.Stat("gpu_pinned_bytes"), 0u);
  // An operator's eviction leaves nothing behind.
  uint64_t kept = 0;
  ASSERT_TRUE(rig.core->Flush(absl::Seconds(10)).ok());
  EXPECT_EQ(*rig.core->Evict({}, &kept), 6u);
  EXPECT_EQ(rig.Stat("gpu_entries"), 0u);
  rig.core.reset();  // before the tier and the GPU
}

// What nobody could read there is not brought there.
TEST(CoreGpu, SessionsWithoutThePoolBringNothingThere) {
  store::FakeGpu gpu;
  const auto tier = *store::GpuTier::Create(gpu, 64 * kUnit);
  CoreRig rig({.background = true, .options = {.gpu = &gpu, .gpu_tier = tier.get()}});
  const SessionId reader = rig.Open();
  ASSERT_TRUE(rig.core->AttachGpu(reader).ok());
  const auto plain = rig.Chain(4, 1), mapped = rig.Chain(4, 2);
  for (const auto& chain : {plain, mapped}) ASSERT_TRUE(rig.PutAll(chain).ok());
  const auto use = [&](const std::vector<Digest>& chain, SessionId by) {
    const auto fetched = rig.Fetch(chain, by);
    ASSERT_TRUE(fetched.ok()) << fetched.status();
    EXPECT_TRUE(rig.core->Release(by, fetched->lease).ok());
  };
  for (int i = 0; i < 3; ++i) use(plain, rig.session);
  // Tips are looked at in the order of their leases: when the second has come the first is done.
  for (int i = 0; i < 2; ++i) use(mapped, reader);
  while (rig.Stat("gpu_entries") < 5) std::this_thread::yield();
  EXPECT_EQ(rig.Stat("gpu_entries"), 5u);
  const auto there = rig.Fetch(mapped, rig.session);
  EXPECT_TRUE(there->gpu_offsets.empty()) << "it could not read them";
  const auto list = rig.core->List({});
  for (const ListedPrefix& listed : list) {
    const bool expected = std::find(mapped.begin(), mapped.end(), listed.digest) != mapped.end();
    EXPECT_EQ(listed.rows_gpu, expected);
    EXPECT_EQ(listed.checkpoint_gpu, listed.digest == mapped.back());
  }
  rig.core.reset();
}

TEST(CoreGpu, WithoutAPoolThereIsNoneToAttach) {
  CoreRig rig;
  EXPECT_EQ(rig.core->gpu_bytes(), 0u);
  EXPECT_TRUE(absl::IsFailedPrecondition(rig.core->AttachGpu(rig.session).status()));
}

// A GPU, a core with a pool on it, and a prefix of 4 that lies there.
struct PoolRig {
  PoolRig() {
    EXPECT_TRUE(core.PutAll(chain).ok());
    EXPECT_TRUE(core.core->Flush(absl::Seconds(10)).ok());  // what Verify counts is all there
    EXPECT_TRUE(core.core->AttachGpu(core.session).ok());
    for (int i = 0; i < 2; ++i) Use();
    while (core.Stat("gpu_entries") < 5) std::this_thread::yield();
  }
  ~PoolRig() { core.core.reset(); }  // before the tier and the GPU
  size_t Use() {
    const auto fetched = core.Fetch(chain);
    EXPECT_TRUE(core.core->Release(core.session, fetched->lease).ok());
    return fetched->gpu_offsets.size();
  }
  void Flip(const EntryKey& key) {
    const store::GpuPin pin = tier->Find(key);
    ASSERT_TRUE(pin);
    const_cast<uint8_t*>(pin.extent().payload)[9] ^= 1;
  }

  store::FakeGpu gpu;
  std::unique_ptr<store::GpuTier> tier = *store::GpuTier::Create(gpu, 64 * kUnit);
  CoreRig core{{.background = true, .options = {.gpu = &gpu, .gpu_tier = tier.get()}}};
  const std::vector<Digest> chain = core.Chain(4);
};

TEST(CoreGpu, VerifyingLooksAtTheCopiesThere) {
  PoolRig rig;
  auto report = rig.core.core->Verify({}, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->damaged(), 0u);
  EXPECT_EQ(report->bytes, report->total_bytes);
  const uint64_t all_bytes = report->bytes;
  rig.Flip({rig.chain[2], EntryKind::kRows});
  rig.Flip({rig.chain[3], EntryKind::kCheckpoint});
  report = rig.core.core->Verify({}, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  // The rows' copy takes with it what stands on it; whichever is looked at first, neither is
  // served.
  EXPECT_GE(report->damaged_gpu, 1u);
  EXPECT_EQ(report->damaged_gpu, report->damaged());
  EXPECT_EQ(report->healed, report->damaged_gpu) << "host memory has good ones";
  EXPECT_EQ(report->total_bytes, all_bytes);
  EXPECT_EQ(rig.core.Stat("damaged_gpu_rows_entries"), 1u);
  EXPECT_EQ(rig.core.Stat("checksum_failures"), report->damaged_gpu);
  EXPECT_EQ(rig.core.Stat("gpu_entries"), 2u);
  EXPECT_EQ(rig.Use(), 2u) << "and from there it comes again";
  while (rig.core.Stat("gpu_entries") < 5) std::this_thread::yield();
  EXPECT_EQ(rig.core.core->Verify({}, nullptr)->damaged(), 0u);
}

TEST(CoreGpu, AGpuThatIsLostWhileItIsVerifiedIsGivenUp) {
  PoolRig rig;
  rig.gpu.FailNext();
  const auto report = rig.core.core->Verify({}, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->damaged(), 0u);
  EXPECT_GE(report->unreadable, 1u);
  EXPECT_EQ(rig.core.core->gpu_bytes(), 0u);
  EXPECT_EQ(rig.Use(), 0u);
  EXPECT_TRUE(absl::IsFailedPrecondition(rig.core.core->AttachGpu(rig.core.session).status()));
}

TEST(CoreGpu, AnUnknownPolicyIsRefused) {
  const auto host =
      *store::HostTier::Create({.capacity_bytes = kUnit, .memory = store::ArenaMemory::kAtUse});
  FakeClock clock;
  SeededRandom random(1);
  EXPECT_EQ(
      CacheCore::Create({.eviction_gpu = "best"}, *host, nullptr, clock, random).status().code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cairn::cache
