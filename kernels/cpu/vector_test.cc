// Vector operations, rotary positions, attention and top-k: against plain double-precision
// definitions for their values, and against themselves in other company for their bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/row_loops.h"
#include "kernels/cpu/top_k.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::kernels {
namespace {

std::vector<float> RandomVector(int64_t n, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = normal(random);
  return x;
}

TEST(Exp, WithinTwoUlpsAndMonotoneAtTheEnds) {
  for (int i = -86000; i <= 86000; i += 7) {
    const float x = static_cast<float>(i) / 1000.0f;
    const double truth = std::exp(static_cast<double>(x));
    EXPECT_NEAR(Exp(x) / truth, 1.0, 2.4e-7) << x;
  }
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-100.0f), 0.0f);
  EXPECT_EQ(Exp(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_TRUE(std::isfinite(Exp(1000.0f)));
}

TEST(Exp, SameBitsInEveryLane) {
  const std::vector<float> x = RandomVector(8, 1, 20.0f);
  float y[8];
  _mm256_storeu_ps(y, ExpVector(_mm256_loadu_ps(x.data())));
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(y[i], Exp(x[i]));
}

TEST(Dot, FollowsTheWrittenOrder) {
  for (const int64_t n : {1, 5, 8, 20, 64, 512}) {
    const std::vector<float> a = RandomVector(n, 2);
    const std::vector<float> b = RandomVector(n, 3);
    float lane[8] = {};
    for (int64_t i = 0; i < n; ++i) {
      const size_t s = static_cast<size_t>(i);
      lane[i % 8] = std::fma(a[s], b[s], lane[i % 8]);
    }
    const float expected =
        ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    EXPECT_EQ(Dot(a.data(), b.data(), n), expected) << n;
  }
}

TEST(RmsNorm, MatchesDefinition) {
  const std::vector<float> x = RandomVector(48, 4, 3.0f);
  const std::vector<float> w = RandomVector(48, 5);
  double mean = 0;
  for (const float v : x) mean += static_cast<double>(v) * static_cast<double>(v) / 48.0;
  std::vector<float> y(48);
  RmsNorm(x.data(), w.data(), 48, 1e-6f, y.data());
  for (size_t i = 0; i < 48; ++i) EXPECT_NEAR(y[i], x[i] / std::sqrt(mean + 1e-6) * w[i], 1e-5);
}

TEST(SwiGlu, ClampsTheGateAboveOnlyAndTheUpOnBothSides) {
  const std::vector<float> gate = {20.0f, -20.0f, 1.0f, 0.5f, -3.0f, 10.0f, 12.0f, 0.0f, 2.0f};
  const std::vector<float> up = {20.0f, -20.0f, -11.0f, 11.0f, 3.0f, 1.0f, -1.0f, 5.0f, 9.9f};
  std::vector<float> y(gate.size());
  SwiGlu(gate.data(), up.data(), static_cast<int64_t>(gate.size()), 10.0f, 0.5f, y.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double a = std::min<double>(gate[i], 10.0);
    const double b = std::clamp<double>(up[i], -10.0, 10.0);
    EXPECT_NEAR(y[i], a / (1.0 + std::exp(-a)) * b * 0.5, 1e-5) << i;
  }
}

TEST(Hadamard, IsSylvesterOrderedAndItsOwnInverse) {
  std::vector<float> x(64, 0.0f);
  x[5] = 1.0f;
  Hadamard(x.data(), 64);
  for (unsigned i = 0; i < 64; ++i) {
    const float sign = std::popcount(i & 5u) % 2 == 0 ? 1.0f : -1.0f;
    EXPECT_FLOAT_EQ(x[i], sign / 8.0f) << i;
  }
  std::vector<float> y = RandomVector(128, 6);
  const std::vector<float> before = y;
  Hadamard(y.data(), 128);
  Hadamard(y.data(), 128);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], before[i], 1e-5);
}

