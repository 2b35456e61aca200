// Goal: mixing and merging are spec 2.2. Method: mixes, Sinkhorn and collapse against the
// definition in double (the tensor cores add in their own order: within 1e-5, and what is BF16
// within its rounding); merging against the CPU's order, bits compared. And rows alone against rows
// in company.
#include "kernels/cuda/hyper_connection.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/streams.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

constexpr float kTolerance = 3e-5f;

struct Made {
  Made(int64_t rows, int64_t dim, int mixes)
      : shape{.rows = rows, .dim = dim},
        outputs(static_cast<size_t>(mixes)),
        fn(RandomFloats(static_cast<size_t>(mixes * 4 * dim), 1, 0.1f)),
        base(RandomFloats(static_cast<size_t>(mixes), 2, 2.0f)),
        scale(RandomFloats(3, 3, 4.0f)),
        streams(ToBf16(RandomFloats(static_cast<size_t>(rows * 4 * dim), 4, 3.0f))) {}
  HcShape shape;
  size_t outputs;
  std::vector<float> fn, base, scale;
  std::vector<uint16_t> streams;
};

struct Mixed {
  std::vector<float> x, post, comb;
};

double Sigmoid(double v) { return 1.0 / (1.0 + std::exp(-v)); }

void Sinkhorn(double (&c)[4][4], double eps) {
  for (auto& row : c) {
    double sum = 0;
    for (double& v : row) sum += v = std::exp(v);
    for (double& v : row) v = v / sum + eps;
  }
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; i > 0 && j < 4; ++j) {
      const double sum = c[j][0] + c[j][1] + c[j][2] + c[j][3];
      for (int k = 0; k < 4; ++k) c[j][k] /= sum + eps;
    }
    for (int k = 0; k < 4; ++k) {
      const double sum = c[0][k] + c[1][k] + c[2][k] + c[3][k];
      for (int j = 0; j < 4; ++j) c[j][k] /= sum + eps;
    }
  }
}

Mixed Expected(const Made& made) {
  Mixed out;
  const size_t dim = static_cast<size_t>(made.shape.dim);
  const std::vector<float> streams = FromBf16(made.streams);
  for (size_t r = 0; r < static_cast<size_t>(made.shape.rows); ++r) {
    const float* v = streams.data() + r * 4 * dim;
    double squares = 0;
    for (size_t i = 0; i < 4 * dim; ++i) squares += double{v[i]} * double{v[i]};
    const double s = 1.0 / std::sqrt(squares / static_cast<double>(4 * dim) + 1e-6);
    std::vector<double> mix(made.outputs);
    for (size_t n = 0; n < made.outputs; ++n) {
      for (size_t i = 0; i < 4 * dim; ++i)
        mix[n] += double{made.fn[n * 4 * dim + i]} * double{v[i]};
      mix[n] *= s;
    }
    double pre[4];
    for (size_t j = 0; j < 4; ++j) {
      pre[j] = Sigmoid(mix[j] * double{made.scale[0]} + double{made.base[j]}) + 1e-6;
    }
    for (size_t i = 0; i < dim; ++i) {
      double x = 0;
      for (size_t j = 0; j < 4; ++j) x += pre[j] * double{v[j * dim + i]};
      out.x.push_back(static_cast<float>(x));
    }
    if (made.outputs == 4) continue;
    double c[4][4];
    for (size_t j = 0; j < 4; ++j) {
      out.post.push_back(static_cast<float>(
          2 * Sigmoid(mix[4 + j] * double{made.scale[1]} + double{made.base[4 + j]})));
      for (size_t k = 0; k < 4; ++k) {
        c[j][k] = mix[8 + 4 * j + k] * double{made.scale[2]} + double{made.base[8 + 4 * j + k]};
      }
    }
    Sinkhorn(c, 1e-6);
    for (const auto& row : c) {
      for (const double value : row) out.comb.push_back(static_cast<float>(value));
    }
  }
  return out;
}

float MostApart(const std::vector<float>& got, const std::vector<float>& want) {
  float most = 0.0f;
  for (size_t i = 0; i < want.size(); ++i) {
    const float apart = std::fabs(got[i] - want[i]);
    if (!(apart <= most)) most = apart;  // a NaN stays
  }
  return most;
}

