// The sums over streams and heads against the orders written in streams.h, to the bit.
#include "kernels/cpu/streams.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace cairn::kernels {
namespace {

std::vector<float> RandomVector(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = normal(random);
  return x;
}

TEST(Streams, CollapseAndMergeFollowTheWrittenOrder) {
  for (const int64_t hc : {1, 2, 4, 5, 16}) {
    for (const int64_t dim : {1, 7, 8, 64, 69}) {
      const std::vector<float> s = RandomVector(hc * dim, 1);
      const std::vector<float> f = RandomVector(dim, 2);
      const std::vector<float> post = RandomVector(hc, 3);
      const std::vector<float> comb = RandomVector(hc * hc, 4);
      std::vector<float> x(f.size());
      CollapseStreams(post.data(), s.data(), hc, dim, x.data());
      std::vector<float> merged = s;
      MergeStreams(f.data(), post.data(), comb.data(), hc, dim, merged.data());
      for (int64_t i = 0; i < dim; ++i) {
        const auto at = [&](const std::vector<float>& v, int64_t j) {
          return v[static_cast<size_t>(j * dim + i)];
        };
        float collapsed = post[0] * at(s, 0);
        for (int64_t j = 1; j < hc; ++j) {
          collapsed = std::fma(post[static_cast<size_t>(j)], at(s, j), collapsed);
        }
        EXPECT_EQ(x[static_cast<size_t>(i)], collapsed) << hc << " streams of " << dim;
        for (int64_t k = 0; k < hc; ++k) {
          float v = post[static_cast<size_t>(k)] * f[static_cast<size_t>(i)];
          for (int64_t j = 0; j < hc; ++j) {
            v = std::fma(comb[static_cast<size_t>(j * hc + k)], at(s, j), v);
          }
          EXPECT_EQ(at(merged, k), v) << hc << " streams of " << dim;
        }
      }
    }
  }
}

TEST(Streams, CombineHeadsFollowsTheWrittenOrderAndDropsNegatives) {
  for (const int64_t heads : {1, 3, 8, 64}) {
    std::vector<float> products = RandomVector(heads * 16, 5);
    products[0] = -0.0f;
    const std::vector<float> weights = RandomVector(heads, 6);
    float out[16];
    CombineHeads(products.data(), weights.data(), heads, out);
    for (size_t j = 0; j < 16; ++j) {
      float sum = 0.0f;
      for (size_t h = 0; h < weights.size(); ++h) {
        sum = std::fma(weights[h], std::max(products[h * 16 + j], 0.0f), sum);
      }
      EXPECT_EQ(out[j], sum) << heads;
    }
  }
}

}  // namespace
}  // namespace cairn::kernels
