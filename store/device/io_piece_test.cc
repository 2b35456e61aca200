// Goal: what the kernel's answers to a piece mean for its requests; which requests share one.
// Method: the test is the kernel.
#include "store/device/io_piece.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "store/base/limits.h"

namespace cairn::store {
namespace {

class OneFile final : public File {
 public:
  const std::string& path() const override { return path_; }
  absl::StatusOr<uint64_t> Size() const override { return 0; }
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::Status Allocate(uint64_t) override { return absl::OkStatus(); }
  absl::Status Truncate(uint64_t) override { return absl::OkStatus(); }

 private:
  std::string path_ = "file";
};

TEST(IoPieceTest, ShortTransfersGoOnAtAWholeUnit) {
  OneFile file;
  IoBuffer buffer(16384);
  IoRequest request = IoRequest::Read(file, 4096, buffer.bytes());
  std::vector<IoPiece> pieces = SplitIntoPieces({&request, 1});
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_TRUE(AdvancePiece(pieces[0], 5000));
  EXPECT_EQ(pieces[0].offset, 8192u);
  EXPECT_EQ(pieces[0].data, buffer.bytes().data() + 4096);
  EXPECT_EQ(pieces[0].bytes, 12288u);
  EXPECT_FALSE(AdvancePiece(pieces[0], 12288));
  EXPECT_TRUE(request.status.ok());
  EXPECT_EQ(request.bytes_done, 16384u);
}

TEST(IoPieceTest, NothingMoreIsTheEndForAReadAndAnErrorForAWrite) {
  OneFile file;
  IoBuffer buffer(8192);
  IoRequest read = IoRequest::Read(file, 0, buffer.bytes());
  std::vector<IoPiece> pieces = SplitIntoPieces({&read, 1});
  EXPECT_TRUE(AdvancePiece(pieces[0], 4096));
  EXPECT_FALSE(AdvancePiece(pieces[0], 0));
  EXPECT_TRUE(read.cut_short());
  EXPECT_EQ(read.bytes_done, 4096u);
  IoRequest write = IoRequest::Write(file, 0, buffer.bytes());
  pieces = SplitIntoPieces({&write, 1});
  EXPECT_FALSE(AdvancePiece(pieces[0], 0));
  EXPECT_EQ(write.status.code(), absl::StatusCode::kUnavailable);
}

TEST(IoPieceTest, InterruptionsAreTriedAgainButNotForEver) {
  OneFile file;
  IoBuffer buffer(4096);
  IoRequest read = IoRequest::Read(file, 0, buffer.bytes());
  std::vector<IoPiece> pieces = SplitIntoPieces({&read, 1});
  EXPECT_TRUE(AdvancePiece(pieces[0], -EINTR));
  int tries = 0;
  while (AdvancePiece(pieces[0], -EAGAIN)) ASSERT_LT(++tries, 100'000);
  EXPECT_EQ(read.status.code(), absl::StatusCode::kUnavailable);
  IoRequest full = IoRequest::Write(file, 0, buffer.bytes());
  pieces = SplitIntoPieces({&full, 1});
  EXPECT_FALSE(AdvancePiece(pieces[0], -ENOSPC));
  EXPECT_EQ(full.status.code(), absl::StatusCode::kResourceExhausted);
}

constexpr uint64_t kHead = kIoAlignment;
constexpr uint64_t kBody = 400 << 10;
constexpr uint64_t kBytes = kHead + kBody;

// Writes of a head and a body, each where the one before it ends.
struct SideBySide {
  explicit SideBySide(size_t count) : memory(count * kBytes) {
    for (size_t i = 0; i < count; ++i) {
      const auto own = memory.bytes().subspan(i * kBytes, kBytes);
      requests.push_back(
          IoRequest::Write(file, 8192 + i * kBytes, own.first(kHead), own.subspan(kHead)));
    }
  }
  OneFile file;
  IoBuffer memory;
  std::vector<IoRequest> requests;
};

std::vector<uint32_t> Shares(const std::vector<IoPiece>& pieces) {
  std::vector<uint32_t> shares;
  for (const IoPiece& piece : pieces) shares.push_back(piece.requests);
  return shares;
}

TEST(SharedPiece, WritesSideBySideShareAsManyAsFit) {
  SideBySide made(5);
  const std::vector<IoPiece> pieces = SplitIntoPieces(made.requests, /*gather=*/true);
  EXPECT_EQ(Shares(pieces), (std::vector<uint32_t>{2, 2, 1}));
  for (size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_EQ(pieces[i].request, &made.requests[2 * i]);
    EXPECT_EQ(pieces[i].offset, 8192 + 2 * i * kBytes);
    EXPECT_EQ(pieces[i].bytes, pieces[i].requests * kBytes);
  }
  for (const IoRequest& request : made.requests) EXPECT_EQ(request.pieces_left, 1u);
  // Their memory, slice after slice.
  uint64_t at = 0;
  for (const uint64_t bytes : {kHead, kBody, kHead, kBody}) {
    const std::span<uint8_t> slice = GatheredSlice(pieces[1], at);
    EXPECT_EQ(slice.data(), made.memory.bytes().data() + 2 * kBytes + at);
    EXPECT_EQ(slice.size(), bytes);
    at += bytes;
  }
}

TEST(SharedPiece, OthersDoNotShare) {
  const auto alone = [](SideBySide& made) {
    return Shares(SplitIntoPieces(made.requests, /*gather=*/true)) == std::vector<uint32_t>{1, 1};
  };
  SideBySide apart(2), backwards(2), reads(2), files(2);
  EXPECT_FALSE(alone(apart));
  apart.requests[1].offset += kIoAlignment;
  EXPECT_TRUE(alone(apart));
  std::swap(backwards.requests[0], backwards.requests[1]);
  EXPECT_TRUE(alone(backwards));
  for (IoRequest& request : reads.requests) request.kind = IoKind::kRead;
  EXPECT_TRUE(alone(reads));
  OneFile other;
  files.requests[1].file = &other;
  EXPECT_TRUE(alone(files));
  SideBySide between(3);
  between.requests[1].offset += 1;  // refused: it has no piece
  EXPECT_EQ(Shares(SplitIntoPieces(between.requests, true)), (std::vector<uint32_t>{1, 1}));
  SideBySide direct(2);
  EXPECT_EQ(Shares(SplitIntoPieces(direct.requests)), (std::vector<uint32_t>{1, 1, 1, 1}));
}

TEST(SharedPiece, AShortOneGoesOnInTheSecondRequest) {
  SideBySide made(2);
  IoPiece piece = SplitIntoPieces(made.requests, true).front();
  EXPECT_TRUE(AdvancePiece(piece, kBytes + kHead + 5000));
  EXPECT_EQ(piece.bytes, kBody - 4096);
  EXPECT_EQ(GatheredSlice(piece, 0).data(), made.memory.bytes().data() + kBytes + kHead + 4096);
  EXPECT_EQ(GatheredSlice(piece, 0).size(), piece.bytes);
  EXPECT_FALSE(AdvancePiece(piece, static_cast<int64_t>(piece.bytes)));
  std::vector<const IoRequest*> told;
  FinishPiece(piece, [&](IoRequest& request) { told.push_back(&request); });
  EXPECT_EQ(told, (std::vector<const IoRequest*>{&made.requests[0], &made.requests[1]}));
  for (const IoRequest& request : made.requests) {
    EXPECT_TRUE(request.status.ok());
    EXPECT_EQ(request.bytes_done, kBytes);
  }
}

TEST(SharedPiece, AFailureIsAllItsRequests) {
  for (const int64_t result : {int64_t{-EIO}, int64_t{0}}) {
    SideBySide made(3);
    std::vector<IoPiece> pieces = SplitIntoPieces(made.requests, true);
    EXPECT_FALSE(AdvancePiece(pieces[0], result));
    for (const size_t i : {0, 1}) {
      EXPECT_EQ(made.requests[i].status.code(), absl::StatusCode::kUnavailable);
      EXPECT_EQ(made.requests[i].bytes_done, 0u);
    }
    EXPECT_TRUE(made.requests[2].status.ok());
  }
}

}  // namespace
}  // namespace cairn::store
