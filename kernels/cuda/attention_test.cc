// The device's attention beside kernels/cpu's on made rows, and beside itself in other company.
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/kv_rows.h"
#include "kernels/cpu/rope.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

constexpr int64_t kDim = kAttentionDim;
constexpr int64_t kRope = kAttentionRope;

// Rows as they are stored, and the values they stand for.
struct Rows {
  std::vector<uint8_t> data, scales;
  std::vector<float> values;

  // Groups of 64 differ in magnitude, so that every scale matters.
  Rows(int64_t count, uint64_t seed, float magnitude = 2.0f) {
    const RowCodec codec(RowEncoding::kFp8Bf16, kDim, kRope);
    data.resize(static_cast<size_t>(count * codec.data_bytes()));
    scales.resize(static_cast<size_t>(count * codec.scale_bytes()));
    values = RandomFloats(static_cast<size_t>(count * kDim), seed, magnitude);
    for (int64_t r = 0; r < count; ++r) {
      float* const row = values.data() + r * kDim;
      for (int64_t e = 0; e < kDim; ++e) {
        row[e] = std::ldexp(row[e], static_cast<int>((r * 5 + e / 64 * 3) % 7) - 3);
      }
      uint8_t* const to = data.data() + r * codec.data_bytes();
      uint8_t* const scale = scales.data() + r * codec.scale_bytes();
      codec.Encode(row, to, scale);
      codec.Decode(to, scale, row);
    }
  }
  const float* row(int64_t r) const { return values.data() + r * kDim; }
};

// Tokens of any lists over two pools. Tokens are added, then run in any selection.
struct Tokens {
  int64_t heads;
  int32_t ring = 128;
  bool dense = false, turned = true;
  int64_t index_stride = 0;
  Rows window, compressed;
  std::vector<AttentionList> lists = {};
  std::vector<std::vector<int32_t>> chosen = {};  // of each token, without the base
  float query_scale = 2.0f;

  std::vector<uint16_t> Query(int64_t token) const {
    return ToBf16(RandomFloats(static_cast<size_t>(heads * kDim),
                               1000 + static_cast<uint64_t>(token), query_scale));
  }
  std::vector<float> Angles(int64_t token) const {
    std::vector<float> angles(kRope);
    RopeTable(RopeOptions{.dim = kRope}).Angles(token * 17 + 5, angles.data());
    return angles;
  }
  std::vector<float> Sinks() const { return RandomFloats(static_cast<size_t>(heads), 7, 4.0f); }

  // A token that sees `near` rows from slot `first` on, and `far` compressed ones.
  void Add(int64_t base, int32_t first, int32_t near, int64_t far_base, int32_t far,
           int32_t step = 1) {
    lists.push_back({base, first, near, far_base, far});
    chosen.emplace_back();
    for (int32_t j = 0; j < far; ++j) chosen.back().push_back(dense ? j : j * step + j % step);
    index_stride = std::max<int64_t>(index_stride, far);
  }

  std::vector<float> Want(int64_t token) const {
    const AttentionList& list = lists[static_cast<size_t>(token)];
    std::vector<float> near, far;
    for (int64_t j = 0; j < list.window_count; ++j) {
      const int64_t slot = list.window_first + j;
      const float* const row = window.row(list.window_base + (ring > 0 ? slot % ring : slot));
      near.insert(near.end(), row, row + kDim);
    }
    for (const int32_t index : chosen[static_cast<size_t>(token)]) {
      const float* const row = compressed.row(list.compressed_base + index);
      far.insert(far.end(), row, row + kDim);
    }
    std::vector<float> out(static_cast<size_t>(heads * kDim)), scratch;
    kernels::Attend(FromBf16(Query(token)).data(), heads, kDim, {near.data(), list.window_count},
                    {far.data(), list.compressed_count}, 1.0f / std::sqrt(512.0f), Sinks().data(),
                    out.data(), scratch);
    if (turned) {
      for (int64_t h = 0; h < heads; ++h) {
        Rotate(out.data() + (h + 1) * kDim - kRope, Angles(token).data(), kRope, true);
      }
    }
    return out;
  }

  int64_t rows_max() const {
    int64_t most = 0;
    for (const AttentionList& list : lists) {
      most = std::max<int64_t>(most, list.window_count + list.compressed_count);
    }
    return most;
  }

