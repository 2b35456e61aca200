#include "kernels/cuda/step_plan.h"

#include <algorithm>

#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

class StepPlanTest : public DeviceTest {};

template <typename T>
DeviceBuffer<T> Poisoned(size_t count) {
  DeviceBuffer<T> buffer = DeviceBuffer<T>::Create(count).value();
  EXPECT_TRUE(buffer.Fill(0xa5).ok());
  return buffer;
}

// Two sequences: one that begins, one whose ring of 200 rows has gone round.
constexpr StepShape kShape = {.spans = 2,
                              .span_tokens_max = 5,
                              .ring = 200,
                              .csa_rows = 100,
                              .hca_rows = 4,
                              .index_topk = 50};
const std::vector<StepSpan> kSpans = {{0, 5, 0, 0}, {5, 2, 2, 254}};

TEST_F(StepPlanTest, TokensSeeTheirWindowAndTheirRows) {
  const auto spans = DeviceBuffer<StepSpan>::Of(kSpans).value();
  const auto position = Poisoned<int32_t>(7), visible = Poisoned<int32_t>(7);
  const auto own = Poisoned<int64_t>(7);
  const auto window = Poisoned<AttentionList>(7), csa = Poisoned<AttentionList>(7),
             hca = Poisoned<AttentionList>(7);
  ASSERT_TRUE(
      FillTokenPlan(nullptr, kShape, spans.get(),
                    {position.get(), own.get(), visible.get(), window.get(), csa.get(), hca.get()})
          .ok());
  EXPECT_EQ(position.Read().value(), (std::vector<int32_t>{0, 1, 2, 3, 4, 254, 255}));
  EXPECT_EQ(own.Read().value(), (std::vector<int64_t>{0, 1, 2, 3, 4, 454, 455}));
  EXPECT_EQ(visible.Read().value(), (std::vector<int32_t>{0, 0, 0, 1, 1, 63, 64}));
  const AttentionList first = window.Read().value()[3];
  EXPECT_EQ(first.window_base, 0);
  EXPECT_EQ(first.window_first, 0);
  EXPECT_EQ(first.window_count, 4);
  EXPECT_EQ(first.compressed_count, 0);
  const AttentionList last = csa.Read().value()[6];
  EXPECT_EQ(last.window_base, 400);
  EXPECT_EQ(last.window_first, 128);
  EXPECT_EQ(last.window_count, 128);
  EXPECT_EQ(last.compressed_base, 200);
  EXPECT_EQ(last.compressed_count, 50);
  const std::vector<AttentionList> dense = hca.Read().value();
  EXPECT_EQ(dense[5].compressed_count, 1);
  EXPECT_EQ(dense[6].compressed_count, 2);
  EXPECT_EQ(dense[6].compressed_base, 8);
}

