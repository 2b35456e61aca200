// Goal: every segment arrives whole and nothing beside it changes, at any alignment and length.
// Method: made bytes, the whole destination compared.
#include "kernels/cuda/gather.h"

#include <algorithm>

#include "kernels/cuda/pinned_buffer.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

std::vector<uint8_t> MadeBytes(size_t count) {
  std::vector<uint8_t> bytes(count);
  SeededRandom(1).Fill(bytes);
  return bytes;
}

struct Part {
  size_t from, to, bytes;
};

// Segments of these lengths: side by side at the source, with gaps at the destination, each end
// moved to this alignment.
std::vector<Part> Parts(const std::vector<size_t>& lengths, size_t from_off, size_t to_off) {
  std::vector<Part> parts;
  size_t from = from_off, to = to_off;
  for (const size_t bytes : lengths) {
    parts.push_back({from, to, bytes});
    from += (bytes + 15) / 16 * 16;
    to += (bytes + 15) / 16 * 16 + 32;
  }
  return parts;
}

TEST(GatherRefuseTest, NegativeCounts) {
  EXPECT_EQ(CopySegments(nullptr, nullptr, -1, 16).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CopySegments(nullptr, nullptr, 1, -1).code(), absl::StatusCode::kInvalidArgument);
}

class GatherTest : public DeviceTest {
 protected:
  static constexpr size_t kRoom = 1 << 20;

  static void ExpectCopied(const uint8_t* source, const std::vector<uint8_t>& bytes,
                           const std::vector<Part>& parts, int64_t bytes_max) {
    auto to = DeviceBuffer<uint8_t>::Create(kRoom).value();
    ASSERT_TRUE(to.Fill(0x5a).ok());
    std::vector<uint8_t> want(kRoom, 0x5a);
    std::vector<SegmentCopy> segments;
    for (const Part& p : parts) {
      segments.push_back({source + p.from, to.get() + p.to, static_cast<int64_t>(p.bytes)});
      std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(p.from), p.bytes,
                  want.begin() + static_cast<ptrdiff_t>(p.to));
    }
    const auto device = DeviceBuffer<SegmentCopy>::Of(segments).value();
    ASSERT_TRUE(CopySegments(nullptr, device.get(), std::ssize(segments), bytes_max).ok());
    EXPECT_TRUE(to.Read().value() == want);
  }
};

TEST_F(GatherTest, SegmentsOfAnyLengthAndAlignment) {
  const std::vector<uint8_t> bytes = MadeBytes(kRoom);
  const auto from = DeviceBuffer<uint8_t>::Of(bytes).value();
  const std::vector<size_t> lengths = {136, 584, 65536, 0, 1, 18432, 256, 4096, 4097, 20864, 7, 8};
  for (const auto& [from_off, to_off] :
       {std::pair<size_t, size_t>{0, 0}, {8, 16}, {8, 8}, {1, 0}, {0, 3}, {4, 4}}) {
    SCOPED_TRACE(testing::Message() << from_off << " to " << to_off);
    ExpectCopied(from.get(), bytes, Parts(lengths, from_off, to_off), 65536);
  }
}

TEST_F(GatherTest, MoreSegmentsThanWarpsTakeAtOnce) {
  const std::vector<uint8_t> bytes = MadeBytes(kRoom);
  const auto from = DeviceBuffer<uint8_t>::Of(bytes).value();
  std::vector<size_t> lengths;
  for (size_t i = 0; i < 15000; ++i) lengths.push_back(i % 24 == 0 ? 8 : 16);
  lengths.push_back(9000);
  ExpectCopied(from.get(), bytes, Parts(lengths, 0, 0), 9000);
}

TEST_F(GatherTest, FromPinnedHostMemory) {
  const std::vector<uint8_t> bytes = MadeBytes(kRoom);
  const auto pinned = PinnedBuffer::Create(kRoom).value();
  std::ranges::copy(bytes, pinned.bytes().begin());
  ExpectCopied(pinned.bytes().data(), bytes, Parts({65536, 136, 20864}, 0, 8), 65536);
}

TEST_F(GatherTest, ToPinnedHostMemory) {
  const std::vector<uint8_t> bytes = MadeBytes(kRoom);
  const auto from = DeviceBuffer<uint8_t>::Of(bytes).value();
  const auto pinned = PinnedBuffer::Create(kRoom).value();
  std::ranges::fill(pinned.bytes(), uint8_t{0x5a});
  constexpr int64_t kCopied = 20864;
  const SegmentCopy segment{from.get() + 8, pinned.bytes().data() + 16, kCopied};
  const auto device = DeviceBuffer<SegmentCopy>::Of({&segment, 1}).value();
  const auto stream = OwnedStream::Create().value();
  ASSERT_TRUE(CopySegments(stream.get(), device.get(), 1, kCopied).ok());
  ASSERT_TRUE(Synchronize(stream.get()).ok());
  std::vector<uint8_t> want(kRoom, 0x5a);
  std::copy_n(bytes.begin() + 8, kCopied, want.begin() + 16);
  EXPECT_TRUE(std::ranges::equal(pinned.bytes(), want));
}

}  // namespace
}  // namespace cairn::kernels::cuda
