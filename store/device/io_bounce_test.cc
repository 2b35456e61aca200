// Goal: reads through bounce memory go on while the bytes of others are worked on; what is said to
// match its checksums does, and arrives also where it does not.
// Method: the test is the kernel: it writes to the slot and says how much.
#include "store/device/io_bounce.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "store/device/memory_file_system.h"

namespace cairn::store {
namespace {

TEST(BouncedReadsInFlight, SomeReadIsAlwaysUnderWay) {
  EXPECT_EQ(BouncedReadsInFlightMax(0), 0u);
  for (size_t pieces = 1; pieces <= 100; ++pieces) {
    EXPECT_GE(BouncedReadsInFlightMax(pieces), 1u) << pieces;
    EXPECT_LE(BouncedReadsInFlightMax(pieces), pieces);
  }
}

TEST(BouncedReadsInFlight, AQuarterComesAfterTheRest) {
  EXPECT_EQ(BouncedReadsInFlightMax(1), 1u);  // one read more costs as much as one copy
  EXPECT_EQ(BouncedReadsInFlightMax(3), 3u);
  EXPECT_EQ(BouncedReadsInFlightMax(4), 3u);
  EXPECT_EQ(BouncedReadsInFlightMax(8), 6u);
  EXPECT_EQ(BouncedReadsInFlightMax(16), 12u);
}

TEST(BouncedReadsInFlight, LongBatchesLeaveSlotsToStartIn) {
  for (const size_t pieces : {16, 17, 64, 100'000}) {
    EXPECT_EQ(BouncedReadsInFlightMax(pieces), 12u) << pieces;
    EXPECT_LT(BouncedReadsInFlightMax(pieces), static_cast<unsigned>(kBounceSlots));
  }
}

class BounceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (bounce_ == nullptr) GTEST_SKIP() << "no huge pages here";
    SeededRandom(1).Fill(source_.bytes());
    uint64_t at = kHead;
    for (const uint32_t bytes : {70'000u, 77u, 130'000u}) {
      parts_.push_back({bytes, Checksum(source_.bytes().subspan(at, bytes))});
      at += bytes;
    }
    request_ = IoRequest::Read(*file_, 0, home_.bytes().first(kHead), home_.bytes().subspan(kHead));
    request_.parts = parts_;
  }

  // The device brings the piece up to `result` bytes.
  void Arrive(IoPiece piece, int64_t result) {
    uint8_t* const slot = bounce_->Enter(piece);
    const std::span<const uint8_t> bytes = source_.bytes().subspan(piece.offset, piece.bytes);
    std::copy(bytes.begin(), bytes.end(), slot);
    bounce_->Leave(piece, result);
    EXPECT_EQ(piece.slot, -1);
  }
  void ArriveWhole() {
    Arrive({.request = &request_, .bytes = request_.bytes()},
           static_cast<int64_t>(request_.bytes()));
  }
  bool IsHome(uint64_t bytes) {
    const auto stored = source_.bytes().first(bytes);
    return std::equal(stored.begin(), stored.end(), home_.bytes().begin());
  }

