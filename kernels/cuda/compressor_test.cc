// Goal: a pooled row is SoftmaxPool of its group's tokens, to the bit, wherever steps begin and end
// and whoever else is in them. Method: whole sequences pooled on the CPU; on the device in pieces,
// several sequences a launch, each from a state full of NaN (so that reading what no token wrote
// shows).
#include "kernels/cuda/compressor.h"

#include <algorithm>
#include <numeric>

#include "kernels/cpu/vector_ops.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

// One sequence: kv and raw scores [tokens, width].
struct Tokens {
  Tokens(const CompressorShape& shape, int64_t n, uint64_t seed)
      : count(n),
        kv(RandomFloats(static_cast<size_t>(n * shape.width()), seed, 4.0f)),
        score(RandomFloats(static_cast<size_t>(n * shape.width()), seed + 1, 12.0f)) {}
  int64_t count;
  std::vector<float> kv, score;
};

std::vector<float> MadeApe(const CompressorShape& shape) {
  return RandomFloats(static_cast<size_t>(shape.ratio * shape.width()), 99, 4.0f);
}

std::vector<float> Expected(const CompressorShape& shape, const Tokens& tokens) {
  const std::vector<float> ape = MadeApe(shape);
  const int64_t width = shape.width();
  std::vector<float> score = tokens.score;
  for (int64_t t = 0; t < tokens.count; ++t) {
    for (int64_t e = 0; e < width; ++e) {
      score[static_cast<size_t>(t * width + e)] +=
          ape[static_cast<size_t>(t % shape.ratio * width + e)];
    }
  }
  const bool overlaps = shape.ratio == 4;
  std::vector<float> out;
  for (int64_t g = 0; g < tokens.count / shape.ratio; ++g) {
    std::vector<const float*> kvs, scores;
    for (int64_t t = (g - (overlaps ? 1 : 0)) * shape.ratio; t < (g + 1) * shape.ratio; ++t) {
      if (t < 0) continue;
      const int64_t at = t * width + (overlaps && t >= g * shape.ratio ? shape.dim : 0);
      kvs.push_back(tokens.kv.data() + at);
      scores.push_back(score.data() + at);
    }
    std::vector<float> row(static_cast<size_t>(shape.dim));
    SoftmaxPool(kvs.data(), scores.data(), std::ssize(kvs), shape.dim, row.data());
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

TEST(CompressorRefuseTest, ShapesOutOfBounds) {
  const auto pool = [](CompressorShape shape, int64_t stride, int64_t spans) {
    return PoolGroups(nullptr, shape, {.stride = stride}, nullptr, spans, 1, nullptr).code();
  };
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(pool({4, 96}, 4096, 1), code);
  EXPECT_EQ(pool({4, 1024}, 4096, 1), code);
  EXPECT_EQ(pool({128, 500}, 4096, 1), code);
  EXPECT_EQ(pool({8, 512}, 4096, 1), code);
  EXPECT_EQ(pool({4, 512}, 512, 1), code);
  EXPECT_EQ(pool({128, 512}, 514, 1), code);
  EXPECT_EQ(pool({4, 512}, 1024, 65536), code);
}

class CompressorTest : public DeviceTest {
 protected:
  // One launch for the next counts[s] tokens of every sequence; what they gave is added to out[s].
  struct Run {
    CompressorShape shape;
    std::vector<Tokens> sequences;
    bool ape_added = false;
    int64_t groups_max = -1;  // -1: the longest span's
    std::vector<int64_t> positions = {};
    std::vector<DeviceBuffer<float>> states = {};
    std::vector<std::vector<float>> out = {};

    void Start() {
      positions.assign(sequences.size(), 0);
      out.assign(sequences.size(), {});
      for (size_t s = 0; s < sequences.size(); ++s) {
        states.push_back(
            DeviceBuffer<float>::Create(static_cast<size_t>(shape.state_floats())).value());
        ASSERT_TRUE(states.back().Fill(0xff).ok());
      }
    }

    void Step(const std::vector<int64_t>& counts) {
      constexpr int64_t kGap = 12;  // between rows: what follows a row is not the next
      const int64_t width = shape.width();
      const std::vector<float> ape = MadeApe(shape);
      std::vector<CompressorSpan> spans;
      std::vector<float> kv, score;
      int64_t rows = 0, groups_all = 0, groups_most = 0;
      for (size_t s = 0; s < sequences.size(); ++s) {
        const int64_t p = positions[s];
        const int64_t groups = (p + counts[s]) / shape.ratio - p / shape.ratio;
        spans.push_back({rows, counts[s], p, groups_all, states[s].get()});
        for (int64_t t = p; t < p + counts[s]; ++t) {
          const auto row = sequences[s].kv.begin() + t * width;
          kv.insert(kv.end(), row, row + width);
          kv.resize(kv.size() + kGap, NAN);
          for (int64_t e = 0; e < width; ++e) {
            const float raw = sequences[s].score[static_cast<size_t>(t * width + e)];
            const float add = ape[static_cast<size_t>(t % shape.ratio * width + e)];
            score.push_back(ape_added ? raw + add : raw);
          }
          score.resize(score.size() + kGap, NAN);
        }
        rows += counts[s];
        groups_all += groups;
        groups_most = std::max(groups_most, groups);
      }
      const auto device_kv = DeviceBuffer<float>::Of(kv).value();
      const auto device_score = DeviceBuffer<float>::Of(score).value();
      const auto device_ape = DeviceBuffer<float>::Of(ape).value();
      const auto device_spans = DeviceBuffer<CompressorSpan>::Of(spans).value();
      auto pooled =
          DeviceBuffer<float>::Create(static_cast<size_t>((groups_all + 1) * shape.dim)).value();
      ASSERT_TRUE(pooled.Fill(0xff).ok());
      const CompressorInput input{device_kv.get(), device_score.get(), width + kGap,
                                  ape_added ? nullptr : device_ape.get()};
      ASSERT_TRUE(PoolGroups(nullptr, shape, input, device_spans.get(), std::ssize(spans),
                             groups_max < 0 ? groups_most : groups_max, pooled.get())
                      .ok());
      const std::vector<float> got = pooled.Read().value();
      for (size_t s = 0; s < sequences.size(); ++s) {
        const int64_t next = s + 1 < spans.size() ? spans[s + 1].out : groups_all;
        out[s].insert(out[s].end(), got.begin() + spans[s].out * shape.dim,
                      got.begin() + next * shape.dim);
        positions[s] += counts[s];
      }
      for (int64_t e = 0; e < shape.dim; ++e) {
        EXPECT_TRUE(std::isnan(got[static_cast<size_t>(groups_all * shape.dim + e)]));
      }
    }

    void ExpectAll() {
      for (size_t s = 0; s < sequences.size(); ++s) {
        EXPECT_EQ(positions[s], sequences[s].count);
        EXPECT_EQ(out[s], Expected(shape, sequences[s])) << "sequence " << s;
      }
    }
  };

  static constexpr CompressorShape kShapes[] = {{4, 512}, {4, 128}, {128, 512}};
};

TEST_F(CompressorTest, WholeSequencesAreTheCpusToTheBit) {
  for (const CompressorShape& shape : kShapes) {
    for (const bool ape_added : {false, true}) {
      SCOPED_TRACE(testing::Message() << shape.ratio << ", " << shape.dim);
      Run run{shape, {{shape, 131, 1}, {shape, 3, 2}, {shape, 384, 3}}, ape_added};
      run.Start();
      run.Step({131, 3, 384});
      run.ExpectAll();
    }
  }
}

TEST_F(CompressorTest, ALaunchNarrowerThanTheGroupsMakesThemAll) {
  for (const CompressorShape& shape : kShapes) {
    Run run{shape, {{shape, 520, 4}}, false, 1};
    run.Start();
    run.Step({520});
    run.ExpectAll();
  }
}

// Tokens one at a time, and steps of all lengths, different for each sequence.
TEST_F(CompressorTest, AnySplitIntoStepsGivesTheSameBits) {
  SeededRandom random(5);
  for (const CompressorShape& shape : kShapes) {
    SCOPED_TRACE(testing::Message() << shape.ratio << ", " << shape.dim);
    const std::vector<int64_t> totals = {shape.ratio * 3 + 1, shape.ratio * 2, 300};
    Run run{shape, {{shape, totals[0], 6}, {shape, totals[1], 7}, {shape, totals[2], 8}}};
    run.Start();
    bool left = true;
    for (int i = 0; left; ++i) {
      left = false;
      std::vector<int64_t> counts;
      for (size_t s = 0; s < totals.size(); ++s) {
        const int64_t most = i % 3 == 0 ? 1 : 1 + static_cast<int64_t>(random.Next() % 140);
        counts.push_back(std::min(totals[s] - run.positions[s], s == 1 ? most % 12 + 1 : most));
        left = left || counts[s] < totals[s] - run.positions[s];
      }
      run.Step(counts);
    }
    run.ExpectAll();
  }
}

// A guessed token taken back: the state after it serves for the token that comes in its place.
TEST_F(CompressorTest, ATokenCanBeTakenBack) {
  for (const CompressorShape& shape : kShapes) {
    Run run{shape, {{shape, shape.ratio * 2 + 2, 9}}};
    run.Start();
    const std::vector<float> kv = run.sequences[0].kv;
    for (int64_t t = 0; t < run.sequences[0].count; ++t) {
      const auto row = run.sequences[0].kv.begin() + t * shape.width();
      std::fill_n(row, shape.width(), 1e6f);  // a wrong guess
      const size_t before = run.out[0].size();
      run.Step({1});
      run.out[0].resize(before);
      run.positions[0] -= 1;
      std::copy_n(kv.begin() + t * shape.width(), shape.width(), row);
      run.Step({1});
    }
    run.ExpectAll();
  }
}

}  // namespace
}  // namespace cairn::kernels::cuda