TEST(SoftmaxPool, IsPerChannelAndAnEmptyCandidateChangesNothing) {
  const int64_t n = 20;
  std::vector<std::vector<float>> kv;
  std::vector<std::vector<float>> score;
  std::vector<const float*> kv_rows;
  std::vector<const float*> score_rows;
  for (uint32_t t = 0; t < 4; ++t) {
    kv.push_back(RandomVector(n, 10 + t));
    score.push_back(RandomVector(n, 20 + t, 3.0f));
  }
  for (size_t t = 0; t < 4; ++t) {
    kv_rows.push_back(kv[t].data());
    score_rows.push_back(score[t].data());
  }
  std::vector<float> y(n);
  SoftmaxPool(kv_rows.data(), score_rows.data(), 4, n, y.data());
  for (size_t e = 0; e < n; ++e) {
    double denominator = 0;
    double sum = 0;
    for (size_t t = 0; t < 4; ++t) {
      denominator += std::exp(static_cast<double>(score[t][e]));
      sum += std::exp(static_cast<double>(score[t][e])) * kv[t][e];
    }
    EXPECT_NEAR(y[e], sum / denominator, 1e-5);
  }
  // The reference's initial state: kv 0, score -inf.
  const std::vector<float> zero(n, 0.0f);
  const std::vector<float> never(n, -std::numeric_limits<float>::infinity());
  kv_rows.insert(kv_rows.begin(), zero.data());
  score_rows.insert(score_rows.begin(), never.data());
  std::vector<float> with_empty(n);
  SoftmaxPool(kv_rows.data(), score_rows.data(), 5, n, with_empty.data());
  EXPECT_EQ(y, with_empty);
}

TEST(Rope, FlashYarnTableHasTheReportsRamp) {
  const RopeTable table({.dim = 64, .base = 160000.0, .original_len = 65536, .factor = 16.0});
  const auto plain = [](int i) { return std::pow(160000.0, -2.0 * i / 64.0); };
  EXPECT_NEAR(table.frequencies()[15] / plain(15), 1.0, 1e-6);         // low = 15
  EXPECT_NEAR(table.frequencies()[25] / (plain(25) / 16), 1.0, 1e-6);  // high = 25
  EXPECT_NEAR(table.frequencies()[20] / (plain(20) * (0.5 + 0.5 / 16)), 1.0, 1e-6);
}

TEST(Rope, RotatesInterleavedPairsAndBack) {
  const RopeTable table({.dim = 8, .base = 10000.0});
  std::vector<float> angles(8);
  table.Angles(1000, angles.data());
  std::vector<float> x = RandomVector(8, 7);
  const std::vector<float> before = x;
  Rotate(x.data(), angles.data(), 8, false);
  for (size_t i = 0; i < 4; ++i) {
    const double a = 1000.0 * std::pow(10000.0, -2.0 * static_cast<double>(i) / 8.0);
    EXPECT_NEAR(x[2 * i], before[2 * i] * std::cos(a) - before[2 * i + 1] * std::sin(a), 1e-4);
    EXPECT_NEAR(x[2 * i + 1], before[2 * i] * std::sin(a) + before[2 * i + 1] * std::cos(a), 1e-4);
  }
  Rotate(x.data(), angles.data(), 8, true);
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(x[i], before[i], 1e-6);
}

TEST(Rope, RoundsEachProductBeforeAddingToTheBit) {
  for (const int64_t dim : {2, 8, 22, 64}) {
    const RopeTable table({.dim = dim, .base = 10000.0});
    const size_t n = static_cast<size_t>(dim);
    std::vector<float> angles(n);
    for (const int64_t position : {1, 129, 4095}) {
      for (const bool inverse : {false, true}) {
        table.Angles(position, angles.data());
        std::vector<float> x = RandomVector(dim + 1, static_cast<uint32_t>(position));
        const std::vector<float> before = x;
        Rotate(x.data(), angles.data(), dim, inverse);
        for (size_t i = 0; i < n; i += 2) {
          const float sine = inverse ? -angles[i + 1] : angles[i + 1];
          // volatile: no compiler may fuse these.
          const volatile float ac = before[i] * angles[i];
          const volatile float bs = before[i + 1] * sine;
          const volatile float as = before[i] * sine;
          const volatile float bc = before[i + 1] * angles[i];
          ASSERT_EQ(x[i], ac - bs) << dim << ' ' << position << ' ' << i;
          ASSERT_EQ(x[i + 1], as + bc) << dim << ' ' << position << ' ' << i;
        }
        ASSERT_EQ(x[n], before[n]) << "nothing beyond dim is touched";
      }
    }
  }
}

