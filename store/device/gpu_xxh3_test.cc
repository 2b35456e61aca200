// Goal: eight lanes and the short function make XXH3 as xxhash.h does, for every length.
#include "store/device/gpu_xxh3.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "store/base/checksum.h"
#include "store/base/random.h"

namespace cairn::store {
namespace {

// As the device does it, one lane after the other.
uint64_t ByLanes(const uint8_t* data, uint64_t bytes) {
  if (bytes <= xxh3::kShortMax) return xxh3::Short(data, static_cast<uint32_t>(bytes));
  std::array<uint64_t, xxh3::kLanes> sums;
  for (uint32_t lane = 0; lane < xxh3::kLanes; ++lane) {
    const auto own = [&](uint64_t at, uint32_t l) {
      return xxh3::Read<uint64_t>(data + at + 8 * l);
    };
    uint64_t sum = xxh3::LaneBegin(lane);
    const uint64_t stripes = (bytes - 1) / xxh3::kStripeBytes;
    for (uint64_t i = 0; i < stripes; ++i) {
      const auto in_block = static_cast<uint32_t>(i % xxh3::kBlockStripes);
      const uint64_t at = i * xxh3::kStripeBytes;
      sum = xxh3::LaneAdd(sum, own(at, lane), own(at, lane ^ 1), xxh3::LaneKey(lane, in_block));
      if (in_block + 1 == xxh3::kBlockStripes) {
        sum = xxh3::LaneScramble(sum, xxh3::LaneKeyScramble(lane));
      }
    }
    const uint64_t last = bytes - xxh3::kStripeBytes;
    sums[lane] = xxh3::LaneAdd(sum, own(last, lane), own(last, lane ^ 1), xxh3::LaneKeyLast(lane));
  }
  uint64_t pairs = 0;
  for (uint32_t lane = 0; lane < xxh3::kLanes; lane += 2) {
    pairs += xxh3::PairResult(lane, sums[lane], sums[lane + 1]);
  }
  return xxh3::Result(pairs, bytes);
}

TEST(GpuXxh3Test, IsXxh3OfEveryLength) {
  SeededRandom random(5);
  std::vector<uint8_t> data(80'000);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random.Next() >> 30);
  std::vector<uint64_t> lengths = {18'688, 74'752, 65'536, 65'537, 79'999};
  for (uint64_t bytes = 0; bytes <= 3200; ++bytes) lengths.push_back(bytes);
  for (const uint64_t bytes : lengths) {
    ASSERT_EQ(ByLanes(data.data(), bytes), Checksum({data.data(), bytes})) << bytes << " bytes";
  }
}

}  // namespace
}  // namespace cairn::store
