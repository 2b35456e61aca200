// Goal: the choice, the weights and the order are the CPU's (engine/forward/moe.cc), to the bit.
// Method: made gates, some with many ties, against kernels/cpu and plain loops.
#include "kernels/cuda/routing.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/top_k.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

float SqrtSoftplus(float g) {
  const double x = static_cast<double>(g);
  return static_cast<float>(std::sqrt(std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x)))));
}

struct Routes {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Routes Weighted(const std::vector<float>& gate, const RouteShape& shape, std::vector<int32_t> ids) {
  Routes out{std::move(ids), {}};
  const size_t k = static_cast<size_t>(shape.k);
  for (size_t t = 0; t < static_cast<size_t>(shape.tokens); ++t) {
    std::vector<float> scores;
    for (size_t i = 0; i < k; ++i) {
      const auto e = static_cast<size_t>(out.ids[t * k + i]);
      scores.push_back(SqrtSoftplus(gate[t * static_cast<size_t>(shape.experts) + e]));
    }
    const float sum = std::accumulate(scores.begin(), scores.end(), 0.0f);
    for (const float s : scores) out.weights.push_back(s / sum * shape.scale);
  }
  return out;
}

Routes ExpectedByBias(const std::vector<float>& gate, const std::vector<float>& bias,
                      const RouteShape& shape) {
  std::vector<int32_t> ids;
  std::vector<int32_t> chosen;
  std::vector<float> biased(bias.size());
  for (size_t t = 0; t < static_cast<size_t>(shape.tokens); ++t) {
    for (size_t e = 0; e < bias.size(); ++e) {
      biased[e] = SqrtSoftplus(gate[t * bias.size() + e]) + bias[e];
    }
    TopK(biased.data(), shape.experts, shape.k, chosen);
    ids.insert(ids.end(), chosen.begin(), chosen.end());
  }
  return Weighted(gate, shape, std::move(ids));
}

TEST(RoutingRefuseTest, ShapesOutOfBounds) {
  const auto code = absl::StatusCode::kInvalidArgument;
  const float* const some = reinterpret_cast<const float*>(16);
  for (const RouteShape& shape : {RouteShape{1, 513, 6}, RouteShape{1, 256, 9}, RouteShape{1, 4, 6},
                                  RouteShape{-1, 256, 6}, RouteShape{1 << 30, 256, 6}}) {
    EXPECT_EQ(Route(nullptr, some, {.bias = some}, shape, nullptr, nullptr).code(), code);
    EXPECT_EQ(SortPairs(nullptr, nullptr, nullptr, shape, {}).code(), code);
  }
  const RouteShape shape{1, 256, 6};
  EXPECT_EQ(Route(nullptr, some, {}, shape, nullptr, nullptr).code(), code);
  EXPECT_EQ(CombineExperts(nullptr, nullptr, nullptr, nullptr, shape, 12, nullptr).code(), code);
  int32_t offsets[2];
  alignas(16) uint8_t scratch[16];
  const RouteOrder order{.offsets = offsets};
  const RouteChoice by_bias{.bias = some};
  EXPECT_EQ(RouteExperts(nullptr, some, {}, shape, {}, order, {offsets, 256, 6, scratch}).code(),
            code);
  for (const ExpertRows& rows :
       {ExpertRows{offsets, 256, 5, scratch}, ExpertRows{offsets + 1, 256, 6, scratch},
        ExpertRows{offsets, 257, 6, scratch}, ExpertRows{offsets, 256, 6, scratch + 1}}) {
    EXPECT_EQ(RouteExperts(nullptr, some, by_bias, shape, {}, order, rows).code(), code);
  }
}

class RoutingTest : public DeviceTest {
 protected:
  static Routes Run(const std::vector<float>& gate, const RouteChoice& choice,
                    const RouteShape& shape) {
    const auto pairs = static_cast<size_t>(shape.tokens * shape.k);
    const auto device_gate = DeviceBuffer<float>::Of(gate).value();
    auto ids = DeviceBuffer<int32_t>::Create(pairs).value();
    auto weights = DeviceBuffer<float>::Create(pairs).value();
    EXPECT_TRUE(ids.Fill(0xff).ok() && weights.Fill(0xff).ok());
    EXPECT_TRUE(Route(nullptr, device_gate.get(), choice, shape, ids.get(), weights.get()).ok());
    return {ids.Read().value(), weights.Read().value()};
  }
  static void ExpectByBias(const std::vector<float>& gate, const std::vector<float>& bias,
                           const RouteShape& shape) {
    const auto device_bias = DeviceBuffer<float>::Of(bias).value();
    const Routes got = Run(gate, {.bias = device_bias.get()}, shape);
    const Routes want = ExpectedByBias(gate, bias, shape);
    EXPECT_EQ(got.ids, want.ids);
    EXPECT_EQ(got.weights, want.weights);
  }
};

TEST_F(RoutingTest, ChoosesAndWeighsAsTheCpuDoes) {
  for (const RouteShape& shape : {RouteShape{101, 256, 6, 1.5f}, RouteShape{33, 384, 6, 2.5f},
                                  RouteShape{5, 8, 8, 1.0f}, RouteShape{7, 40, 1, 1.0f}}) {
    SCOPED_TRACE(shape.experts);
    const auto experts = static_cast<size_t>(shape.experts);
    const auto count = static_cast<size_t>(shape.tokens) * experts;
    std::vector<float> gate = RandomFloats(count, 1, 40.0f);
    ExpectByBias(gate, RandomFloats(experts, 2), shape);
    for (float& g : gate) g = std::round(g / 10.0f);  // few values: ties at every choice
    ExpectByBias(gate, std::vector<float>(experts, 0.0f), shape);
    ExpectByBias(gate, std::vector<float>(experts, -9.0f), shape);  // negative sums
  }
}

TEST_F(RoutingTest, TakesTheTablesExperts) {
  const RouteShape shape{50, 64, 6, 1.5f};
  constexpr size_t kVocab = 30;
  SeededRandom random(3);
  std::vector<int32_t> table(kVocab * 6);
  for (int32_t& e : table) e = static_cast<int32_t>(random.Next() % 64);
  table[6] = table[7] = 5;  // the same twice
  std::vector<int32_t> tokens(50);
  for (size_t t = 0; t < tokens.size(); ++t) tokens[t] = static_cast<int32_t>(t % kVocab);
  const std::vector<float> gate = RandomFloats(50 * 64, 4, 10.0f);
  std::vector<int32_t> ids;
  for (const int32_t token : tokens) {
    std::vector<int32_t> row(table.begin() + token * 6, table.begin() + token * 6 + 6);
    std::sort(row.begin(), row.end());
    ids.insert(ids.end(), row.begin(), row.end());
  }
  const Routes want = Weighted(gate, shape, ids);
  const auto device_table = DeviceBuffer<int32_t>::Of(table).value();
  const auto device_tokens = DeviceBuffer<int32_t>::Of(tokens).value();
  const Routes got =
      Run(gate, {.table = device_table.get(), .token_ids = device_tokens.get()}, shape);
  EXPECT_EQ(got.ids, want.ids);
  EXPECT_EQ(got.weights, want.weights);
}

void ExpectSorted(const std::vector<int32_t>& ids, const RouteShape& shape) {
  const size_t pairs = ids.size();
  const std::vector<float> weights = RandomFloats(pairs, 5);
  std::vector<int32_t> order(pairs);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int32_t i) { return ids[static_cast<size_t>(i)]; });
  std::vector<int32_t> offsets(static_cast<size_t>(shape.experts) + 1);
  for (size_t e = 0; e < offsets.size(); ++e) {
    offsets[e] = static_cast<int32_t>(
        std::ranges::count_if(ids, [&](int32_t id) { return static_cast<size_t>(id) < e; }));
  }
  std::vector<int32_t> token_of(pairs), place_of(pairs);
  std::vector<float> weight_of(pairs);
  for (size_t at = 0; at < pairs; ++at) {
    const auto pair = static_cast<size_t>(order[at]);
    token_of[at] = order[at] / static_cast<int32_t>(shape.k);
    weight_of[at] = weights[pair];
    place_of[pair] = static_cast<int32_t>(at);
  }
  // A value more than there are pairs: memory of none is no memory.
  auto device_ids = DeviceBuffer<int32_t>::Create(pairs + 1).value();
  auto device_weights = DeviceBuffer<float>::Create(pairs + 1).value();
  ASSERT_TRUE(device_ids.Write(ids).ok() && device_weights.Write(weights).ok());
  auto got_offsets = DeviceBuffer<int32_t>::Create(offsets.size()).value();
  auto got_token = DeviceBuffer<int32_t>::Create(pairs + 1).value();
  auto got_weight = DeviceBuffer<float>::Create(pairs + 1).value();
  auto got_place = DeviceBuffer<int32_t>::Create(pairs + 1).value();
  ASSERT_TRUE(got_offsets.Fill(0xff).ok());
  ASSERT_TRUE(SortPairs(nullptr, device_ids.get(), device_weights.get(), shape,
                        {got_offsets.get(), got_token.get(), got_weight.get(), got_place.get()})
                  .ok());
  EXPECT_EQ(got_offsets.Read().value(), offsets);
  const auto first = [pairs](auto values) {
    values.resize(pairs);
    return values;
  };
  EXPECT_EQ(first(got_token.Read().value()), token_of);
  EXPECT_EQ(first(got_weight.Read().value()), weight_of);
  EXPECT_EQ(first(got_place.Read().value()), place_of);
}

