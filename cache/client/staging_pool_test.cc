// Goal: staging memory is made once and cut again and again, never over its limit, never two
// buffers on one byte.
#include "cache/client/staging_pool.h"

#include <vector>

#include "gtest/gtest.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

struct Given {
  std::vector<uint64_t> bytes;
  StagingPool::Give give() {
    return [this](int descriptor, uint64_t size) -> absl::StatusOr<uint32_t> {
      EXPECT_GE(descriptor, 0);
      bytes.push_back(size);
      return static_cast<uint32_t>(100 + bytes.size());
    };
  }
};

TEST(StagingPool, OnePieceIsCutAndGrowsTogetherAgain) {
  Given given;
  StagingPool pool({.piece_bytes = 4 * kIoAlignment, .bytes_max = 8 * kIoAlignment}, given.give());
  for (int round = 0; round < 3; ++round) {
    auto a = *pool.Take(1);
    auto b = *pool.Take(kIoAlignment + 1);
    EXPECT_EQ(a->bytes.size(), kIoAlignment);
    EXPECT_EQ(b->bytes.size(), 2 * kIoAlignment);
    EXPECT_EQ(a->piece, 101u);
    EXPECT_EQ(a->bytes.data() + kIoAlignment, b->bytes.data());
    EXPECT_EQ(b->offset, kIoAlignment);
    auto c = *pool.Take(kIoAlignment);
    // Returned out of order, so that both neighbours have to be found.
    a.reset();
    c.reset();
    b.reset();
    EXPECT_EQ((*pool.Take(4 * kIoAlignment))->offset, 0u);
  }
  EXPECT_EQ(given.bytes, std::vector<uint64_t>{4 * kIoAlignment});
}

TEST(StagingPool, TheLimitIsNamedAndReturnsHelp) {
  Given given;
  StagingPool pool({.piece_bytes = kIoAlignment, .bytes_max = 2 * kIoAlignment}, given.give());
  auto a = *pool.Take(kIoAlignment);
  auto b = *pool.Take(kIoAlignment);
  EXPECT_NE(a->piece, b->piece);
  EXPECT_TRUE(absl::IsResourceExhausted(pool.Take(1).status()));
  a.reset();
  EXPECT_TRUE(pool.Take(1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(pool.Take(0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(pool.Take(kEntryBytesMax + 1).status()));
}

TEST(StagingPool, PiecesAreBounded) {
  Given given;
  StagingPool pool({.piece_bytes = kIoAlignment, .bytes_max = 1 << 20, .pieces_max = 1},
                   given.give());
  auto a = *pool.Take(1);
  EXPECT_TRUE(absl::IsResourceExhausted(pool.Take(1).status()));
}

TEST(StagingPool, WhatTheDaemonRefusesIsNotUsed) {
  StagingPool pool(
      {}, [](int, uint64_t) -> absl::StatusOr<uint32_t> { return absl::UnavailableError("gone"); });
  EXPECT_TRUE(absl::IsUnavailable(pool.Take(1).status()));
}

TEST(StagingPool, BuffersOutliveThePool) {
  Given given;
  auto pool = std::make_unique<StagingPool>(StagingPool::Options(), given.give());
  auto a = *pool->Take(100);
  pool.reset();
  a->bytes[0] = 1;
  EXPECT_EQ(a->bytes[0], 1);
}

}  // namespace
}  // namespace cairn::cache