  static constexpr uint64_t kHead = kIoAlignment;
  static constexpr uint64_t kBytes = kHead + RoundUpToIo(70'000 + 77 + 130'000);
  MemoryFileSystem files_;
  std::unique_ptr<File> file_ = *files_.Open("a", OpenMode::kCreate);
  std::unique_ptr<IoBounce> bounce_ = IoBounce::Create();
  IoBuffer source_{kBytes};
  IoBuffer home_{kBytes};
  std::vector<EntryPart> parts_;
  IoRequest request_;
};

TEST_F(BounceTest, AWholeReadIsCheckedOnItsWay) {
  ArriveWhole();
  EXPECT_EQ(request_.parts_seen, PartsSeen::kMatch);
  EXPECT_TRUE(IsHome(kBytes));
}

TEST_F(BounceTest, WithoutAHeadToo) {
  request_ = IoRequest::Read(*file_, kHead, {}, home_.bytes().subspan(kHead));
  request_.parts = parts_;
  Arrive({.request = &request_, .offset = kHead, .bytes = request_.bytes()},
         static_cast<int64_t>(request_.bytes()));
  EXPECT_EQ(request_.parts_seen, PartsSeen::kMatch);
  std::copy_n(source_.bytes().begin(), kHead, home_.bytes().begin());
  EXPECT_TRUE(IsHome(kBytes));
}

TEST_F(BounceTest, ADamagedPartDoesNotMatchAndArrivesAsItIs) {
  for (const uint64_t at : {kHead, kHead + 70'000, kHead + 70'076, kHead + 70'077 + 129'999}) {
    source_.bytes()[at] ^= 0x10;
    request_.parts_seen = PartsSeen::kNothing;
    ArriveWhole();
    EXPECT_EQ(request_.parts_seen, PartsSeen::kDiffer) << at;
    EXPECT_TRUE(IsHome(kBytes));
    source_.bytes()[at] ^= 0x10;
  }
}

TEST_F(BounceTest, NothingIsSaidOfWhatIsNotThereAsAWhole) {
  Arrive({.request = &request_, .bytes = kBytes}, 8192);
  EXPECT_EQ(request_.parts_seen, PartsSeen::kNothing);
  EXPECT_TRUE(IsHome(8192));
  Arrive({.request = &request_, .offset = 8192, .bytes = kBytes - 8192}, kBytes - 8192);
  EXPECT_EQ(request_.parts_seen, PartsSeen::kNothing);
  EXPECT_TRUE(IsHome(kBytes));
  Arrive({.request = &request_, .bytes = kBytes}, -EIO);
  EXPECT_EQ(request_.parts_seen, PartsSeen::kNothing);
}

TEST_F(BounceTest, AWholeWriteIsCheckedAsItGoes) {
  request_.kind = IoKind::kWrite;  // from home_
  std::copy_n(source_.bytes().begin(), kBytes, home_.bytes().begin());
  const auto goes = [&](IoPiece piece, PartsSeen seen) {
    const uint8_t* const slot = bounce_->Enter(piece);
    EXPECT_EQ(request_.parts_seen, seen);
    EXPECT_TRUE(std::equal(slot, slot + piece.bytes, home_.bytes().begin() + piece.offset));
    bounce_->Leave(piece, static_cast<int64_t>(piece.bytes));
  };
  goes({.request = &request_, .bytes = kBytes}, PartsSeen::kMatch);
  home_.bytes()[kHead + 70'000] ^= 1;
  goes({.request = &request_, .bytes = kBytes}, PartsSeen::kDiffer);
  // The rest of one that came short says nothing any more of the whole.
  goes({.request = &request_, .offset = 8192, .bytes = kBytes - 8192}, PartsSeen::kNothing);
}

TEST_F(BounceTest, OfWritesThatShareAPieceEachIsCheckedForItself) {
  std::copy_n(source_.bytes().begin(), kBytes, home_.bytes().begin());
  IoBuffer other(kBytes), unchecked(kIoAlignment);
  std::copy_n(source_.bytes().begin(), kBytes, other.bytes().begin());
  other.bytes()[kHead + 70'000] ^= 1;
  const auto write = [&](uint64_t at, std::span<uint8_t> bytes) {
    return IoRequest::Write(*file_, at, bytes.first(kHead), bytes.subspan(kHead));
  };
  std::vector<IoRequest> requests = {write(0, home_.bytes()), write(kBytes, other.bytes()),
                                     write(2 * kBytes, unchecked.bytes())};
  requests[0].parts = requests[1].parts = parts_;
  IoPiece piece{.request = requests.data(), .requests = 3, .bytes = 2 * kBytes + kIoAlignment};
  const auto is_there = [&](uint64_t from) {
    std::vector<uint8_t> all(home_.bytes().begin(), home_.bytes().end());
    all.insert(all.end(), other.bytes().begin(), other.bytes().end());
    all.insert(all.end(), unchecked.bytes().begin(), unchecked.bytes().end());
    const uint8_t* const slot = bounce_->Enter(piece);
    const bool equal = std::equal(all.begin() + static_cast<ptrdiff_t>(from), all.end(), slot);
    bounce_->Leave(piece, static_cast<int64_t>(piece.bytes));
    return equal;
  };
  EXPECT_TRUE(is_there(0));
  EXPECT_EQ(requests[0].parts_seen, PartsSeen::kMatch);
  EXPECT_EQ(requests[1].parts_seen, PartsSeen::kDiffer);
  EXPECT_EQ(requests[2].parts_seen, PartsSeen::kNothing);
  // The rest, where the device took the first and a unit more.
  ASSERT_TRUE(AdvancePiece(piece, kBytes + 4096));
  EXPECT_TRUE(is_there(kBytes + 4096));
  for (const IoRequest& request : requests) EXPECT_EQ(request.parts_seen, PartsSeen::kNothing);
}

TEST_F(BounceTest, PartsThatTheReadDoesNotHoldDoNotMatch) {
  parts_.push_back({.bytes = 1 << 20, .xxh3 = 0});
  request_.parts = parts_;
  ArriveWhole();
  EXPECT_EQ(request_.parts_seen, PartsSeen::kDiffer);
  EXPECT_TRUE(IsHome(kBytes));
}

}  // namespace
}  // namespace cairn::store