class HyperConnectionTest : public DeviceTest {
 protected:
  // Rows [first, first + rows) of what was made.
  Mixed Run(const Made& made, int64_t first, int64_t rows, bool finish_later = false) {
    const int64_t dim = made.shape.dim;
    const auto fn = DeviceBuffer<float>::Of(made.fn).value();
    const auto base = DeviceBuffer<float>::Of(made.base).value();
    const auto scale = DeviceBuffer<float>::Of(made.scale).value();
    const auto streams = DeviceBuffer<uint16_t>::Of(made.streams).value();
    auto x = DeviceBuffer<uint16_t>::Create(static_cast<size_t>(rows * dim)).value();
    auto post = DeviceBuffer<float>::Create(static_cast<size_t>(rows * 4)).value();
    auto comb = DeviceBuffer<float>::Create(static_cast<size_t>(rows * 16)).value();
    EXPECT_TRUE(x.Fill(0xff).ok() && post.Fill(0xff).ok() && comb.Fill(0xff).ok());
    HcShape shape = made.shape;
    shape.rows = rows;
    shape.finish_later = finish_later;
    const HcWeights weights{fn.get(), base.get(), scale.get()};
    const uint16_t* const from = streams.get() + first * 4 * dim;
    const absl::Status status =
        made.outputs == 4 ? HcCollapse(nullptr, weights, shape, from, x.get())
                          : HcMix(nullptr, weights, shape, from, x.get(), post.get(), comb.get());
    EXPECT_TRUE(status.ok()) << status;
    if (finish_later) {
      EXPECT_TRUE(HcFinish(nullptr, shape, comb.get()).ok());
    }
    Mixed out{FromBf16(x.Read().value()), {}, {}};
    if (made.outputs == 4) return out;
    out.post = post.Read().value();
    out.comb = comb.Read().value();
    return out;
  }
};

