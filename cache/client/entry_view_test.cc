// Goal: what is read of an entry is what was put, or DATA_LOSS, wherever the bytes changed: in the
// payload, in the part table, or all of it by another entry that came to lie there. Method: an
// arena of one entry, mapped and streamed views of it, one byte spoiled at a time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "cache/client/cache_api.h"
#include "store/base/checksum.h"
#include "store/base/random.h"

namespace cairn::cache {
namespace {

using testing::HasSubstr;

constexpr size_t kBytes = 5002, kTable = 5008;

class EntryViewTest : public testing::Test {
 protected:
  EntryViewTest() : arena_(8192), sizes_{3000, 2000, 2} { Fill(1); }

  // As the host tier lays entries out.
  void Fill(uint64_t seed) {
    SeededRandom random(seed);
    random.Fill(std::span(arena_).first(kBytes));
    uint64_t table[3];
    size_t at = 0;
    parts_.clear();
    for (size_t i = 0; i < 3; ++i) {
      table[i] = Checksum(std::span(arena_).subspan(at, sizes_[i]));
      parts_.push_back({sizes_[i], table[i]});
      at += sizes_[i];
    }
    std::memcpy(arena_.data() + kTable, table, sizeof(table));
  }
  EntryView Mapped() const {
    return {.key = {},
            .payload = std::span(arena_).first(kBytes),
            .part_bytes = sizes_,
            .part_table = arena_.data() + kTable,
            .table_xxh3 = Checksum(std::span(arena_).subspan(kTable, 24))};
  }
  EntryView Streamed() const {
    return {.key = {}, .payload = std::span(arena_).first(kBytes), .parts = parts_};
  }
  void ExpectLoss(const EntryView& view, const std::string& text) {
    for (const absl::Status& status : {view.Verify(), view.CopyOut(out_)}) {
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(text));
    }
  }

  std::vector<uint8_t> arena_;
  std::vector<uint32_t> sizes_;
  std::vector<EntryPart> parts_;
  std::vector<uint8_t> out_ = std::vector<uint8_t>(3 * kBytes);
};

TEST_F(EntryViewTest, WholeEntriesAreReadByEitherKindOfView) {
  for (const EntryView& view : {Mapped(), Streamed()}) {
    EXPECT_EQ(*view.Parts(), parts_);
    EXPECT_TRUE(view.Verify().ok()) << view.Verify();
    std::fill(out_.begin(), out_.end(), uint8_t{0});
    ASSERT_TRUE(view.CopyOut(std::span(out_).first(kBytes)).ok());
    EXPECT_EQ(std::memcmp(out_.data(), arena_.data(), kBytes), 0);
    EXPECT_EQ(out_[kBytes], 0);
    EXPECT_TRUE(absl::IsInvalidArgument(view.CopyOut(std::span(out_).first(kBytes - 1))));
  }
}

TEST_F(EntryViewTest, AByteThatChangedIsNoticedAndItsPartNamed) {
  const EntryView mapped = Mapped(), streamed = Streamed();
  for (const size_t at : {size_t{0}, size_t{2999}, size_t{3000}, kBytes - 1}) {
    const std::string part = at < 3000 ? "part 0 of 3" : at < 5000 ? "part 1 of 3" : "part 2 of 3";
    arena_[at] ^= 4;
    ExpectLoss(mapped, part);
    ExpectLoss(streamed, part);
    arena_[at] ^= 4;
  }
  arena_[kTable + 23] ^= 1;
  ExpectLoss(mapped, "part table");
  EXPECT_TRUE(absl::IsDataLoss(mapped.Parts().status()));
}

TEST_F(EntryViewTest, AnotherWholeEntryInItsPlaceIsNoticed) {
  const EntryView leased = Mapped();
  Fill(2);  // with a table that fits its payload
  EXPECT_TRUE(Mapped().Verify().ok());
  ExpectLoss(leased, "part table");
}

TEST_F(EntryViewTest, PartsThatAreNotThePayloadsAreNoticed) {
  EntryView view = Streamed();
  view.parts.pop_back();
  ExpectLoss(view, "parts have 5000");
  view.parts.clear();
  ExpectLoss(view, "0 parts");
  view = Mapped();
  view.payload = view.payload.first(100);
  ExpectLoss(view, "parts have 5002");
}

TEST_F(EntryViewTest, APrefixIsCopiedOutInOrderAndTheBlockNamed) {
  FetchedPrefix prefix;
  prefix.rows = {Mapped(), Mapped()};
  prefix.checkpoint = Streamed();
  EXPECT_EQ(prefix.payload_bytes(), 3 * kBytes);
  for (const int threads : {1, 2, 3, 5}) {
    std::fill(out_.begin(), out_.end(), uint8_t{0});
    ASSERT_TRUE(prefix.CopyOut(out_, threads).ok());
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(std::memcmp(out_.data() + i * kBytes, arena_.data(), kBytes), 0) << i;
    }
  }
  EXPECT_TRUE(absl::IsInvalidArgument(prefix.CopyOut(std::span(out_).first(3 * kBytes - 1))));
  prefix.rows[1].table_xxh3 ^= 1;
  for (const int threads : {1, 3}) {
    EXPECT_THAT(std::string(prefix.CopyOut(out_, threads).message()),
                HasSubstr("block 1: the part table"));
  }
  prefix.rows.pop_back();
  prefix.checkpoint->parts[2].xxh3 ^= 1;
  EXPECT_THAT(std::string(prefix.CopyOut(out_).message()), HasSubstr("checkpoint: part 2"));
}

}  // namespace
}  // namespace cairn::cache
