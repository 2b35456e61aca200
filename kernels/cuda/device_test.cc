#include "kernels/cuda/device.h"

#include <numeric>

#include "kernels/cuda/pinned_buffer.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

TEST(DevicePresentTest, SaysWhyThereIsNone) {
  const absl::Status present = DevicePresent();
  if (present.ok()) GTEST_SKIP() << "there is a GPU";
  EXPECT_EQ(present.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(present.message().empty());
  EXPECT_EQ(DeviceBuffer<int>::Create(1).status(), present);
  EXPECT_EQ(PinnedBuffer::Create(1).status(), present);
}

class DeviceMemoryTest : public DeviceTest {};

TEST_F(DeviceMemoryTest, HoldsWhatWasWritten) {
  std::vector<int> values(1000);
  std::iota(values.begin(), values.end(), 3);
  auto buffer = DeviceBuffer<int>::Of(values);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ(buffer->Read().value(), values);
  ASSERT_TRUE(buffer->Fill(0xff).ok());
  EXPECT_EQ(buffer->Read().value(), std::vector<int>(1000, -1));
}

TEST_F(DeviceMemoryTest, MoreThanThereIsIsRefused) {
  EXPECT_EQ(DeviceBuffer<uint8_t>::Create(size_t{1} << 50).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(LaunchStatus("the next launch").ok()) << "the refusal is told once";
  EXPECT_TRUE(DeviceBuffer<uint8_t>::Create(1 << 20).ok());
  EXPECT_FALSE(PinnedBuffer::Create(size_t{1} << 50).ok());
  EXPECT_TRUE(LaunchStatus("the next launch").ok()) << "the refusal is told once";
}

}  // namespace
}  // namespace cairn::kernels::cuda