TEST(HyperConnectionRefuseTest, ShapesOutOfBounds) {
  for (const int64_t dim : {0, 32, 576, 1100, 16384}) {
    EXPECT_EQ(
        HcMix(nullptr, {}, {.rows = 1, .dim = dim}, nullptr, nullptr, nullptr, nullptr).code(),
        absl::StatusCode::kInvalidArgument)
        << dim;
  }
  EXPECT_EQ(HcCollapse(nullptr, {}, {.rows = -1, .dim = 512}, nullptr, nullptr).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(HcMerge(nullptr, {}, 1, 12, nullptr).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(HcFinish(nullptr, {.rows = -1}, nullptr).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(HyperConnectionTest, MixesAreTheDefinitions) {
  for (const int64_t dim : {64, 512, 1024, 4096, 7168}) {
    for (const int64_t rows : {1, 17, 40}) {
      SCOPED_TRACE(testing::Message() << "dim " << dim << ", rows " << rows);
      const Made made(rows, dim, kHcMixes);
      const Mixed want = Expected(made);
      const Mixed got = Run(made, 0, rows);
      EXPECT_LT(MostApart(got.post, want.post), kTolerance);
      EXPECT_LT(MostApart(got.comb, want.comb), kTolerance);
      EXPECT_LT(RelativeError(got.x, want.x), 2e-3);
    }
  }
}

TEST_F(HyperConnectionTest, HeadsCollapseIsTheDefinitions) {
  for (const int64_t dim : {64, 4096}) {
    const Made made(19, dim, kHcStreams);
    EXPECT_LT(RelativeError(Run(made, 0, 19).x, Expected(made).x), 2e-3);
  }
}

// So many rows that every cluster takes several tiles of 16.
TEST_F(HyperConnectionTest, ARowIsTheSameInAnyCompany) {
  constexpr int64_t kDim = 4096;
  constexpr int64_t kRows = 701;
  const Made made(kRows, kDim, kHcMixes);
  const Mixed all = Run(made, 0, kRows);
  for (const int64_t r : {0, 9, 31, 350, 700}) {
    const Mixed one = Run(made, r, 1);
    const auto at = static_cast<size_t>(r);
    EXPECT_TRUE(std::ranges::equal(one.x, std::span(all.x).subspan(at * kDim, kDim)));
    EXPECT_TRUE(std::ranges::equal(one.post, std::span(all.post).subspan(at * 4, 4)));
    EXPECT_TRUE(std::ranges::equal(one.comb, std::span(all.comb).subspan(at * 16, 16)));
  }
}

TEST_F(HyperConnectionTest, WhatIsFinishedLaterIsTheSame) {
  const Made made(65, 512, kHcMixes);
  for (const int64_t rows : {1, 2, 37, 65}) {
    const Mixed at_once = Run(made, 0, rows);
    const Mixed later = Run(made, 0, rows, /*finish_later=*/true);
    EXPECT_EQ(later.x, at_once.x) << rows;
    EXPECT_EQ(later.post, at_once.post) << rows;
    EXPECT_EQ(later.comb, at_once.comb) << rows;
  }
}

TEST_F(HyperConnectionTest, MergesAsTheCpuDoesToTheBit) {
  for (const int64_t dim : {8, 520, 4096}) {
    constexpr int64_t kRows = 9;
    const std::vector<uint16_t> streams =
        ToBf16(RandomFloats(static_cast<size_t>(kRows * 4 * dim), 5, 4.0f));
    const std::vector<uint16_t> f = ToBf16(RandomFloats(static_cast<size_t>(kRows * dim), 6, 4.0f));
    const std::vector<float> post = RandomFloats(kRows * 4, 7, 4.0f);
    const std::vector<float> comb = RandomFloats(kRows * 16, 8, 2.0f);
    std::vector<float> want = FromBf16(streams);
    const std::vector<float> add = FromBf16(f);
    for (int64_t r = 0; r < kRows; ++r) {
      MergeStreams(add.data() + r * dim, post.data() + r * 4, comb.data() + r * 16, 4, dim,
                   want.data() + r * 4 * dim);
    }
    const auto device_streams = DeviceBuffer<uint16_t>::Of(streams).value();
    const auto device_f = DeviceBuffer<uint16_t>::Of(f).value();
    const auto device_post = DeviceBuffer<float>::Of(post).value();
    const auto device_comb = DeviceBuffer<float>::Of(comb).value();
    ASSERT_TRUE(HcMerge(nullptr, {device_f.get(), device_post.get(), device_comb.get()}, kRows, dim,
                        device_streams.get())
                    .ok());
    EXPECT_EQ(device_streams.Read().value(), ToBf16(want));
  }
}

TEST_F(HyperConnectionTest, MergingAndMixingAtOnceIsTheSame) {
  for (const int64_t dim : {64, 4096, 7168}) {
    constexpr int64_t kRows = 37;
    const Made made(kRows, dim, kHcMixes);
    const auto fn = DeviceBuffer<float>::Of(made.fn).value();
    const auto base = DeviceBuffer<float>::Of(made.base).value();
    const auto scale = DeviceBuffer<float>::Of(made.scale).value();
    const HcWeights weights{fn.get(), base.get(), scale.get()};
    const auto f =
        DeviceBuffer<uint16_t>::Of(ToBf16(RandomFloats(static_cast<size_t>(kRows * dim), 9, 3.0f)))
            .value();
    struct Result {
      std::vector<uint16_t> streams, x;
      std::vector<float> post, comb;
      bool operator==(const Result&) const = default;
    };
    const auto run = [&](bool at_once) {
      const auto streams = DeviceBuffer<uint16_t>::Of(made.streams).value();
      const auto x = DeviceBuffer<uint16_t>::Create(static_cast<size_t>(kRows * dim)).value();
      const auto post = DeviceBuffer<float>::Of(RandomFloats(kRows * 4, 7, 4.0f)).value();
      const auto comb = DeviceBuffer<float>::Of(RandomFloats(kRows * 16, 8, 2.0f)).value();
      const HcMerging merging{f.get(), post.get(), comb.get()};
      if (at_once) {
        EXPECT_TRUE(HcMergeMix(nullptr, merging, weights, made.shape, streams.get(), x.get(),
                               post.get(), comb.get())
                        .ok());
      } else {
        EXPECT_TRUE(HcMerge(nullptr, merging, kRows, dim, streams.get()).ok());
        EXPECT_TRUE(
            HcMix(nullptr, weights, made.shape, streams.get(), x.get(), post.get(), comb.get())
                .ok());
      }
      return Result{streams.Read().value(), x.Read().value(), post.Read().value(),
                    comb.Read().value()};
    };
    EXPECT_TRUE(run(true) == run(false)) << dim;
  }
}

}  // namespace
}  // namespace cairn::kernels::cuda
