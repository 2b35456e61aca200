// The indexer on the GPU against the CPU's. What is rounded (queries, keys) and what is scored in
// F32 has the CPU's bits; where the tensor cores' sums are exact, the scores have the bits of the
// order that indexer.h gives; where they are not, a bound, and how often a row is chosen that is
// not the CPU's is printed.
#include "kernels/cuda/indexer.h"

#include <bit>
#include <cstdio>
#include <cstring>
#include <set>

#include "kernels/cpu/top_k.h"
#include "kernels/cuda/indexer_test_data.h"

namespace cairn::kernels::cuda {
namespace {

class IndexerTest : public DeviceTest {};

// Says where the first differences are.
::testing::AssertionResult SameBits(std::span<const float> got, std::span<const float> want) {
  std::string text;
  int wrong = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::bit_cast<uint32_t>(got[i]) == std::bit_cast<uint32_t>(want[i])) continue;
    if (++wrong <= 8) absl::StrAppend(&text, " [", i, "] ", got[i], " want ", want[i], ";");
  }
  if (wrong == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << wrong << " of " << want.size() << " differ:" << text;
}

// Vectors whose transform is on the FP4 grid with one scale, a different one for each vector. 5.5
// is rounded to 6 and keeps the scale from the next power of two.
std::vector<float> GridVectors(int64_t count, uint64_t seed) {
  SeededRandom random(seed);
  std::vector<float> values(static_cast<size_t>(count * kIndexDim));
  for (int64_t i = 0; i < count * kIndexDim; ++i) {
    const uint64_t bits = random.Next();
    const float scale = std::exp2f(static_cast<float>(i / kIndexDim % 9) - 4.0f);
    const float v = i % 32 == 5 ? 5.5f : E2m1ToF32(static_cast<uint8_t>(bits >> 20 & 7));
    values[static_cast<size_t>(i)] = (bits >> 40 & 1) != 0 ? -v * scale : v * scale;
  }
  return values;
}

// Tokens whose prepared heads are exactly on such a grid.
Tokens GridTokens(int64_t count, uint64_t seed) {
  Tokens tokens = RandomTokens(count, seed);
  tokens.q = GridVectors(count * kIndexHeads, seed);
  for (int64_t i = 0; i < count * kIndexHeads; ++i) {
    Hadamard(tokens.q.data() + i * kIndexDim, kIndexDim);
  }
  for (size_t i = 0; i < tokens.cos_sin.size(); ++i) tokens.cos_sin[i] = i % 2 == 0 ? 1.0f : 0.0f;
  return tokens;
}

KeyPool GridKeys(int64_t rows, uint64_t seed) {
  const std::vector<float> values = GridVectors(rows, seed);
  KeyPool pool;
  for (int64_t j = 0; j < rows; ++j) pool.Add(values.data() + j * kIndexDim);
  return pool;
}

// Scores with exact products, heads in indexer.h's order.
std::vector<float> ScoresInGpuOrder(const Tokens& prepared, int64_t t, const KeyPool& pool,
                                    int64_t n) {
  std::vector<float> scores;
  std::vector<float> key(kIndexDim);
  for (int64_t j = 0; j < n; ++j) {
    pool.Decode(j, key.data());
    float part[4] = {};
    for (int64_t h = 0; h < kIndexHeads; ++h) {
      double product = 0;
      for (int64_t d = 0; d < kIndexDim; ++d) {
        product += static_cast<double>(
                       prepared.q[static_cast<size_t>((t * kIndexHeads + h) * kIndexDim + d)]) *
                   static_cast<double>(key[static_cast<size_t>(d)]);
      }
      float& sum = part[h % 8 / 2];
      sum = std::fma(prepared.weights[static_cast<size_t>(t * kIndexHeads + h)],
                     std::max(static_cast<float>(product), 0.0f), sum);
    }
    scores.push_back((part[0] + part[1]) + (part[2] + part[3]));
  }
  return scores;
}

TEST_F(IndexerTest, KeysAreTheCpusBytes) {
  constexpr int64_t kRows = 203;
  std::vector<float> keys = RandomFloats(kRows * kIndexDim, 5, 6.0f);
  for (int64_t i = 0; i < kIndexDim; ++i) {
    keys[static_cast<size_t>(i)] = 0.0f;
    keys[static_cast<size_t>(kIndexDim + i)] *= 1e-38f;
    keys[static_cast<size_t>(2 * kIndexDim + i)] *= 1e20f;
    keys[static_cast<size_t>(3 * kIndexDim + i)] = i == 0 ? -1.0f : -0.0f;
  }
  for (const bool bf16 : {false, true}) {
    if (bf16) keys = FromBf16(ToBf16(keys));
    KeyPool want;
    for (int64_t j = 0; j < kRows; ++j) {
      std::vector<float> key(keys.begin() + j * kIndexDim, keys.begin() + (j + 1) * kIndexDim);
      Hadamard(key.data(), kIndexDim);
      want.Add(key.data());
    }
    const auto stream = OwnedStream::Create().value();
    const auto from = DeviceBuffer<float>::Of(keys).value();
    const auto from16 = DeviceBuffer<uint16_t>::Of(ToBf16(keys)).value();
    auto data = DeviceBuffer<uint8_t>::Create(kRows * kIndexRowDataBytes).value();
    auto scales = DeviceBuffer<uint8_t>::Create(kRows * kIndexRowScaleBytes).value();
    ASSERT_TRUE(data.Fill(0xff).ok() && scales.Fill(0xff).ok() && Synchronize(nullptr).ok());
    // To slots in another order than the rows.
    std::vector<IndexKeySlot> slots;
    const auto slot = [](int64_t j) { return j * 37 % kRows; };
    for (int64_t j = 0; j < kRows; ++j) {
      slots.push_back({data.get() + slot(j) * kIndexRowDataBytes,
                       scales.get() + slot(j) * kIndexRowScaleBytes});
    }
    const auto device_slots = DeviceBuffer<IndexKeySlot>::Of(slots).value();
    const IndexValues values = bf16 ? IndexValues(from16.get()) : IndexValues(from.get());
    ASSERT_TRUE(WriteIndexKeys(values, kRows, device_slots.get(), stream.get()).ok());
    ASSERT_EQ(Synchronize(stream.get()), absl::OkStatus());
    const std::vector<uint8_t> got_data = data.Read().value();
    const std::vector<uint8_t> got_scales = scales.Read().value();
    for (int64_t j = 0; j < kRows; ++j) {
      EXPECT_EQ(std::memcmp(got_data.data() + slot(j) * kIndexRowDataBytes,
                            want.data.data() + j * kIndexRowDataBytes, kIndexRowDataBytes),
                0)
          << "codes of row " << j << ", bf16 " << bf16;
      EXPECT_EQ(std::memcmp(got_scales.data() + slot(j) * kIndexRowScaleBytes,
                            want.scales.data() + j * kIndexRowScaleBytes, kIndexRowScaleBytes),
                0)
          << "scales of row " << j << ", bf16 " << bf16;
    }
  }
}

TEST_F(IndexerTest, ExactProductsAreSummedInTheStatedOrder) {
  constexpr int64_t kTokens = 3, kRows = 300;
  const Tokens tokens = GridTokens(kTokens, 11);
  const std::vector<KeyPool> pools = {GridKeys(kRows, 12)};
  const auto got = ScoreOnGpu(tokens, pools, {{0, 0, kTokens}}, {kRows, kRows, kRows}, kRows);
  ASSERT_EQ(got.status(), absl::OkStatus());
  const Tokens prepared = PreparedOnCpu(tokens);
  for (int64_t t = 0; t < kTokens; ++t) {
    EXPECT_TRUE(SameBits(got->Row(t, kRows), ScoresInGpuOrder(prepared, t, pools[0], kRows)))
        << "token " << t;
  }
}

// One head, one dim: says which product goes wrong.
TEST_F(IndexerTest, EveryDimAndHeadIsMultiplied) {
  Tokens tokens = GridTokens(1, 21);
  tokens.weights.assign(kIndexHeads, 0.0f);
  for (int64_t h = 0; h < kIndexHeads; ++h) {
    tokens.weights[static_cast<size_t>(h)] = static_cast<float>(h + 1);
  }
  KeyPool pool;
  for (int64_t d = 0; d < kIndexDim; ++d) {
    std::vector<float> key(kIndexDim, 0.0f);
    key[static_cast<size_t>(d)] = d % 2 == 0 ? 4.0f : -1.5f;
    pool.Add(key.data());
    // A group of zeros has the smallest scale, which must not make the row wide.
    for (int64_t g = 0; g < 4; ++g) {
      pool.scales[static_cast<size_t>(4 * d + g)] =
          pool.scales[static_cast<size_t>(4 * d + d / 32)];
    }
  }
  const auto got = ScoreOnGpu(tokens, {pool}, {{0, 0, 1}}, {kIndexDim}, kIndexDim);
  ASSERT_EQ(got.status(), absl::OkStatus());
  EXPECT_TRUE(SameBits(got->Row(0, kIndexDim),
                       ScoresInGpuOrder(PreparedOnCpu(tokens), 0, pool, kIndexDim)));
}

TEST_F(IndexerTest, RandomDataIsWithinTheTensorCoresPrecision) {
  constexpr int64_t kTokens = 4, kRows = 8192, kTopK = 512;
  const Tokens tokens = RandomTokens(kTokens, 31);
  const std::vector<KeyPool> pools = {RandomKeys(kRows, 32)};
  const std::vector<int32_t> counts(kTokens, kRows);
  const auto got = ScoreOnGpu(tokens, pools, {{0, 0, kTokens}}, counts, kRows, true);
  ASSERT_EQ(got.status(), absl::OkStatus());
  const Tokens prepared = PreparedOnCpu(tokens);
  for (int64_t t = 0; t < kTokens; ++t) {
    const std::vector<float> want = ScoresOnCpu(prepared, t, pools[0], kRows);
    const double error = RelativeError(got->Row(t, kRows), want);
    float largest = 0;
    for (int64_t j = 0; j < kRows; ++j) {
      largest = std::max(largest, std::abs(got->Row(t, kRows)[static_cast<size_t>(j)] -
                                           want[static_cast<size_t>(j)]));
    }
    std::vector<int32_t> ours, cpus;
    kernels::TopK(got->Row(t, kRows).data(), kRows, kTopK, ours);
    kernels::TopK(want.data(), kRows, kTopK, cpus);
    const std::set<int32_t> chosen(cpus.begin(), cpus.end());
    int64_t others = 0;
    for (const int32_t j : ours) others += chosen.contains(j) ? 0 : 1;
    std::printf("token %d: relative error %.2e, largest %.2e, %d of %d rows chosen otherwise\n",
                static_cast<int>(t), error, static_cast<double>(largest), static_cast<int>(others),
                static_cast<int>(kTopK));
    EXPECT_LT(error, 1e-3);
    EXPECT_LT(others, kTopK / 64);
  }
}

// Groups of dims 2^15 and more apart, in keys: those rows have the CPU's bits, the others what they
// have without such rows beside them.
TEST_F(IndexerTest, WideRowsAreScoredAsOnTheCpu) {
  constexpr int64_t kTokens = 2, kRows = 700;
  const Tokens tokens = RandomTokens(kTokens, 41);
  const std::vector<KeyPool> plain = {RandomKeys(kRows, 42)};
  std::vector<KeyPool> pools = plain;
  const auto is_wide = [](int64_t j) { return j % 50 == 3 || j == kRows - 1; };
  for (int64_t j = 0; j < kRows; ++j) {
    uint8_t* const scales = pools[0].scales.data() + j * kIndexRowScaleBytes;
    if (is_wide(j)) scales[j % 4] = static_cast<uint8_t>(scales[(j + 1) % 4] + 15 + j % 9);
  }
  const std::vector<int32_t> counts = {kRows, kRows - 17};
  const auto got = ScoreOnGpu(tokens, pools, {{0, 0, kTokens}}, counts, kRows);
  const auto beside = ScoreOnGpu(tokens, plain, {{0, 0, kTokens}}, counts, kRows);
  ASSERT_EQ(got.status(), absl::OkStatus());
  ASSERT_EQ(beside.status(), absl::OkStatus());
  const Tokens prepared = PreparedOnCpu(tokens);
  for (int64_t t = 0; t < kTokens; ++t) {
    const int64_t n = counts[static_cast<size_t>(t)];
    std::vector<float> want = ScoresOnCpu(prepared, t, pools[0], n);
    for (int64_t j = 0; j < n; ++j) {
      if (!is_wide(j)) want[static_cast<size_t>(j)] = beside->Row(t, n)[static_cast<size_t>(j)];
    }
    EXPECT_TRUE(SameBits(got->Row(t, n), want)) << "token " << t;
  }
}

// The largest spread that codes still hold, and zeros whose scale is far below.
TEST_F(IndexerTest, SpreadOfFourteenIsExact) {
  constexpr int64_t kRows = 130;
  Tokens tokens = GridTokens(1, 45);
  KeyPool pool = GridKeys(kRows, 46);
  for (int64_t j = 0; j < kRows; ++j) {
    // One group of codes far below the others, which are zeros: the products stay exact.
    uint8_t* const data = pool.data.data() + j * kIndexRowDataBytes;
    uint8_t* const scales = pool.scales.data() + j * kIndexRowScaleBytes;
    const int64_t kept = j % 4;
    for (int64_t g = 0; g < 4; ++g) {
      if (g != kept) std::memset(data + 16 * g, 0, 16);
    }
    scales[(kept + 1) % 4] = static_cast<uint8_t>(scales[kept] + j % 15);
    scales[(kept + 2) % 4] = 1;
  }
  const auto got = ScoreOnGpu(tokens, {pool}, {{0, 0, 1}}, {kRows}, kRows);
  ASSERT_EQ(got.status(), absl::OkStatus());
  EXPECT_TRUE(
      SameBits(got->Row(0, kRows), ScoresInGpuOrder(PreparedOnCpu(tokens), 0, pool, kRows)));
}

// A token with one wide head: all its scores have the CPU's bits, and its neighbours' do not
// change.
TEST_F(IndexerTest, WideTokensAreScoredAsOnTheCpu) {
  constexpr int64_t kTokens = 3, kRows = 400;
  const std::vector<KeyPool> pools = {RandomKeys(kRows, 52)};
  const std::vector<int32_t> counts(kTokens, kRows);
  Tokens tokens = RandomTokens(kTokens, 51);
  const auto beside = ScoreOnGpu(tokens, pools, {{0, 0, kTokens}}, counts, kRows);
  float* const head = tokens.q.data() + (kIndexHeads + 40) * kIndexDim;
  for (int64_t d = 0; d < 32; ++d) head[d] *= 0x1p-19f;
  Hadamard(head, kIndexDim);
  for (int64_t i = 0; i < kIndexRopeDim; ++i) {
    tokens.cos_sin[static_cast<size_t>(kIndexRopeDim + i)] = i % 2 == 0 ? 1.0f : 0.0f;
  }
  const auto got = ScoreOnGpu(tokens, pools, {{0, 0, kTokens}}, counts, kRows);
  ASSERT_EQ(got.status(), absl::OkStatus());
  EXPECT_TRUE(SameBits(got->Row(0, kRows), beside->Row(0, kRows)));
  EXPECT_TRUE(SameBits(got->Row(1, kRows), ScoresOnCpu(PreparedOnCpu(tokens), 1, pools[0], kRows)));
  EXPECT_TRUE(SameBits(got->Row(2, kRows), beside->Row(2, kRows)));
}

// Odd counts and strides: what is past a token's rows is not written, and a score does not depend
// on how many rows or tokens come along.
TEST_F(IndexerTest, ScoresDependOnNothingBesideThem) {
  constexpr int64_t kTokens = 16, kRows = 1100;
  const Tokens tokens = RandomTokens(kTokens, 61);
  std::vector<KeyPool> pools = {RandomKeys(kRows, 62), RandomKeys(kRows, 63)};
  const std::vector<int32_t> all(kTokens, kRows);
  const auto want = ScoreOnGpu(tokens, pools, {{0, 0, kTokens}}, all, kRows);
  ASSERT_EQ(want.status(), absl::OkStatus());
  const std::vector<int32_t> odd = {1,   63,  64, 65,  255, 256, 257, 0,
                                    300, 511, 17, 640, 641, 999, 3,   1099};
  for (const bool alone : {false, true}) {
    std::vector<GroupOf> groups;
    if (alone) {
      for (int64_t t = kTokens - 1; t >= 0; --t) groups.push_back({0, t, 1});
    } else {
      groups = {{0, 0, 5}, {0, 5, 11}};
    }
    const int64_t stride = 1101;
    const auto got = ScoreOnGpu(tokens, pools, groups, odd, stride);
    ASSERT_EQ(got.status(), absl::OkStatus());
    for (int64_t t = 0; t < kTokens; ++t) {
      const int64_t n = odd[static_cast<size_t>(t)];
      EXPECT_TRUE(SameBits(got->Row(t, n), want->Row(t, n))) << "token " << t;
      for (int64_t j = n; j < stride; ++j) {
        ASSERT_TRUE(std::isnan(got->Row(t, stride)[static_cast<size_t>(j)])) << t << ", " << j;
      }
    }
  }
  // Many groups, other pools between them.
  std::vector<GroupOf> groups;
  for (int64_t t = 0; t < kTokens; ++t) groups.push_back({t % 2, t, 1});
  const auto mixed = ScoreOnGpu(tokens, pools, groups, all, kRows);
  ASSERT_EQ(mixed.status(), absl::OkStatus());
  for (int64_t t = 0; t < kTokens; t += 2) {
    EXPECT_TRUE(SameBits(mixed->Row(t, kRows), want->Row(t, kRows))) << "token " << t;
  }
}

// More groups than a warp looks at together, some of them empty.
TEST_F(IndexerTest, ManyGroupsShareTheBlocks) {
  constexpr int64_t kTokens = 150;
  const Tokens tokens = RandomTokens(kTokens, 71);
  const std::vector<KeyPool> pools = {RandomKeys(900, 72)};
  std::vector<GroupOf> groups, together;
  std::vector<int32_t> counts;
  for (int64_t t = 0; t < kTokens; ++t) {
    groups.push_back({0, t, 1});
    counts.push_back(static_cast<int32_t>(t % 7 == 0 ? 0 : t * 6));
    if (t % 10 == 0) together.push_back({0, t, 10});
  }
  const auto got = ScoreOnGpu(tokens, pools, groups, counts, 900);
  const auto want = ScoreOnGpu(tokens, pools, together, counts, 900);
  ASSERT_EQ(got.status(), absl::OkStatus());
  ASSERT_EQ(want.status(), absl::OkStatus());
  EXPECT_TRUE(SameBits(got->scores, want->scores));
  const std::vector<float> cpu = ScoresOnCpu(PreparedOnCpu(tokens), 149, pools[0], 894);
  EXPECT_LT(RelativeError(got->Row(149, 894), cpu), 1e-3);
}

TEST(IndexerShapesTest, BadShapesAreRefused) {
  const float value = 0;
  const uint16_t half = 0;
  EXPECT_EQ(PrepareIndexQueries({-1, &value, &value, &value}, nullptr, nullptr).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PrepareIndexQueries({1, &value, &half, &value}, nullptr, nullptr).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteIndexKeys(&value, -1, nullptr, nullptr).code(),
            absl::StatusCode::kInvalidArgument);
  for (const int64_t tokens : {int64_t{0}, kIndexGroupTokensMax + 1}) {
    EXPECT_EQ(ScoreIndexRows({nullptr, nullptr, 1, tokens, nullptr, nullptr, 1}, nullptr).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(ScoreIndexRows({nullptr, nullptr, -1, 1, nullptr, nullptr, 1}, nullptr).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PrepareIndexQueries({0, &value, &value, &value}, nullptr, nullptr), absl::OkStatus());
}

}  // namespace
}  // namespace cairn::kernels::cuda