TEST_F(RoutingTest, SortsPairsByExpertThenToken) {
  for (const int64_t tokens : {0, 1, 5, 86, 3001}) {
    SCOPED_TRACE(tokens);
    const RouteShape shape{tokens, 256, 6};
    SeededRandom random(6);
    std::vector<int32_t> ids(static_cast<size_t>(tokens * 6));
    for (int32_t& id : ids) id = static_cast<int32_t>(random.Next() % 200);  // some have none
    ExpectSorted(ids, shape);
  }
  ExpectSorted(std::vector<int32_t>(600, 3), {100, 8, 6});  // all to one, several times over
}

// What RouteExperts leaves, read back; the tiles as bytes, as far as there are any.
struct Ordered {
  std::vector<int32_t> offsets, token_of, place_of;
  std::vector<float> weight_of;
  std::vector<uint8_t> tiles;
};

struct OrderRoom {
  explicit OrderRoom(const RouteShape& shape)
      : pairs(static_cast<size_t>(shape.tokens * shape.k)),
        experts(shape.experts),
        ids(Filled<int32_t>(pairs)),
        offsets(Filled<int32_t>(static_cast<size_t>(shape.experts) + 1)),
        token_of(Filled<int32_t>(pairs)),
        place_of(Filled<int32_t>(pairs)),
        weights(Filled<float>(pairs)),
        weight_of(Filled<float>(pairs)),
        tiles(Filled<uint8_t>(
            static_cast<size_t>(ExpertScratchBytes(static_cast<int64_t>(pairs), shape.experts)))) {}