TEST_F(StepPlanTest, ARingThatIsTooSmallIsRefused) {
  StepShape shape = kShape;
  shape.ring = 131;
  EXPECT_EQ(FillTokenPlan(nullptr, shape, nullptr, {}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(StepPlanTest, GroupsThatCloseHaveARowAndOthersNone) {
  const auto spans = DeviceBuffer<StepSpan>::Of(kSpans).value();
  const auto row = Poisoned<int64_t>(4);
  const auto position = Poisoned<int32_t>(4);
  ASSERT_TRUE(FillGroupPlan(nullptr, kShape, 4, spans.get(), {row.get(), position.get()}).ok());
  EXPECT_EQ(row.Read().value(), (std::vector<int64_t>{0, -1, 263, -1}));
  EXPECT_EQ(position.Read().value(), (std::vector<int32_t>{0, 0, 252, 0}));
  const auto hca_row = Poisoned<int64_t>(2);
  const auto hca_position = Poisoned<int32_t>(2);
  ASSERT_TRUE(
      FillGroupPlan(nullptr, kShape, 128, spans.get(), {hca_row.get(), hca_position.get()}).ok());
  EXPECT_EQ(hca_row.Read().value(), (std::vector<int64_t>{-1, 9}));
  EXPECT_EQ(hca_position.Read().value(), (std::vector<int32_t>{0, 128}));
  EXPECT_EQ(FillGroupPlan(nullptr, kShape, 5, nullptr, {}).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(StepPlanTest, CompressorsFindTheirStates) {
  const auto spans = DeviceBuffer<StepSpan>::Of(kSpans).value();
  float* const base = reinterpret_cast<float*>(4096);
  const auto states = DeviceBuffer<float*>::Of(std::vector<float*>{base, base + 100}).value();
  const auto out = Poisoned<CompressorSpan>(4);
  ASSERT_TRUE(
      FillCompressorSpans(nullptr, kShape, 4, spans.get(), states.get(), 2, 10, out.get()).ok());
  const std::vector<CompressorSpan> got = out.Read().value();
  EXPECT_EQ(got[0].state, base);
  EXPECT_EQ(got[1].state, base + 20);
  EXPECT_EQ(got[3].state, base + 120);
  EXPECT_EQ(got[3].first, 5);
  EXPECT_EQ(got[3].count, 2);
  EXPECT_EQ(got[3].position, 254);
  EXPECT_EQ(got[3].out, 2);
}

TEST_F(StepPlanTest, IndexKeysGoToTheirRowsAndGroupsScoreWhatTheySee) {
  const auto spans = DeviceBuffer<StepSpan>::Of(kSpans).value();
  const auto row = DeviceBuffer<int64_t>::Of(std::vector<int64_t>{0, -1, 263, -1}).value();
  uint8_t* const data = reinterpret_cast<uint8_t*>(4096);
  uint8_t* const scales = reinterpret_cast<uint8_t*>(1 << 20);
  const auto pools =
      DeviceBuffer<IndexPool>::Of(std::vector<IndexPool>{{data, scales, 300}}).value();
  const auto slots = Poisoned<IndexKeySlot>(4);
  const auto groups = Poisoned<IndexGroup>(2);
  ASSERT_TRUE(FillIndexPlan(nullptr, kShape, spans.get(), {row.get(), nullptr}, pools.get(), 1,
                            slots.get(), groups.get())
                  .ok());
  const std::vector<IndexKeySlot> to = slots.Read().value();
  EXPECT_EQ(to[0].data, data);
  EXPECT_EQ(to[1].data, data + 300 * 64);
  EXPECT_EQ(to[2].scales, scales + 263 * 4);
  const std::vector<IndexGroup> got = groups.Read().value();
  EXPECT_EQ(got[0].rows, 0) << "all rows are taken";
  EXPECT_EQ(got[0].tokens, 5);
  EXPECT_EQ(got[1].rows, 64);
  EXPECT_EQ(got[1].first, 5);
  EXPECT_EQ(got[1].tokens, 2);
  EXPECT_EQ(got[1].data, data + 200 * 64);
  EXPECT_EQ(got[1].scales, scales + 200 * 4);
}

TEST_F(StepPlanTest, DecodingGoesOnBehindTheSpans) {
  const auto spans = DeviceBuffer<StepSpan>::Of(kSpans).value();
  const auto next = DeviceBuffer<int32_t>::Of(std::vector<int32_t>{7, 9}).value();
  const auto tokens = Poisoned<int32_t>(2);
  ASSERT_TRUE(NextStep(nullptr, spans.get(), 2, next.get(), tokens.get()).ok());
  const std::vector<StepSpan> got = spans.Read().value();
  EXPECT_EQ(got[0].position, 5);
  EXPECT_EQ(got[1].position, 256);
  EXPECT_EQ(got[1].first, 1);
  EXPECT_EQ(got[1].count, 1);
  EXPECT_EQ(got[1].slot, 2);
  EXPECT_EQ(tokens.Read().value(), (std::vector<int32_t>{7, 9}));
}

TEST_F(StepPlanTest, TheLastRowOfASpanIsTaken) {
  const auto spans = DeviceBuffer<StepSpan>::Of(kSpans).value();
  const int64_t width = 2056;
  const std::vector<uint16_t> rows = ToBf16(RandomFloats(static_cast<size_t>(7 * width), 3));
  const auto from = DeviceBuffer<uint16_t>::Of(rows).value();
  const auto out = Poisoned<uint16_t>(static_cast<size_t>(2 * width));
  ASSERT_TRUE(TakeLastRows(nullptr, spans.get(), 2, width, from.get(), out.get()).ok());
  std::vector<uint16_t> want(rows.begin() + 4 * width, rows.begin() + 5 * width);
  want.insert(want.end(), rows.begin() + 6 * width, rows.end());
  EXPECT_EQ(out.Read().value(), want);
}

TEST_F(StepPlanTest, EmbeddingsComeInEveryStream) {
  const int64_t dim = 72, hc = 4;
  const std::vector<uint16_t> table = ToBf16(RandomFloats(static_cast<size_t>(5 * dim), 1));
  const std::vector<int32_t> tokens = {4, 0, 4};
  const auto on_device = DeviceBuffer<uint16_t>::Of(table).value();
  const auto token = DeviceBuffer<int32_t>::Of(tokens).value();
  const auto streams = Poisoned<uint16_t>(static_cast<size_t>(3 * hc * dim));
  ASSERT_TRUE(EmbedTokens(nullptr, on_device.get(), dim, hc, token.get(), 3, streams.get()).ok());
  std::vector<uint16_t> want;
  for (const int32_t t : tokens) {
    for (int64_t j = 0; j < hc; ++j) {
      want.insert(want.end(), table.begin() + t * dim, table.begin() + (t + 1) * dim);
    }
  }
  EXPECT_EQ(streams.Read().value(), want);
}

TEST_F(StepPlanTest, ArgmaxTakesTheFirstOfEqualOnes) {
  const int64_t vocab = 1003;
  std::vector<float> logits = RandomFloats(static_cast<size_t>(3 * vocab), 2);
  logits[700] = logits[31] = 5.0f;                    // row 0
  std::fill_n(logits.begin() + vocab, vocab, -3.0f);  // row 1
  logits[static_cast<size_t>(3 * vocab - 1)] = 7.0f;  // row 2
  const auto on_device = DeviceBuffer<float>::Of(logits).value();
  const auto next = Poisoned<int32_t>(3);
  ASSERT_TRUE(Argmax(nullptr, on_device.get(), 3, vocab, next.get()).ok());
  EXPECT_EQ(next.Read().value(), (std::vector<int32_t>{31, 0, 1002}));
}

}  // namespace
}  // namespace cairn::kernels::cuda
