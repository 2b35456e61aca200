// Goal: a restore brings exactly the bytes asked for, each step's when that step is done and not
// all only at the end, and refuses what does not fit before it begins anything.
#include "store/device/gpu_restore.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "store/base/random.h"
#include "store/device/fake_gpu.h"

namespace cairn::store {
namespace {

constexpr uint64_t kEntryBytes = 4096;
constexpr uint32_t kEntries = 5;

// Entries of two layers, at odd places of a pool, and a session that wants them apart.
class GpuRestoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SeededRandom random(11);
    for (uint8_t& byte : FakeGpu::BytesOf(*pool_)) byte = static_cast<uint8_t>(random.Next());
    for (uint32_t i = 0; i < kEntries; ++i) {
      sources_.push_back(pool_->data() + (i * 3 % kEntries) * kEntryBytes);
    }
    auto restore = GpuRestore::Create(gpu_, kEntries);
    ASSERT_TRUE(restore.ok()) << restore.status();
    restore_ = *std::move(restore);
    gpu_.RunAll();
    std::fill(session().begin(), session().end(), uint8_t{0xee});
  }
  std::span<uint8_t> session() { return FakeGpu::BytesOf(*session_); }
  // Two parts of the first four entries and one of the last.
  GpuGatherStep Step(uint32_t layer) {
    uint8_t* const to = session_->data() + layer * 8192;
    return {
        {{.first = 0, .count = 4, .from = layer * 1000, .bytes = 700, .to = to, .to_stride = 704},
         {.first = 0,
          .count = 4,
          .from = layer * 1000 + 700,
          .bytes = 300,
          .to = to + 4000,
          .to_stride = 300},
         {.first = 4, .count = 1, .from = layer * 8, .bytes = 8, .to = to + 6000}}};
  }
  bool Restored(const GpuGatherStep& step) {
    for (const GpuGatherPart& part : step.parts) {
      for (uint32_t i = 0; i < part.count; ++i) {
        const uint8_t* const to = part.to + i * part.to_stride;
        if (!std::equal(to, to + part.bytes, sources_[part.first + i] + part.from)) return false;
      }
    }
    return true;
  }

  FakeGpu gpu_;
  std::unique_ptr<GpuRegion> pool_ =
      *gpu_.Allocate(kEntries * kEntryBytes, GpuSharing::kExportable);
  std::unique_ptr<GpuRegion> session_ = *gpu_.Allocate(1 << 16, GpuSharing::kPrivate);
  std::vector<const uint8_t*> sources_;
  std::unique_ptr<GpuRestore> restore_;
};

TEST_F(GpuRestoreTest, EachStepIsThereWhenItIsDone) {
  const std::vector<GpuGatherStep> steps = {Step(0), Step(1), Step(2)};
  ASSERT_TRUE(restore_->Begin(sources_, steps, GatherFrom::kDevice).ok());
  EXPECT_FALSE(*restore_->Done(0));
  while (!*restore_->Done(0)) ASSERT_TRUE(gpu_.RunOne());
  EXPECT_TRUE(Restored(steps[0]));
  EXPECT_FALSE(*restore_->Done(2)) << "the first layer is there before the last is read";
  ASSERT_TRUE(restore_->Wait().ok());
  for (const GpuGatherStep& step : steps) EXPECT_TRUE(Restored(step));
  EXPECT_EQ(session()[700], 0xee) << "between two pieces";
}

TEST_F(GpuRestoreTest, WhatFollowsOnAStreamWaitsForItsStep) {
  const std::vector<GpuGatherStep> steps = {Step(0), Step(1), Step(2)};
  ASSERT_TRUE(restore_->Begin(sources_, steps, GatherFrom::kDevice).ok());
  const auto layer = *gpu_.NewStream();
  ASSERT_TRUE(restore_->Before(*layer, 1).ok());
  ASSERT_TRUE(layer->Copy(steps[1].parts[0].to, session_->data() + 60'000, 700).ok());
  ASSERT_TRUE(layer->Wait(*layer->Mark()).ok());
  EXPECT_TRUE(std::equal(session().begin() + 60'000, session().begin() + 60'700,
                         sources_[0] + steps[1].parts[0].from));
}

TEST_F(GpuRestoreTest, RefusesWhatDoesNotFitBeforeAnythingIsBegun) {
  std::vector<GpuGatherStep> steps = {Step(0), Step(1)};
  steps[1].parts[2].count = 2;
  const absl::Status refused = restore_->Begin(sources_, steps, GatherFrom::kDevice);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("step 1"), absl::string_view::npos) << refused;
  EXPECT_EQ(gpu_.waiting(), 0u);
  sources_.push_back(sources_[0]);
  EXPECT_EQ(restore_->Begin(sources_, steps, GatherFrom::kDevice).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(restore_->Begin({}, steps, GatherFrom::kDevice).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GpuRestore::Create(gpu_, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(GpuRestoreTest, OneAfterTheOther) {
  const std::vector<GpuGatherStep> first = {Step(0)}, second = {Step(1)};
  ASSERT_TRUE(restore_->Begin(sources_, first, GatherFrom::kDevice).ok());
  EXPECT_EQ(restore_->Begin(sources_, second, GatherFrom::kDevice).code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(restore_->Wait().ok());
  std::reverse(sources_.begin(), sources_.end());
  ASSERT_TRUE(restore_->Begin(sources_, second, GatherFrom::kDevice).ok());
  ASSERT_TRUE(restore_->Wait().ok());
  EXPECT_TRUE(Restored(second[0]));
}

TEST_F(GpuRestoreTest, ALostDeviceIsSaid) {
  const std::vector<GpuGatherStep> steps = {Step(0), Step(1)};
  ASSERT_TRUE(restore_->Begin(sources_, steps, GatherFrom::kDevice).ok());
  gpu_.FailNext();
  EXPECT_EQ(restore_->Wait().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(restore_->Done(1).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace cairn::store