struct AttendCase {
  int64_t heads, dim, near, far;
};

class AttendShapes : public testing::TestWithParam<AttendCase> {};

TEST_P(AttendShapes, MatchesDefinitionAndHeadsAreIndependent) {
  const auto [heads, dim, near, far] = GetParam();
  const std::vector<float> q = RandomVector(heads * dim, 31);
  const std::vector<float> rows = RandomVector((near + far) * dim, 32);
  const std::vector<float> sink = RandomVector(heads, 33);
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim)));
  std::vector<float> out(q.size());
  std::vector<float> scratch;
  Attend(q.data(), heads, dim, {rows.data(), near}, {rows.data() + near * dim, far}, scale,
         sink.data(), out.data(), scratch);
  for (int64_t h = 0; h < heads; ++h) {
    std::vector<double> p(static_cast<size_t>(near + far));
    double denominator = std::exp(static_cast<double>(sink[static_cast<size_t>(h)]));
    for (int64_t j = 0; j < near + far; ++j) {
      double z = 0;
      for (int64_t e = 0; e < dim; ++e) {
        z += static_cast<double>(q[static_cast<size_t>(h * dim + e)]) *
             rows[static_cast<size_t>(j * dim + e)];
      }
      denominator += p[static_cast<size_t>(j)] = std::exp(z * scale);
    }
    for (int64_t e = 0; e < dim; ++e) {
      double sum = 0;
      for (int64_t j = 0; j < near + far; ++j) {
        sum += p[static_cast<size_t>(j)] * rows[static_cast<size_t>(j * dim + e)];
      }
      ASSERT_NEAR(out[static_cast<size_t>(h * dim + e)], sum / denominator, 2e-5);
    }
    std::vector<float> alone(static_cast<size_t>(dim));
    Attend(q.data() + h * dim, 1, dim, {rows.data(), near}, {rows.data() + near * dim, far}, scale,
           sink.data() + h, alone.data(), scratch);
    EXPECT_EQ(std::memcmp(alone.data(), out.data() + h * dim, alone.size() * sizeof(float)), 0)
        << h;
  }
}

#ifdef __SANITIZE_ADDRESS__
// The loops are compiled so that the sanitizer leaves their registers alone (CMakeLists.txt).
TEST(Attend, RowsThatAreTooShortAreStillSeenByTheSanitizer) {
  const std::vector<float> q(4 * 64, 1.0f), rows(16 * 64 - 4, 1.0f), sink(4);
  std::vector<float> out(4 * 64), scratch;
  const RowSegment short_of_four{rows.data(), 16};
  for (const RowLoops& loops : {Avx2RowLoops(), ChosenRowLoops()}) {
    EXPECT_DEATH(
        Attend(loops, q.data(), 4, 64, short_of_four, {}, 1.0f, sink.data(), out.data(), scratch),
        "AddressSanitizer");
  }
}
#endif

INSTANTIATE_TEST_SUITE_P(Shapes, AttendShapes,
                         testing::Values(AttendCase{1, 8, 1, 0}, AttendCase{2, 128, 128, 5},
                                         AttendCase{4, 64, 37, 16}, AttendCase{15, 512, 128, 33}));

TEST(TopK, EqualsAStableSortAndTiesGoToTheLowerIndex) {
  std::mt19937 random(41);
  for (int round = 0; round < 300; ++round) {
    const int64_t n = 1 + static_cast<int64_t>(random() % (round % 2 == 0 ? 400 : 5000));
    const int64_t k = static_cast<int64_t>(random() % 420);
    std::vector<float> scores(static_cast<size_t>(n));
    // Few distinct values, so that ties are everywhere; both zeros.
    for (float& v : scores)
      v = static_cast<float>(static_cast<int>(random() % 9) - 4) *
          (random() % 2 == 0 ? 0.5f : -0.5f);
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
    });
    order.resize(static_cast<size_t>(std::min(n, k)));
    std::sort(order.begin(), order.end());
    std::vector<int32_t> got;
    TopK(scores.data(), n, k, got);
    ASSERT_EQ(got, order) << n << ' ' << k;
  }
}

}  // namespace
}  // namespace cairn::kernels