  template <typename T>
  static DeviceBuffer<T> Filled(size_t count) {
    auto buffer = DeviceBuffer<T>::Create(count).value();
    EXPECT_TRUE(buffer.Fill(0xff).ok());
    return buffer;
  }
  RouteOrder order() const {
    return {offsets.get(), token_of.get(), weight_of.get(), place_of.get()};
  }
  ExpertRows rows() const {
    return {offsets.get(), experts, static_cast<int64_t>(pairs), tiles.get()};
  }
  Ordered Read() const {
    Ordered out{offsets.Read().value(), token_of.Read().value(), place_of.Read().value(),
                weight_of.Read().value(), tiles.Read().value()};
    int32_t count = 0;  // linear.cc: the count, and from 16 bytes on tiles of 12
    std::memcpy(&count, out.tiles.data(), sizeof(count));
    EXPECT_GT(count, 0);
    EXPECT_LE(16 + 12 * static_cast<size_t>(count), out.tiles.size());
    out.tiles.resize(16 + 12 * static_cast<size_t>(count));
    return out;
  }

  size_t pairs;
  int64_t experts;
  DeviceBuffer<int32_t> ids, offsets, token_of, place_of;
  DeviceBuffer<float> weights, weight_of;
  DeviceBuffer<uint8_t> tiles;
};

