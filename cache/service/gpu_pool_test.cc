// Goal: an engine on the daemon's host maps the pool in GPU memory and is told where in it the
// bytes of a hit lie; whatever is wrong with the pool costs the pool, and a lie the daemon its
// client. Over the fake GPU, whose memory other processes could map too.
#include <gtest/gtest.h>

#include <cstring>

#include "cache/service/service_rig.h"
#include "store/device/fake_gpu.h"
#include "store/device/gpu_part_check.h"

namespace cairn::cache {
namespace {

constexpr uint64_t kPoolBytes = 64 * kIoAlignment;

struct GpuServiceRig {
  ~GpuServiceRig() {
    rig.server.reset();
    rig.core.core.reset();  // before the tier
  }
  std::unique_ptr<CacheApi> Connect(const std::string& target, store::Gpu* on) const {
    RemoteCacheOptions options = PatientOptions();
    options.gpu = on;
    return rig.Connect(target, options);
  }
  // A hit that comes leased with the match.
  static std::shared_ptr<FetchedPrefix> Hit(CacheApi& cache, std::span<const Digest> chain) {
    const auto match = cache.Match(chain, {.lease_host = true});
    EXPECT_TRUE(match.ok()) << match.status();
    return match.ok() ? match->leased : nullptr;
  }
  // Hits until all of it lies in the pool.
  void BringThere(CacheApi& cache, std::span<const Digest> chain) {
    for (int i = 0; i < 2; ++i) ASSERT_NE(Hit(cache, chain), nullptr);
    ASSERT_TRUE(Eventually([&] { return rig.core.Stat("gpu_entries") == chain.size() + 1; }));
  }

  store::FakeGpu gpu;  // the daemon's
  std::unique_ptr<store::GpuTier> tier = *store::GpuTier::Create(gpu, kPoolBytes);
  ServiceRig rig{{.host_units = 256,
                  .disk_bytes = 0,
                  .background = true,
                  .options = {.gpu = &gpu, .gpu_tier = tier.get()}}};
};

// The same bytes, by the GPU's own word.
void ExpectOnGpu(store::Gpu& gpu, const EntryView& view) {
  ASSERT_NE(view.gpu, nullptr);
  EXPECT_EQ(std::memcmp(view.gpu, view.payload.data(), view.payload.size()), 0);
  const auto check = store::GpuPartCheck::Create(gpu, 1);
  const auto stream = gpu.NewStream();
  ASSERT_TRUE(check.ok() && stream.ok());
  ASSERT_TRUE((*check)->Begin(**stream, {{view.gpu, *view.Parts(), view.table_xxh3}}).ok());
  ASSERT_TRUE((*stream)->Wait(*(*stream)->Mark()).ok());
  EXPECT_TRUE((*check)->Verdict(0).ok());
}

TEST(GpuPool, AHitSaysWhereItsBytesLieOnTheGpu) {
  GpuServiceRig rig;
  store::FakeGpu engines;
  const auto cache = rig.Connect(rig.rig.unix_target(), &engines);
  EXPECT_TRUE(cache->registration().gpu_mapped);
  const auto chain = ChainOf(*cache, 3);
  PutAll(*cache, chain);
  rig.BringThere(*cache, chain);
  {
    const auto leased = GpuServiceRig::Hit(*cache, chain);
    ASSERT_NE(leased, nullptr);
    ExpectPrefix(*leased, chain);
    for (const EntryView& row : leased->rows) ExpectOnGpu(engines, row);
    ExpectOnGpu(engines, *leased->checkpoint);
    EXPECT_GT(rig.rig.core.Stat("gpu_pinned_bytes"), 0u);
  }
  EXPECT_TRUE(Eventually([&] { return rig.rig.core.Stat("gpu_pinned_bytes") == 0; }));
  // By a fetch too.
  const auto fetched = cache->Fetch({.chain = chain});
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  for (const EntryView& row : (*fetched)->rows) ExpectOnGpu(engines, row);
}

TEST(GpuPool, ThoseWhoDoNotMapItAreNotTold) {
  GpuServiceRig rig;
  store::FakeGpu engines;
  const auto mapping = rig.Connect(rig.rig.unix_target(), &engines);
  const auto chain = ChainOf(*mapping, 2);
  PutAll(*mapping, chain);
  rig.BringThere(*mapping, chain);
  const auto plain = rig.Connect(rig.rig.unix_target(), nullptr);
  EXPECT_FALSE(plain->registration().gpu_mapped);
  const auto hit = GpuServiceRig::Hit(*plain, chain);
  ASSERT_NE(hit, nullptr);
  for (const EntryView& row : hit->rows) EXPECT_EQ(row.gpu, nullptr);
  // On another host there is nothing to map.
  const auto remote = rig.Connect(rig.rig.tcp_target(), &engines);
  EXPECT_FALSE(remote->registration().gpu_mapped);
  const auto streamed = remote->Fetch({.chain = chain});
  ASSERT_TRUE(streamed.ok()) << streamed.status();
  EXPECT_EQ((*streamed)->rows[0].gpu, nullptr);
}

TEST(GpuPool, TheArenaIsPinnedForTheGpuWhereThatIsAskedFor) {
  GpuServiceRig rig;
  store::FakeGpu engines;
  RemoteCacheOptions options = PatientOptions();
  options.gpu = &engines;
  options.pin = true;
  const auto cache = rig.rig.Connect(rig.rig.unix_target(), options);
  const auto pinned = [&] {
    const auto counts = cache->Stats();
    EXPECT_TRUE(counts.ok()) << counts.status();
    for (const NamedCount& count : *counts) {
      if (count.name == "client_pinned_bytes") return count.value;
    }
    return uint64_t{0};
  };
  ASSERT_TRUE(Eventually([&] { return pinned() == 256 * kIoAlignment; })) << "all of it";
  const auto chain = ChainOf(*cache, 3);
  PutAll(*cache, chain);
  const auto leased = GpuServiceRig::Hit(*cache, chain);
  ASSERT_NE(leased, nullptr);
  const auto region =
      *engines.Allocate(leased->rows[0].payload.size(), store::GpuSharing::kPrivate);
  const auto stream = *engines.NewStream();
  for (const EntryView& row : leased->rows) {
    EXPECT_TRUE(row.pinned);
    EXPECT_TRUE(stream->Copy(row.payload.data(), region->data(), row.payload.size()).ok());
  }
  // Without asking there is none.
  const auto plain = rig.Connect(rig.rig.unix_target(), &engines);
  const auto hit = GpuServiceRig::Hit(*plain, chain);
  ASSERT_NE(hit, nullptr);
  EXPECT_FALSE(hit->rows[0].pinned);
}

TEST(GpuPool, AnEngineThatVanishesLetsGoOfIt) {
  GpuServiceRig rig;
  store::FakeGpu engines;
  auto cache = rig.Connect(rig.rig.unix_target(), &engines);
  const auto chain = ChainOf(*cache, 2);
  PutAll(*cache, chain);
  rig.BringThere(*cache, chain);
  const auto held = GpuServiceRig::Hit(*cache, chain);
  ASSERT_NE(held, nullptr);
  cache.reset();
  EXPECT_TRUE(Eventually([&] { return rig.rig.core.Stat("gpu_pinned_bytes") == 0; }));
  EXPECT_EQ(rig.rig.core.Stat("gpu_entries"), 3u);
}

}  // namespace
}  // namespace cairn::cache
