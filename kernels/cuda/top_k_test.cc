// The GPU's choice is the CPU's, index by index, whatever the shape that the launch takes.
#include "kernels/cuda/top_k.h"

#include <algorithm>
#include <functional>

#include "kernels/cpu/top_k.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

class TopKTest : public DeviceTest {
 protected:
  // Token t has counts[t] scores from make(i).
  void Check(const std::vector<int32_t>& counts, int64_t stride, int64_t k,
             const std::function<float(size_t i)>& make) {
    const size_t tokens = counts.size();
    std::vector<float> scores(tokens * static_cast<size_t>(stride));
    for (size_t i = 0; i < scores.size(); ++i) scores[i] = make(i);
    const auto stream = OwnedStream::Create().value();
    const auto device_scores = DeviceBuffer<float>::Of(scores).value();
    const auto device_counts = DeviceBuffer<int32_t>::Of(counts).value();
    auto indices = DeviceBuffer<int32_t>::Create(tokens * static_cast<size_t>(k)).value();
    ASSERT_TRUE(indices.Fill(0x5a).ok() && Synchronize(nullptr).ok());
    const int64_t rows_max = *std::max_element(counts.begin(), counts.end());
    ASSERT_EQ(TopK({static_cast<int64_t>(tokens), device_scores.get(), stride, device_counts.get(),
                    rows_max, k, indices.get()},
                   stream.get()),
              absl::OkStatus());
    ASSERT_EQ(Synchronize(stream.get()), absl::OkStatus());
    const std::vector<int32_t> got = indices.Read().value();
    std::vector<int32_t> want;
    for (size_t t = 0; t < tokens; ++t) {
      kernels::TopK(scores.data() + t * static_cast<size_t>(stride), counts[t], k, want);
      want.resize(static_cast<size_t>(k), -1);
      const auto first = got.begin() + static_cast<int64_t>(t) * k;
      const auto [ours, theirs] = std::mismatch(first, first + k, want.begin());
      EXPECT_TRUE(ours == first + k)
          << "token " << t << " of " << tokens << ", n " << counts[t] << ", k " << k << ": place "
          << ours - first << " is " << *ours << ", want " << *theirs;
    }
  }

  SeededRandom random_{7};
  float Uniform() { return static_cast<float>(random_.Next() >> 40) * 0x1p-24f - 0.5f; }
};

TEST_F(TopKTest, RandomScores) {
  for (const int32_t n : {1, 31, 511, 512, 513, 1000, 8192, 8193, 20001, 65536, 70001, 262144}) {
    Check({n}, n, 512, [&](size_t) { return Uniform(); });
  }
  Check({262144}, 262144, 1024, [&](size_t) { return Uniform(); });
  Check({262144}, 262144, 262143, [&](size_t) { return Uniform(); });
  Check({5000}, 5000, 1, [&](size_t) { return Uniform(); });
}

TEST_F(TopKTest, ManyTokensOfDifferentCounts) {
  std::vector<int32_t> counts;
  for (int32_t t = 0; t < 40; ++t) counts.push_back(t * 150);
  Check(counts, 6001, 512, [&](size_t) { return Uniform(); });
  for (int32_t& n : counts) n *= 5;
  Check(counts, 29251, 1024, [&](size_t) { return Uniform(); });
  std::vector<int32_t> long_counts(17, 40000);
  long_counts[3] = 512;
  long_counts[4] = 513;
  Check(long_counts, 40003, 512, [&](size_t) { return Uniform(); });
}

// A block has a token to itself, and takes one after the other.
TEST_F(TopKTest, MoreTokensThanMultiprocessors) {
  std::vector<int32_t> counts;
  for (int32_t t = 0; t < 700; ++t) counts.push_back(t % 7 == 3 ? t : 9000 + t * 29);
  Check(counts, 29301, 512, [&](size_t) { return Uniform(); });
  // Some have all, some choose among many that are equal, some among more than a block gathers.
  Check(counts, 29301, 700, [&](size_t i) {
    const size_t token = i / 29301;
    if (token % 3 == 0) return Uniform();
    return static_cast<float>(random_.Next() % (token % 3 == 1 ? 40 : 3)) - 1.0f;
  });
  Check(counts, 29301, 1024, [&](size_t i) { return i / 29301 % 2 == 0 ? Uniform() : 0.0f; });
  for (int32_t& n : counts) n = n / 4;
  Check(counts, 8000, 512, [&](size_t) { return Uniform(); });
}

TEST_F(TopKTest, TiesGoToTheLowerIndex) {
  for (const int32_t n : {600, 9000, 70000, 262144}) {
    Check({n}, n, 512, [](size_t) { return 1.25f; });
    // A few values only, with zeros of both signs at the edge.
    Check({n}, n, 512, [&](size_t i) {
      const uint64_t bits = random_.Next();
      if (bits % 1024 == 0) return 3.0f;
      return i % 2 == 0 ? 0.0f : (bits % 7 == 0 ? -1.0f : -0.0f);
    });
    Check({n}, n, 512, [&](size_t) { return static_cast<float>(random_.Next() % 300); });
  }
}

TEST_F(TopKTest, ScoresOfAllMagnitudesAndSigns) {
  Check({50000}, 50000, 512, [&](size_t) {
    return std::ldexp(Uniform(), static_cast<int>(random_.Next() % 200) - 100);
  });
  Check({50000}, 50000, 512, [&](size_t) { return -1.0f - Uniform(); });
  // Only the last bits differ.
  Check({50000}, 50000, 512, [&](size_t) {
    return std::bit_cast<float>(0x42000000u + static_cast<uint32_t>(random_.Next() % 4096));
  });
}

// The best all in one block's part, or none in a part that is not whole.
TEST_F(TopKTest, OrderedScores) {
  for (const int32_t n : {3000, 8193, 32769, 65537, 100000, 262144}) {
    Check({n}, n, 512, [](size_t i) { return static_cast<float>(i); });
    Check({n}, n, 512, [](size_t i) { return -static_cast<float>(i); });
    Check({n}, n, 2000, [](size_t i) { return static_cast<float>(i % 5000); });
  }
}

TEST(TopKShapesTest, BadShapesAreRefused) {
  const auto code = [](const TopKRows& rows) { return TopK(rows, nullptr).code(); };
  EXPECT_EQ(code({1, nullptr, 10, nullptr, 10, 0, nullptr}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, nullptr, 10, nullptr, 11, 5, nullptr}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, nullptr, 1 << 20, nullptr, kTopKRowsMax + 1, 5, nullptr}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({-1, nullptr, 10, nullptr, 10, 5, nullptr}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({0, nullptr, 10, nullptr, 10, 5, nullptr}), absl::StatusCode::kOk);
}

}  // namespace
}  // namespace cairn::kernels::cuda
