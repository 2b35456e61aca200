// Goal: memory is pinned as far as is said and no further, nobody waits for it, and it is over when
// its owner wants. Method: the fake GPU, which knows what is pinned: a copy from elsewhere is
// refused.
#include "store/device/background_pin.h"

#include <gtest/gtest.h>

#include <semaphore>

#include "store/device/fake_gpu.h"

namespace cairn::store {
namespace {

constexpr uint64_t kPiece = 4096;
constexpr absl::Duration kPatience = absl::Seconds(60);

// Pins only so often; a further one is refused, or waits.
class LimitedGpu final : public Gpu {
 public:
  explicit LimitedGpu(int pins, bool then_wait = false) : left_(pins), then_wait_(then_wait) {}
  absl::StatusOr<std::unique_ptr<Pinned>> Pin(std::span<const uint8_t> memory,
                                              PinnedUse use) override {
    if (left_-- == 0) {
      if (!then_wait_) return absl::ResourceExhaustedError("no more");
      asked.release();
      go_on.acquire();
    }
    return fake.Pin(memory, use);
  }
  absl::StatusOr<std::unique_ptr<GpuRegion>> Allocate(uint64_t bytes, GpuSharing sharing) override {
    return fake.Allocate(bytes, sharing);
  }
  absl::StatusOr<std::unique_ptr<GpuRegion>> Import(GpuExport exported) override {
    return fake.Import(std::move(exported));
  }
  absl::StatusOr<std::unique_ptr<GpuStream>> NewStream() override { return fake.NewStream(); }

  FakeGpu fake;
  std::binary_semaphore asked{0}, go_on{0};

 private:
  int left_;
  const bool then_wait_;
};

class BackgroundPinTest : public testing::Test {
 protected:
  // Whether the GPU may read so many bytes from there.
  static bool CanRead(Gpu& gpu, std::span<const uint8_t> bytes) {
    const auto region = *gpu.Allocate(bytes.size(), GpuSharing::kPrivate);
    const auto stream = *gpu.NewStream();
    return stream->Copy(bytes.data(), region->data(), bytes.size()).ok();
  }

  const std::vector<uint8_t> memory_ = std::vector<uint8_t>(5 * kPiece / 2, 7);
  const std::span<const uint8_t> all_ = memory_;
};

TEST_F(BackgroundPinTest, AllOfItInPieces) {
  FakeGpu gpu;
  {
    BackgroundPin pin(gpu, all_, PinnedUse::kReadOnly, kPiece);
    ASSERT_TRUE(pin.WaitFor(kPatience).ok());
    EXPECT_EQ(pin.pinned_bytes(), all_.size());
    EXPECT_TRUE(pin.Holds(all_.data(), all_.size()));
    EXPECT_FALSE(pin.Holds(all_.data() + 1, all_.size()));
    EXPECT_FALSE(pin.Holds(all_.data() - 1, 1));
    EXPECT_FALSE(pin.Holds(all_.data() + all_.size(), 1));
    EXPECT_TRUE(CanRead(gpu, all_)) << "across all pieces";
  }
  EXPECT_FALSE(CanRead(gpu, all_.last(10))) << "pinned no longer than it is there";
}

TEST_F(BackgroundPinTest, ARefusedPieceLeavesThoseBefore) {
  LimitedGpu gpu(2);
  BackgroundPin pin(gpu, all_, PinnedUse::kReadOnly, kPiece);
  EXPECT_TRUE(absl::IsResourceExhausted(pin.WaitFor(kPatience)));
  EXPECT_EQ(pin.pinned_bytes(), 2 * kPiece);
  EXPECT_TRUE(pin.Holds(all_.data() + kPiece, kPiece));
  EXPECT_FALSE(pin.Holds(all_.data() + 2 * kPiece, 1));
  EXPECT_TRUE(CanRead(gpu, all_.subspan(kPiece, kPiece)));
  EXPECT_FALSE(CanRead(gpu, all_.last(10)));
}

TEST_F(BackgroundPinTest, WhatIsPinnedIsUsedMeanwhileAndTheEndComesBehindThePieceAtHand) {
  LimitedGpu gpu(1, /*then_wait=*/true);
  {
    BackgroundPin pin(gpu, all_, PinnedUse::kReadOnly, kPiece);
    gpu.asked.acquire();
    EXPECT_TRUE(pin.Holds(all_.data(), kPiece));
    EXPECT_FALSE(pin.Holds(all_.data() + kPiece, 1));
    EXPECT_TRUE(absl::IsDeadlineExceeded(pin.WaitFor(absl::ZeroDuration())));
    gpu.go_on.release();
  }  // a third piece would wait for ever, or be pinned
  EXPECT_FALSE(CanRead(gpu, all_.first(10)));
}

}  // namespace
}  // namespace cairn::store
