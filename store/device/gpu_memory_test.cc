// Goal: the fake GPU is as strict as a real one, so that what passes over it may be believed: work
// is done in order and no sooner than told, touches nothing foreign, and a lost device stays lost.
#include "store/device/gpu_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "store/base/checksum.h"
#include "store/device/fake_gpu.h"
#include "store/device/file_system.h"

namespace cairn::store {
namespace {

struct Rig {
  FakeGpu gpu;
  std::unique_ptr<GpuRegion> region = *gpu.Allocate(8192, GpuSharing::kExportable);
  IoBuffer host{8192};
  std::unique_ptr<Gpu::Pinned> pinned = *gpu.Pin(host.bytes(), PinnedUse::kReadWrite);
  std::unique_ptr<GpuStream> stream = *gpu.NewStream();
  std::span<uint8_t> there() { return FakeGpu::BytesOf(*region); }
};

TEST(FakeGpuTest, WorkIsDoneInOrderAndNoSoonerThanTold) {
  Rig rig;
  std::iota(rig.host.bytes().begin(), rig.host.bytes().end(), uint8_t{1});
  const uint8_t before = rig.there()[0];
  ASSERT_TRUE(rig.stream->Copy(rig.host.bytes().data(), rig.region->data(), 100).ok());
  EXPECT_EQ(*rig.stream->Mark(), 1u);
  ASSERT_TRUE(rig.stream->Zero(rig.region->data(), 50).ok());
  EXPECT_EQ(*rig.stream->Mark(), 2u);
  EXPECT_EQ(rig.there()[0], before);
  EXPECT_EQ(*rig.stream->Reached(), 0u);
  ASSERT_TRUE(rig.stream->Wait(1).ok());
  EXPECT_EQ(*rig.stream->Reached(), 1u);
  EXPECT_EQ(rig.there()[99], 100);
  EXPECT_EQ(rig.there()[49], 50);
  rig.gpu.RunAll();
  EXPECT_EQ(rig.there()[49], 0);
  EXPECT_EQ(rig.there()[50], 51);
  EXPECT_EQ(*rig.stream->Reached(), 2u);
}

TEST(FakeGpuTest, AStreamWaitsForAnothersMark) {
  Rig rig;
  const auto other = *rig.gpu.NewStream();
  ASSERT_TRUE(rig.stream->Zero(rig.region->data(), 10).ok());
  const GpuMark first = *rig.stream->Mark();
  ASSERT_TRUE(other->WaitFor(*rig.stream, first).ok());
  ASSERT_TRUE(other->Copy(rig.region->data(), rig.host.bytes().data(), 10).ok());
  const GpuMark second = *other->Mark();
  std::fill(rig.host.bytes().begin(), rig.host.bytes().end(), uint8_t{9});
  ASSERT_TRUE(other->Wait(second).ok());
  EXPECT_EQ(*rig.stream->Reached(), first);
  EXPECT_EQ(rig.host.bytes()[9], 0);
}

TEST(FakeGpuTest, ChecksumsComePartAfterPart) {
  Rig rig;
  std::iota(rig.there().begin(), rig.there().end(), uint8_t{1});
  auto* const sums = reinterpret_cast<uint64_t*>(rig.host.bytes().data());
  const std::vector<const uint8_t*> sources = {rig.region->data(), rig.region->data() + 1000};
  const std::vector<GpuChecksumPart> parts = {{.first = 0, .count = 2, .from = 0, .bytes = 300},
                                              {.first = 1, .count = 1, .from = 8, .bytes = 10}};
  ASSERT_TRUE(rig.stream->Checksums(sources.data(), 2, parts, sums).ok());
  rig.gpu.RunAll();
  EXPECT_EQ(sums[0], Checksum(rig.there().first(300)));
  EXPECT_EQ(sums[1], Checksum(rig.there().subspan(1000, 300)));
  EXPECT_EQ(sums[2], Checksum(rig.there().subspan(1008, 10)));
  EXPECT_EQ(rig.stream->Checksums(sources.data(), 1, parts, sums).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(FakeGpuTest, RefusesWhatIsNotItsOwn) {
  Rig rig;
  std::vector<uint8_t> foreign(100);
  EXPECT_EQ(rig.stream->Copy(foreign.data(), rig.region->data(), 100).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(rig.stream->Zero(rig.region->data() + 8000, 193).code(),
            absl::StatusCode::kInvalidArgument);
  rig.pinned.reset();
  EXPECT_EQ(rig.stream->Copy(rig.host.bytes().data(), rig.region->data(), 1).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(rig.gpu.Allocate(2ull << 30, GpuSharing::kPrivate).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(FakeGpuTest, AnImportedRegionIsReadOnlyAndSeesWhatIsWritten) {
  Rig rig;
  auto exported = rig.region->Export();
  ASSERT_TRUE(exported.ok()) << exported.status();
  const auto imported = rig.gpu.Import(*std::move(exported));
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_EQ((*imported)->bytes(), 8192u);
  EXPECT_EQ(rig.stream->Zero((*imported)->data(), 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*imported)->Export().status().code(), absl::StatusCode::kFailedPrecondition);
  rig.there()[77] = 123;
  ASSERT_TRUE(rig.stream->Copy((*imported)->data() + 77, rig.host.bytes().data(), 1).ok());
  rig.gpu.RunAll();
  EXPECT_EQ(rig.host.bytes()[0], 123);
  EXPECT_EQ((*rig.gpu.Allocate(100, GpuSharing::kPrivate))->Export().status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(FakeGpuTest, ALostDeviceStaysLost) {
  Rig rig;
  const uint8_t before = rig.there()[0];
  ASSERT_TRUE(rig.stream->Zero(rig.region->data(), 1).ok());
  const GpuMark mark = *rig.stream->Mark();
  rig.gpu.FailNext();
  EXPECT_EQ(rig.stream->Wait(mark).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(rig.stream->Reached().status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(rig.stream->Zero(rig.region->data(), 1).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(rig.there()[0], before);
}

TEST(GatherTest, RefusesPartsThatDoNotFit) {
  uint8_t to = 0;
  const GpuGatherPart good{
      .first = 2, .count = 3, .from = 0, .bytes = 10, .to = &to, .to_stride = 10};
  const auto checked = [&](auto change) {
    GpuGatherPart part = good;
    change(part);
    return CheckGather({{GpuGatherStep{{good}}, GpuGatherStep{{good, part}}}}, 5);
  };
  EXPECT_TRUE(checked([](GpuGatherPart&) {}).ok());
  EXPECT_TRUE(checked([](GpuGatherPart& p) { p.count = 1, p.to_stride = 0; }).ok());
  const absl::Status beyond = checked([](GpuGatherPart& p) { p.first = 3; });
  EXPECT_EQ(beyond.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(beyond.message().find("step 1, part 1"), absl::string_view::npos) << beyond;
  const GpuGatherStep many{std::vector<GpuGatherPart>(kGatherPartsMax + 1, good)};
  for (const absl::Status& refused :
       {checked([](GpuGatherPart& p) { p.count = 0; }),
        checked([](GpuGatherPart& p) { p.first = UINT32_MAX; }),
        checked([](GpuGatherPart& p) { p.bytes = 0; }),
        checked([](GpuGatherPart& p) { p.bytes = 11; }),
        checked([](GpuGatherPart& p) { p.bytes = p.to_stride = kEntryBytesMax + 1; }),
        CheckGather({}, 5), CheckGather({{GpuGatherStep{}}}, 5), CheckGather({{many}}, 5),
        CheckGather({{GpuGatherStep{{good}}}}, kGatherSourcesMax + 1)}) {
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
  }
}

}  // namespace
}  // namespace cairn::store