  // Outputs of these tokens in one launch; with scratch memory if they are few.
  absl::StatusOr<std::vector<uint16_t>> Run(const std::vector<int64_t>& selection,
                                            bool scratch = true) const {
    const auto count = static_cast<int64_t>(selection.size());
    std::vector<uint16_t> q;
    std::vector<float> angles;
    std::vector<AttentionList> of;
    std::vector<int32_t> indices(
        std::max<size_t>(1, selection.size() * static_cast<size_t>(index_stride)),
        1 << 30);  // where nobody may look
    for (size_t i = 0; i < selection.size(); ++i) {
      const std::vector<uint16_t> query = Query(selection[i]);
      q.insert(q.end(), query.begin(), query.end());
      const std::vector<float> angle = Angles(selection[i]);
      angles.insert(angles.end(), angle.begin(), angle.end());
      of.push_back(lists[static_cast<size_t>(selection[i])]);
      std::ranges::copy(chosen[static_cast<size_t>(selection[i])],
                        indices.begin() + static_cast<int64_t>(i) * index_stride);
    }
    CAIRN_ASSIGN_OR_RETURN(const auto q_d, DeviceBuffer<uint16_t>::Of(q));
    CAIRN_ASSIGN_OR_RETURN(const auto angles_d, DeviceBuffer<float>::Of(angles));
    CAIRN_ASSIGN_OR_RETURN(const auto lists_d, DeviceBuffer<AttentionList>::Of(of));
    CAIRN_ASSIGN_OR_RETURN(const auto indices_d, DeviceBuffer<int32_t>::Of(indices));
    CAIRN_ASSIGN_OR_RETURN(const auto sink_d, DeviceBuffer<float>::Of(Sinks()));
    CAIRN_ASSIGN_OR_RETURN(const auto near_d, DeviceBuffer<uint8_t>::Of(window.data));
    CAIRN_ASSIGN_OR_RETURN(const auto near_s, DeviceBuffer<uint8_t>::Of(window.scales));
    CAIRN_ASSIGN_OR_RETURN(const auto far_d, DeviceBuffer<uint8_t>::Of(compressed.data));
    CAIRN_ASSIGN_OR_RETURN(const auto far_s, DeviceBuffer<uint8_t>::Of(compressed.scales));
    CAIRN_ASSIGN_OR_RETURN(auto out_d, DeviceBuffer<uint16_t>::Create(q.size()));
    CAIRN_ASSIGN_OR_RETURN(const auto scratch_d,
                           DeviceBuffer<uint8_t>::Create(static_cast<size_t>(
                               16 + AttentionScratchBytes(count, heads, rows_max()))));
    CAIRN_RETURN_IF_ERROR(out_d.Fill(0xff));  // NaN, should anything be left out
    CAIRN_ASSIGN_OR_RETURN(const OwnedStream stream, OwnedStream::Create());
    CAIRN_RETURN_IF_ERROR(Attend({.tokens = count,
                                  .heads = heads,
                                  .q = q_d.get(),
                                  .window = {near_d.get(), near_s.get()},
                                  .compressed = {far_d.get(), far_s.get()},
                                  .ring = ring,
                                  .lists = lists_d.get(),
                                  .indices = dense ? nullptr : indices_d.get(),
                                  .index_stride = index_stride,
                                  .sink = sink_d.get(),
                                  .angles = turned ? angles_d.get() : nullptr,
                                  .out = out_d.get(),
                                  .scratch = scratch ? scratch_d.get() : nullptr,
                                  .rows_max = rows_max()},
                                 stream.get()));
    CAIRN_RETURN_IF_ERROR(Synchronize(stream.get()));
    return out_d.Read();
  }