TEST_F(RoutingTest, FewTokensInOneLaunchAreOrderedAsByThreeSteps) {
  constexpr size_t kVocab = 30;
  for (const int64_t experts : {8, 40, 256, 384, 512}) {
    for (const int64_t tokens : {1, 2, 7, 8, 9, 33, 63, 64, 65}) {
      for (const bool by_table : {false, true}) {
        SCOPED_TRACE(absl::StrCat(experts, " experts, ", tokens, " tokens, table ", by_table));
        const RouteShape shape{tokens, experts, experts == 8 ? 8 : 6, 1.5f};
        SeededRandom random(static_cast<uint64_t>(experts + tokens));
        std::vector<float> gate = RandomFloats(static_cast<size_t>(tokens * experts), 1, 40.0f);
        if (tokens % 2 == 0) {
          for (float& g : gate) g = std::round(g / 10.0f);  // ties
        }
        std::vector<int32_t> table(kVocab * static_cast<size_t>(shape.k)), ids;
        for (int32_t& e : table) e = static_cast<int32_t>(random.Next() % 8);  // long tiles
        for (int64_t t = 0; t < tokens; ++t) ids.push_back(static_cast<int32_t>(t) % 30);
        const auto device_gate = DeviceBuffer<float>::Of(gate).value();
        const auto bias =
            DeviceBuffer<float>::Of(RandomFloats(static_cast<size_t>(experts), 2)).value();
        const auto device_table = DeviceBuffer<int32_t>::Of(table).value();
        const auto device_ids = DeviceBuffer<int32_t>::Of(ids).value();
        RouteChoice choice{.bias = bias.get()};
        if (by_table) choice = {.table = device_table.get(), .token_ids = device_ids.get()};

        const OrderRoom one(shape), steps(shape);
        ASSERT_EQ(RouteExperts(nullptr, device_gate.get(), choice, shape,
                               {one.ids.get(), one.weights.get()}, one.order(), one.rows()),
                  absl::OkStatus());
        ASSERT_TRUE(
            Route(nullptr, device_gate.get(), choice, shape, steps.ids.get(), steps.weights.get())
                .ok());
        ASSERT_TRUE(
            SortPairs(nullptr, steps.ids.get(), steps.weights.get(), shape, steps.order()).ok());
        ASSERT_TRUE(CutExpertRows(nullptr, steps.rows()).ok());
        const Ordered got = one.Read(), want = steps.Read();
        EXPECT_EQ(got.offsets, want.offsets);
        EXPECT_EQ(got.token_of, want.token_of);
        EXPECT_EQ(got.place_of, want.place_of);
        EXPECT_EQ(got.weight_of, want.weight_of);
        EXPECT_EQ(got.tiles, want.tiles);
      }
    }
  }
}

TEST_F(RoutingTest, CombinesInTheOrderOfPairs) {
  const RouteShape shape{13, 32, 6};
  constexpr size_t kDim = 520;
  const std::vector<uint16_t> made = ToBf16(RandomFloats(13 * 6 * kDim, 7, 8.0f));
  const std::vector<uint16_t> shared = ToBf16(RandomFloats(13 * kDim, 8, 8.0f));
  std::vector<int32_t> place_of(13 * 6);
  std::iota(place_of.begin(), place_of.end(), 0);
  SeededRandom random(9);
  for (size_t i = place_of.size() - 1; i > 0; --i) {
    std::swap(place_of[i], place_of[random.Next() % (i + 1)]);
  }
  std::vector<float> want(13 * kDim, 0.0f);
  const std::vector<float> values = FromBf16(made);
  const std::vector<float> last = FromBf16(shared);
  for (size_t t = 0; t < 13; ++t) {
    for (size_t c = 0; c < kDim; ++c) {
      float& sum = want[t * kDim + c];
      for (size_t i = 0; i < 6; ++i) {
        sum += values[static_cast<size_t>(place_of[t * 6 + i]) * kDim + c];
      }
      sum += last[t * kDim + c];
    }
  }
  const auto device_made = DeviceBuffer<uint16_t>::Of(made).value();
  const auto device_shared = DeviceBuffer<uint16_t>::Of(shared).value();
  const auto device_place = DeviceBuffer<int32_t>::Of(place_of).value();
  const auto out = DeviceBuffer<uint16_t>::Create(want.size()).value();
  ASSERT_TRUE(CombineExperts(nullptr, device_made.get(), device_place.get(), device_shared.get(),
                             shape, kDim, out.get())
                  .ok());
  EXPECT_EQ(out.Read().value(), ToBf16(want));
}

}  // namespace
}  // namespace cairn::kernels::cuda
