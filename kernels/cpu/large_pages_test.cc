// Goal: large memory begins where a large page does and can be used to its last byte; many of them
// are few mappings, of which a process may have 65,530.
#include "kernels/cpu/large_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

namespace cairn::kernels {
namespace {

using Bytes = std::vector<uint8_t, LargePages<uint8_t>>;

bool BeginsLargePage(const Bytes& bytes) {
  return reinterpret_cast<uintptr_t>(bytes.data()) % kLargePageBytes == 0;
}

int64_t Mappings() {
  std::ifstream maps("/proc/self/maps");
  return std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
}

TEST(LargePages, BeginAlignedAndHoldEveryByte) {
  for (const size_t bytes : {kLargePageBytes, kLargePageBytes + 1, 3 * kLargePageBytes + 4097}) {
    Bytes memory(bytes, uint8_t{7});
    EXPECT_TRUE(BeginsLargePage(memory)) << bytes;
    EXPECT_EQ(std::count(memory.begin(), memory.end(), uint8_t{7}), static_cast<int64_t>(bytes));
    memory.resize(2 * bytes, uint8_t{9});
    EXPECT_EQ(std::count(memory.begin(), memory.end(), uint8_t{9}), static_cast<int64_t>(bytes));
  }
  EXPECT_EQ(Bytes(1000, uint8_t{3}).back(), 3);
}

TEST(LargePages, WholeOnesMeet) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer has an allocator of its own";
#endif
  const int64_t before = Mappings();
  std::vector<Bytes> all;
  for (int i = 0; i < 50; ++i) all.emplace_back(2 * kLargePageBytes, uint8_t{1});
  EXPECT_LE(Mappings(), before + 3);
  all.clear();
  EXPECT_LE(Mappings(), before + 3);
}

}  // namespace
}  // namespace cairn::kernels
