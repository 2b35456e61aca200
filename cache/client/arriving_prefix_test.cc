// Goal: bytes land where they belong and every part is checked, however they are cut; memory is
// used again. Method: entries of known parts, fed in pieces of every size.
#include "cache/client/arriving_prefix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <numeric>
#include <thread>

#include "store/base/checksum.h"

namespace cairn::cache {
namespace {

struct Fixture {
  Fixture() : bytes(2 * 300 + 500) {
    std::iota(bytes.begin(), bytes.end(), uint8_t{9});
    checked.rows = {Extent(0, {100, 200}), Extent(300, {100, 200})};
    checked.checkpoint = Extent(600, {500});
  }
  CheckedExtent Extent(size_t at, std::vector<uint32_t> parts) const {
    CheckedExtent extent;
    for (const uint32_t part : parts) {
      extent.parts.push_back({part, Checksum(std::span(bytes).subspan(at, part))});
      extent.bytes += part;
      at += part;
    }
    return extent;
  }
  std::unique_ptr<ArrivingPrefix> Make(std::vector<GroupEnd> ends = {}, size_t stripes = 1) {
    return std::make_unique<ArrivingPrefix>(FetchRequest{.chain = chain}, checked, pool,
                                            std::move(ends), stripes);
  }
  // Of `wire`, from `at` on, in pieces, until `count` bytes were taken or it is done.
  static void Take(ArrivingPrefix& prefix, const std::vector<uint8_t>& wire, size_t& at,
                   size_t piece, size_t count = SIZE_MAX, size_t from_stripe = 0) {
    ArrivingPrefix::Stripe& stripe = prefix.stripe(from_stripe);
    for (const size_t begin = at; !stripe.Done() && at - begin < count;) {
      const auto room = stripe.Room();
      ASSERT_TRUE(room.ok()) << room.status();
      EXPECT_EQ(room->size(), stripe.Missing());
      const size_t taken = std::min({piece, room->size(), count - (at - begin)});
      std::copy_n(wire.begin() + static_cast<std::ptrdiff_t>(at), taken, room->begin());
      stripe.Took(taken);
      at += taken;
    }
  }
  std::unique_ptr<ArrivingPrefix> Feed(size_t piece) {
    auto prefix = Make();
    size_t at = 0;
    Take(*prefix, bytes, at, piece);
    EXPECT_EQ(at, bytes.size());
    return prefix;
  }
  // As they travel in groups.
  std::vector<uint8_t> Grouped(std::vector<GroupEnd> ends, size_t stripe = 0,
                               size_t stripes = 1) const {
    std::vector<uint64_t> sizes;
    for (const CheckedExtent& extent : checked.rows) sizes.push_back(extent.bytes);
    if (checked.checkpoint.has_value()) sizes.push_back(checked.checkpoint->bytes);
    std::vector<uint8_t> wire;
    sizes = SizesInStripe(std::move(sizes), stripe, stripes);
    for (TransferCursor cursor(sizes, checked.rows.size(), std::move(ends)); !cursor.Done();) {
      const size_t at = cursor.entry() * 300 + cursor.offset();
      wire.insert(wire.end(), bytes.begin() + ptrdiff_t(at),
                  bytes.begin() + ptrdiff_t(at + cursor.left()));
      cursor.Advance(cursor.left());
    }
    return wire;
  }
  std::vector<uint8_t> bytes;
  CheckedFetch checked;
  std::vector<Digest> chain = std::vector<Digest>(2);
  ReceivePool pool{1 << 20};
};

TEST(ArrivingPrefix, PiecesOfEverySize) {
  Fixture fixture;
  for (const size_t piece : {1u, 7u, 99u, 100u, 101u, 300u, 10000u}) {
    const auto prefix = fixture.Feed(piece);
    EXPECT_TRUE(prefix->verified);
    EXPECT_EQ(prefix->copied_bytes, fixture.bytes.size());
    ASSERT_EQ(prefix->rows.size(), 2u);
    ASSERT_TRUE(prefix->checkpoint.has_value());
    const auto same = [&](const EntryView& view, size_t at) {
      return std::equal(view.payload.begin(), view.payload.end(),
                        fixture.bytes.begin() + static_cast<std::ptrdiff_t>(at));
    };
    EXPECT_TRUE(same(prefix->rows[0], 0) && same(prefix->rows[1], 300));
    EXPECT_TRUE(same(*prefix->checkpoint, 600));
    EXPECT_EQ(prefix->checkpoint->parts.size(), 1u);
  }
}

TEST(ArrivingPrefix, AnyByteOfAnyPartThatIsWrongIsNoticed) {
  for (const size_t at : {0u, 99u, 100u, 299u, 300u, 599u, 600u, 1099u}) {
    Fixture fixture;
    fixture.bytes[at] ^= 1;
    EXPECT_FALSE(fixture.Feed(64)->verified) << at;
  }
}

TEST(ArrivingPrefix, EntriesWithoutBytesNeedNone) {
  Fixture fixture;
  fixture.checked.checkpoint = CheckedExtent();
  fixture.bytes.resize(600);
  const auto prefix = fixture.Feed(1000);
  ASSERT_TRUE(prefix->checkpoint.has_value());
  EXPECT_TRUE(prefix->checkpoint->payload.empty());
  fixture.checked.rows.clear();
  const ArrivingPrefix nothing(FetchRequest{.chain = fixture.chain}, fixture.checked, fixture.pool);
  EXPECT_TRUE(nothing.Done());
}

// Groups end where parts do.
const std::vector<std::vector<GroupEnd>> kEnds = {
    {{100, 0}}, {{100, 500}}, {{0, 500}, {100, 500}}, {{300, 0}}, {{0, 0}, {100, 0}, {300, 0}}};

TEST(ArrivingPrefix, GroupsInPiecesOfEverySize) {
  Fixture fixture;
  fixture.checked.grouped = true;
  for (const std::vector<GroupEnd>& ends : kEnds) {
    for (const size_t piece : {1u, 7u, 100u, 10000u}) {
      const auto prefix = fixture.Make(ends);
      EXPECT_TRUE(prefix->grouped());
      size_t at = 0;
      Fixture::Take(*prefix, fixture.Grouped(ends), at, piece);
      EXPECT_EQ(at, fixture.bytes.size());
      EXPECT_TRUE(prefix->verified);
      EXPECT_TRUE(prefix->Await(SIZE_MAX).ok());
      ASSERT_EQ(prefix->rows.size(), 2u);
      EXPECT_TRUE(std::equal(prefix->rows[1].payload.begin(), prefix->rows[1].payload.end(),
                             fixture.bytes.begin() + 300));
      EXPECT_TRUE(std::equal(prefix->checkpoint->payload.begin(), prefix->checkpoint->payload.end(),
                             fixture.bytes.begin() + 600));
      EXPECT_TRUE(prefix->rows[0].Verify().ok() && prefix->checkpoint->Verify().ok());
    }
  }
}

TEST(ArrivingPrefix, EveryWrongByteIsFoundByTheEndOfItsGroup) {
  const std::vector<GroupEnd> ends = {{100, 0}, {100, 500}};
  for (size_t wrong = 0; wrong < 1100; wrong += 33) {
    Fixture fixture;
    fixture.checked.grouped = true;
    std::vector<uint8_t> wire = fixture.Grouped(ends);
    wire[wrong] ^= 1;
    const auto prefix = fixture.Make(ends);
    size_t at = 0;
    Fixture::Take(*prefix, wire, at, 1000, wrong < 200 ? 200 : wrong < 700 ? 700 : 1100);
    EXPECT_TRUE(absl::IsDataLoss(prefix->Await(1))) << wrong;
    EXPECT_FALSE(prefix->verified) << wrong;
  }
}

TEST(ArrivingPrefix, InStripesItIsThereWhenTheLastOneIs) {
  Fixture fixture;
  for (const size_t stripes : {2u, 3u, 7u}) {  // three entries: of 7 stripes four have no bytes
    for (size_t last = 0; last < std::min<size_t>(stripes, 3); ++last) {
      const auto prefix = fixture.Make({}, stripes);
      for (size_t i = 1; i <= stripes; ++i) {
        const size_t stripe = (last + i) % stripes;
        if (stripe > 2) continue;
        EXPECT_FALSE(prefix->Done() || prefix->verified || prefix->Await(1).ok());
        size_t at = 0;
        Fixture::Take(*prefix, fixture.Grouped({}, stripe, stripes), at, 64, SIZE_MAX, stripe);
        EXPECT_TRUE(prefix->stripe(stripe).Done());
      }
      EXPECT_TRUE(prefix->Done() && prefix->verified && prefix->Await(1).ok());
      EXPECT_EQ(prefix->arrival().share, 1);
      ASSERT_EQ(prefix->rows.size(), 2u);
      EXPECT_TRUE(prefix->rows[0].Verify().ok() && prefix->rows[1].Verify().ok());
      EXPECT_TRUE(prefix->checkpoint->Verify().ok());
    }
  }
}

TEST(ArrivingPrefix, AGroupIsThereWhenEveryStripeHasBroughtIt) {
  Fixture fixture;
  fixture.checked.grouped = true;
  for (const std::vector<GroupEnd>& ends : kEnds) {
    // Another thread waits for each group.
    const auto prefix = fixture.Make(ends, 2);
    prefix->DrawBehind(
        [&](ArrivingPrefix& arriving) {
          std::vector<std::thread> threads;
          for (const size_t stripe : {0u, 1u}) {
            threads.emplace_back([&, stripe] {
              size_t at = 0;
              Fixture::Take(arriving, fixture.Grouped(ends, stripe, 2), at, 33, SIZE_MAX, stripe);
            });
          }
          for (std::thread& thread : threads) thread.join();
          return absl::OkStatus();
        },
        [] {});
    for (size_t group = 1; group <= ends.size(); ++group) {
      ASSERT_TRUE(prefix->Await(group).ok());
      const GroupEnd& end = ends[group - 1];
      ASSERT_EQ(prefix->rows.size(), 2u);
      for (const size_t row : {0u, 1u}) {
        EXPECT_TRUE(std::equal(prefix->rows[row].payload.begin(),
                               prefix->rows[row].payload.begin() + ptrdiff_t(end.rows),
                               fixture.bytes.begin() + ptrdiff_t(row * 300)));
      }
      EXPECT_TRUE(std::equal(prefix->checkpoint->payload.begin(),
                             prefix->checkpoint->payload.begin() + ptrdiff_t(end.checkpoint),
                             fixture.bytes.begin() + 600));
    }
    EXPECT_TRUE(prefix->Await(SIZE_MAX).ok());
    EXPECT_TRUE(prefix->rows[1].Verify().ok() && prefix->checkpoint->Verify().ok());
  }
}

TEST(ArrivingPrefix, AStripeThatIsAheadWaitsForTheOther) {
  Fixture fixture;
  fixture.checked.grouped = true;
  const std::vector<GroupEnd> ends = {{100, 0}};
  const auto prefix = fixture.Make(ends, 2);
  size_t ahead = 0, behind = 0;
  Fixture::Take(*prefix, fixture.Grouped(ends, 0, 2), ahead, 64);
  EXPECT_TRUE(prefix->stripe(0).Done());
  EXPECT_FALSE(prefix->Await(1).ok());
  Fixture::Take(*prefix, fixture.Grouped(ends, 1, 2), behind, 64, 99, 1);
  EXPECT_FALSE(prefix->Await(1).ok());
  EXPECT_TRUE(prefix->rows.empty());
  Fixture::Take(*prefix, fixture.Grouped(ends, 1, 2), behind, 64, 1, 1);
  EXPECT_TRUE(prefix->Await(1).ok());
  EXPECT_EQ(prefix->rows.size(), 2u);
  EXPECT_FALSE(prefix->Await(2).ok());
  Fixture::Take(*prefix, fixture.Grouped(ends, 1, 2), behind, 64, SIZE_MAX, 1);
  EXPECT_TRUE(prefix->Await(2).ok() && prefix->verified);
}

TEST(ArrivingPrefix, AWrongByteOfAnyStripeIsNoticed) {
  for (const size_t wrong : {0u, 299u, 300u, 599u, 600u, 1099u}) {
    Fixture fixture;
    fixture.bytes[wrong] ^= 1;
    const auto prefix = fixture.Make({}, 2);
    for (const size_t stripe : {1u, 0u}) {
      size_t at = 0;
      Fixture::Take(*prefix, fixture.Grouped({}, stripe, 2), at, 1000, SIZE_MAX, stripe);
    }
    EXPECT_TRUE(prefix->Done() && !prefix->verified) << wrong;
    EXPECT_TRUE(absl::IsDataLoss(prefix->Await(1))) << wrong;
  }
}

// A daemon that knows no groups sends entry after entry.
TEST(ArrivingPrefix, GroupsThatWereNotGivenAreNotExpected) {
  Fixture fixture;
  const auto prefix = fixture.Make({{100, 0}});
  EXPECT_FALSE(prefix->grouped());
  size_t at = 0;
  Fixture::Take(*prefix, fixture.bytes, at, 1000);
  EXPECT_TRUE(prefix->Done() && prefix->verified && prefix->arrival().ended);
  EXPECT_TRUE(prefix->Await(2).ok());
}

class Behind : public testing::Test {
 protected:
  Behind() { fixture_.checked.grouped = true; }
  // Draws the wire's first so many bytes when the test says so, and then ends so.
  std::unique_ptr<ArrivingPrefix> Draw(size_t count, absl::Status end) {
    auto prefix = fixture_.Make(ends_);
    prefix->DrawBehind(
        [this, count, end](ArrivingPrefix& arriving) {
          size_t at = 0;
          Fixture::Take(arriving, fixture_.Grouped(ends_), at, 64, std::min<size_t>(count, 200));
          go_on_.get_future().wait();
          Fixture::Take(arriving, fixture_.Grouped(ends_), at, 64, count - at);
          return end;
        },
        [this] { stops_ += 1; });
    return prefix;
  }
  Fixture fixture_;
  const std::vector<GroupEnd> ends_ = {{100, 0}, {300, 0}};
  std::promise<void> go_on_;
  int stops_ = 0;
};

TEST_F(Behind, AGroupIsThereBeforeTheNextIs) {
  const auto prefix = Draw(1100, absl::OkStatus());
  ASSERT_TRUE(prefix->Await(1).ok());
  EXPECT_FALSE(prefix->arrival().ended);
  EXPECT_DOUBLE_EQ(prefix->arrival().share, 200.0 / 1100);
  ASSERT_EQ(prefix->rows.size(), 2u);
  EXPECT_TRUE(std::equal(fixture_.bytes.begin() + 300, fixture_.bytes.begin() + 400,
                         prefix->rows[1].payload.begin()));
  go_on_.set_value();
  EXPECT_TRUE(prefix->Await(3).ok());
  EXPECT_TRUE(prefix->arrival().ended);
  EXPECT_FALSE(prefix->verified) << "who does not ask Await must look himself";
  EXPECT_TRUE(prefix->rows[1].Verify().ok() && prefix->checkpoint->Verify().ok());
}

TEST_F(Behind, WhatEndsItEndsTheWaitForWhatIsMissing) {
  const auto prefix = Draw(700, absl::DeadlineExceededError("late"));
  ASSERT_TRUE(prefix->Await(1).ok());
  go_on_.set_value();
  EXPECT_TRUE(absl::IsDeadlineExceeded(prefix->Await(3)));
  EXPECT_TRUE(prefix->Await(2).ok()) << "which had come";
  EXPECT_TRUE(prefix->arrival().ended);
}

TEST_F(Behind, TheTimeOfWhatDidNotComeCounts) {
  const auto prefix = Draw(200, absl::DeadlineExceededError("late"));
  ASSERT_TRUE(prefix->Await(1).ok());
  const double before = prefix->arrival().seconds;
  go_on_.set_value();
  EXPECT_TRUE(absl::IsDeadlineExceeded(prefix->Await(2)));
  EXPECT_GT(prefix->arrival().seconds, before);
}

TEST_F(Behind, DamageEndsEveryWait) {
  fixture_.bytes[1099] ^= 1;
  const auto prefix = Draw(1100, absl::OkStatus());
  ASSERT_TRUE(prefix->Await(1).ok());
  go_on_.set_value();
  EXPECT_TRUE(absl::IsDataLoss(prefix->Await(3)));
  EXPECT_TRUE(absl::IsDataLoss(prefix->Await(1)));
}

TEST_F(Behind, WhoeverDropsItStopsItsTransfer) {
  auto prefix = Draw(1100, absl::OkStatus());
  ASSERT_TRUE(prefix->Await(1).ok());
  go_on_.set_value();
  prefix.reset();
  EXPECT_EQ(stops_, 1);
}

TEST(ReceivePool, MemoryIsUsedAgainUpToItsBound) {
  ReceivePool pool(3 * 4096);
  auto first = *pool.Take(5000);
  auto second = *pool.Take(5000);
  EXPECT_EQ(first.bytes().size(), 5000u);
  const uint8_t* memory = first.bytes().data();
  first = ReceivePool::Buffer();
  EXPECT_EQ(pool.kept_bytes(), 8192u);
  second = ReceivePool::Buffer();  // over the bound
  EXPECT_EQ(pool.kept_bytes(), 8192u);
  EXPECT_EQ((*pool.Take(4097)).bytes().data(), memory);
  auto outlives = *pool.Take(8192);
  pool = ReceivePool(0);
  outlives.bytes()[8191] = 1;
}

}  // namespace
}  // namespace cairn::cache