  std::vector<int64_t> All() const {
    std::vector<int64_t> all(lists.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
    return all;
  }
};

// Of what is wrong, the first few: which head and dim.
std::string FirstDifferences(const std::vector<float>& got, const std::vector<float>& want) {
  std::string text;
  for (size_t i = 0, shown = 0; i < want.size() && shown < 8; ++i) {
    if (std::abs(got[i] - want[i]) <= 0.02f + 0.02f * std::abs(want[i])) continue;
    absl::StrAppend(&text, "head ", i / kDim, " dim ", i % kDim, ": got ", got[i], ", want ",
                    want[i], "\n");
    ++shown;
  }
  return text;
}

void ExpectAsOnCpu(const Tokens& tokens) {
  const auto out = tokens.Run(tokens.All(), false);
  ASSERT_TRUE(out.ok()) << out.status();
  const auto shared = tokens.Run(tokens.All(), true);
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_TRUE(*shared == *out) << "differs where lists are shared; first at "
                               << std::ranges::mismatch(*shared, *out).in1 - shared->begin();
  const std::vector<float> got = FromBf16(*out);
  const size_t width = static_cast<size_t>(tokens.heads * kDim);
  for (const int64_t t : tokens.All()) {
    const std::vector<float> want = tokens.Want(t);
    const std::vector<float> mine(got.begin() + t * static_cast<int64_t>(width),
                                  got.begin() + (t + 1) * static_cast<int64_t>(width));
    // BF16 probabilities and outputs: 2^-9 each.
    EXPECT_LT(RelativeError(mine, want), 4e-3)
        << "token " << t << " of " << tokens.lists.size() << "\n"
        << FirstDifferences(mine, want);
  }
}

class AttentionTest : public DeviceTest {};

TEST_F(AttentionTest, OneRow) {
  Tokens tokens{.heads = 64, .window = Rows(128, 1), .compressed = Rows(1, 2)};
  tokens.Add(0, 0, 1, 0, 0);
  ExpectAsOnCpu(tokens);
}

TEST_F(AttentionTest, OneBlockOfRows) {
  Tokens tokens{.heads = 64, .turned = false, .window = Rows(128, 1), .compressed = Rows(1, 2)};
  tokens.Add(0, 0, 64, 0, 0);
  ExpectAsOnCpu(tokens);
}

TEST_F(AttentionTest, WindowsThatWrapAround) {
  Tokens tokens{.heads = 64, .window = Rows(3 * 128, 1), .compressed = Rows(1, 2)};
  tokens.Add(0, 0, 128, 0, 0);
  tokens.Add(128, 100, 128, 0, 0);
  tokens.Add(256, 127, 2, 0, 0);
  tokens.Add(128, 5, 77, 0, 0);
  ExpectAsOnCpu(tokens);
}

// Positions 0 to 299 of a chunk whose rows lie one after the other.
TEST_F(AttentionTest, WindowsOfAChunk) {
  Tokens tokens{.heads = 64, .ring = 0, .window = Rows(310, 1), .compressed = Rows(1, 2)};
  for (int32_t p = 0; p < 300; p += 23) {
    const int32_t seen = std::min(p + 1, 128);
    tokens.Add(10, p + 1 - seen, seen, 0, 0);
  }
  ExpectAsOnCpu(tokens);
}

TEST_F(AttentionTest, ChosenRows) {
  for (const int64_t heads : {64, 128}) {
    Tokens tokens{.heads = heads, .window = Rows(256, 1), .compressed = Rows(4000, 2)};
    tokens.Add(0, 31, 128, 1000, 512, 5);
    tokens.Add(128, 0, 128, 0, 1024, 3);
    tokens.Add(128, 0, 3, 7, 1, 3);
    ExpectAsOnCpu(tokens);
  }
}

TEST_F(AttentionTest, DenseRows) {
  Tokens tokens{.heads = 64, .dense = true, .window = Rows(256, 1), .compressed = Rows(1500, 2)};
  tokens.Add(0, 31, 128, 100, 1029);
  tokens.Add(128, 0, 128, 0, 7);
  ExpectAsOnCpu(tokens);
}

// Scores so far apart that the maximum moves late in the list, and what was summed shrinks.
TEST_F(AttentionTest, ScoresFarApart) {
  Tokens tokens{.heads = 64,
                .dense = true,
                .window = Rows(128, 1, 4.0f),
                .compressed = Rows(900, 2, 6.0f),
                .query_scale = 12.0f};
  tokens.Add(0, 9, 128, 0, 900);
  ExpectAsOnCpu(tokens);
}

TEST_F(AttentionTest, NothingToAttendToGivesZeros) {
  Tokens tokens{.heads = 64, .window = Rows(128, 1), .compressed = Rows(1, 2)};
  tokens.Add(0, 0, 0, 0, 0);
  const auto out = tokens.Run({0});
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(FromBf16(*out), std::vector<float>(out->size(), 0.0f));
}

// Every code but the NaNs, with scales of every kind: the list is one row, so the output is that
// row times one factor.
TEST_F(AttentionTest, EveryCodeAndScale) {
  Tokens tokens{.heads = 64, .turned = false, .window = Rows(4, 1), .compressed = Rows(1, 2)};
  const RowCodec codec(RowEncoding::kFp8Bf16, kDim, kRope);
  const uint8_t scales[] = {105, 120, 127, 134, 135, 160, 200, 90, 60};
  for (int64_t r = 0; r < 4; ++r) {
    uint8_t* const data = tokens.window.data.data() + r * codec.data_bytes();
    uint8_t* const scale = tokens.window.scales.data() + r * codec.scale_bytes();
    for (int64_t e = 0; e < kDim - kRope; ++e) {
      const auto code = static_cast<uint8_t>(e * 3 + r * 64);
      data[e] = code % 128 == 127 ? 0 : code;
    }
    for (int64_t g = 0; g < 7; ++g) scale[g] = scales[(g + 2 * r) % 9];
    codec.Decode(data, scale, tokens.window.values.data() + r * kDim);
    tokens.Add(r, 0, 1, 0, 0);
  }
  tokens.query_scale = 0;  // else the largest values would leave nothing of the scores
  const auto out = tokens.Run(tokens.All());
  ASSERT_TRUE(out.ok()) << out.status();
  const std::vector<float> got = FromBf16(*out);
  for (const int64_t t : tokens.All()) {
    const std::vector<float> want = tokens.Want(t);
    for (size_t i = 0; i < want.size(); ++i) {
      const float mine = got[static_cast<size_t>(t) * want.size() + i];
      ASSERT_NEAR(mine, want[i], std::abs(want[i]) * 0x1p-7f)
          << "row " << t << " dim " << i % kDim << " code "
          << int{tokens.window.data[static_cast<size_t>(t) * 576 + i % kDim]};
    }
  }
}

// A token's bits are the same alone and among others, wherever it is and whoever shares its block.
TEST_F(AttentionTest, CompanyChangesNoBit) {
  for (const int64_t heads : {64, 128}) {
    Tokens tokens{.heads = heads, .window = Rows(5 * 128, 1), .compressed = Rows(3400, 2)};
    for (int32_t t = 0; t < 300; ++t) {
      tokens.Add(t % 5 * 128, t * 7 % 128, 1 + t * 13 % 128, t * 3, t * 29 % 600, 1 + t % 4);
    }
    const auto together = tokens.Run(tokens.All());
    ASSERT_TRUE(together.ok()) << together.status();
    const int64_t width = heads * kDim;
    for (const int64_t t : {0, 1, 2, 63, 131, 132, 133, 264, 299}) {
      const auto alone = tokens.Run({t});
      ASSERT_TRUE(alone.ok()) << alone.status();
      EXPECT_TRUE(std::equal(alone->begin(), alone->end(), together->begin() + t * width))
          << "token " << t << ", heads " << heads;
    }
    const auto few = tokens.Run({299, 17, 5, 131, 42});
    ASSERT_TRUE(few.ok()) << few.status();
    EXPECT_TRUE(std::equal(few->begin() + 3 * width, few->begin() + 4 * width,
                           together->begin() + 131 * width));
    EXPECT_EQ(tokens.Run(tokens.All()).value(), *together) << "a second run";
  }
}

// A ring and a plain run of the same rows are the same list.
TEST_F(AttentionTest, RingOrChunkIsTheSameToTheBit) {
  Tokens ring{.heads = 64, .window = Rows(128, 1), .compressed = Rows(600, 2)};
  ring.Add(0, 50, 128, 0, 300, 2);
  Tokens plain = ring;
  plain.ring = 0;
  plain.lists[0].window_first = 0;
  for (int64_t j = 0; j < 128; ++j) {
    const int64_t from = (50 + j) % 128;
    std::copy_n(ring.window.data.begin() + from * 576, 576, plain.window.data.begin() + j * 576);
    std::copy_n(ring.window.scales.begin() + from * 8, 8, plain.window.scales.begin() + j * 8);
  }
  EXPECT_EQ(ring.Run({0}).value(), plain.Run({0}).value());
}

TEST_F(AttentionTest, ScratchIsForFewTokens) {
  EXPECT_EQ(AttentionScratchBytes(1, 128, 640), 2 * 10 * 64 * 64 * 4);
  EXPECT_EQ(AttentionScratchBytes(1, 64, 0), 64 * 64 * 4);
  EXPECT_EQ(AttentionScratchBytes(MultiprocessorCount(), 64, 640), 0);
}

TEST(AttentionArgumentTest, BadShapesAreRefused) {
  uint16_t value alignas(16) = 0;
  uint8_t rows alignas(16)[16] = {};
  AttentionList list alignas(16) = {};
  const float sink alignas(16) = 0;
  const AttentionBatch good{.tokens = 1,
                            .heads = 64,
                            .q = &value,
                            .window = {rows, rows},
                            .lists = &list,
                            .sink = &sink,
                            .out = &value};
  const auto refused = [](AttentionBatch batch) {
    return Attend(batch, nullptr).code() == absl::StatusCode::kInvalidArgument;
  };
  AttentionBatch batch = good;
  batch.tokens = 0;
  EXPECT_TRUE(Attend(batch, nullptr).ok());
  for (const int64_t heads : {0, 32, 65}) {
    batch = good, batch.heads = heads;
    EXPECT_TRUE(refused(batch)) << heads;
  }
  batch = good, batch.q = nullptr;
  EXPECT_TRUE(refused(batch));
  batch = good, batch.window.data = rows + 8;
  EXPECT_TRUE(refused(batch));
  batch = good, batch.compressed.data = rows;
  EXPECT_TRUE(refused(batch)) << "no scales";
  batch = good, batch.sink = nullptr;
  EXPECT_TRUE(refused(batch));
  batch = good, batch.ring = -1;
  EXPECT_TRUE(refused(batch));
}

}  // namespace
}  // namespace cairn::kernels::cuda
