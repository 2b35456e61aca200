// indexer_test_data.h: for the indexer's tests: tokens and keys, what the CPU makes of them, and
// what the GPU does.
//
// Threads: one. Nothing here is for programs.
#ifndef CAIRN_KERNELS_CUDA_INDEXER_TEST_DATA_H_
#define CAIRN_KERNELS_CUDA_INDEXER_TEST_DATA_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/kv_rows.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/streams.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/cuda/indexer.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {

inline const RowCodec& IndexCodec() {
  static const RowCodec codec(RowEncoding::kFp4, kIndexDim, 0);
  return codec;
}

// Keys of one sequence as they are stored.
struct KeyPool {
  std::vector<uint8_t> data, scales;

  int64_t rows() const { return static_cast<int64_t>(scales.size()) / kIndexRowScaleBytes; }
  void Add(const float* key) {
    data.resize(data.size() + kIndexRowDataBytes);
    scales.resize(scales.size() + kIndexRowScaleBytes);
    IndexCodec().Encode(key, data.data() + data.size() - kIndexRowDataBytes,
                        scales.data() + scales.size() - kIndexRowScaleBytes);
  }
  void Decode(int64_t row, float* out) const {
    IndexCodec().Decode(data.data() + row * kIndexRowDataBytes,
                        scales.data() + row * kIndexRowScaleBytes, out);
  }
};

inline KeyPool RandomKeys(int64_t rows, uint64_t seed) {
  const std::vector<float> values = RandomFloats(static_cast<size_t>(rows * kIndexDim), seed, 4.0f);
  KeyPool pool;
  for (int64_t j = 0; j < rows; ++j) pool.Add(values.data() + j * kIndexDim);
  return pool;
}

// Tokens as they come from the linears. BF16 values, so that both types hold them.
struct Tokens {
  std::vector<float> q, weights, cos_sin;

  int64_t count() const { return static_cast<int64_t>(weights.size()) / kIndexHeads; }
};

inline Tokens RandomTokens(int64_t count, uint64_t seed) {
  Tokens tokens;
  tokens.q = FromBf16(
      ToBf16(RandomFloats(static_cast<size_t>(count * kIndexHeads * kIndexDim), seed, 3.0f)));
  tokens.weights =
      FromBf16(ToBf16(RandomFloats(static_cast<size_t>(count * kIndexHeads), seed + 1, 2.0f)));
  const RopeTable rope({.dim = kIndexRopeDim, .base = 160000.0});
  tokens.cos_sin.resize(static_cast<size_t>(count * kIndexRopeDim));
  for (int64_t t = 0; t < count; ++t) {
    rope.Angles(1000 * t + 7, tokens.cos_sin.data() + t * kIndexRopeDim);
  }
  return tokens;
}

// q as the scores use it (rotated, transformed, rounded) and scaled weights, as
// engine/forward/indexer.cc makes them.
inline Tokens PreparedOnCpu(Tokens tokens) {
  const float scale = static_cast<float>(1.0 / std::sqrt(128.0 * 64.0));
  for (int64_t t = 0; t < tokens.count(); ++t) {
    for (int64_t h = 0; h < kIndexHeads; ++h) {
      float* const head = tokens.q.data() + (t * kIndexHeads + h) * kIndexDim;
      Rotate(head + kIndexDim - kIndexRopeDim, tokens.cos_sin.data() + t * kIndexRopeDim,
             kIndexRopeDim, false);
      Hadamard(head, kIndexDim);
      SimulateFp4({head, static_cast<size_t>(kIndexDim)}, 32);
    }
  }
  for (float& w : tokens.weights) w *= scale;
  return tokens;
}

// Scores of rows [0, n) for token t of `prepared`, in the CPU engine's order.
inline std::vector<float> ScoresOnCpu(const Tokens& prepared, int64_t t, const KeyPool& pool,
                                      int64_t n) {
  constexpr int64_t kPanel = 16;
  std::vector<float> scores(static_cast<size_t>(n));
  std::vector<float> panel(kIndexDim * kPanel), tile(kIndexHeads * kPanel);
  for (int64_t row = 0; row < n; row += kPanel) {
    const int64_t count = std::min(kPanel, n - row);
    const uint8_t* data[kPanel];
    const uint8_t* scales[kPanel];
    for (int64_t j = 0; j < count; ++j) {
      data[j] = pool.data.data() + (row + j) * kIndexRowDataBytes;
      scales[j] = pool.scales.data() + (row + j) * kIndexRowScaleBytes;
    }
    IndexCodec().DecodePanel(data, scales, count, panel.data());
    std::fill(tile.begin(), tile.end(), 0.0f);
    PanelMultiply(panel.data(), kIndexDim, prepared.q.data() + t * kIndexHeads * kIndexDim,
                  kIndexDim, kIndexHeads, tile.data(), kPanel);
    float sum[kPanel];
    CombineHeads(tile.data(), prepared.weights.data() + t * kIndexHeads, kIndexHeads, sum);
    std::copy_n(sum, count, scores.begin() + row);
  }
  return scores;
}

// Which tokens read which pool together.
struct GroupOf {
  int64_t pool, first, tokens;
};

struct ScoredOnGpu {
  std::vector<float> scores;  // [tokens][stride]; what was not written is NaN
  int64_t stride = 0;

  std::span<const float> Row(int64_t token, int64_t n) const {
    return {scores.data() + token * stride, static_cast<size_t>(n)};
  }
};

// Prepares and scores. `counts`: rows that each token sees.
inline absl::StatusOr<ScoredOnGpu> ScoreOnGpu(const Tokens& tokens,
                                              const std::vector<KeyPool>& pools,
                                              const std::vector<GroupOf>& groups,
                                              const std::vector<int32_t>& counts, int64_t stride,
                                              bool bf16 = false) {
  CAIRN_ASSIGN_OR_RETURN(const OwnedStream stream, OwnedStream::Create());
  CAIRN_ASSIGN_OR_RETURN(const auto q, DeviceBuffer<float>::Of(tokens.q));
  CAIRN_ASSIGN_OR_RETURN(const auto weights, DeviceBuffer<float>::Of(tokens.weights));
  CAIRN_ASSIGN_OR_RETURN(const auto q16, DeviceBuffer<uint16_t>::Of(ToBf16(tokens.q)));
  CAIRN_ASSIGN_OR_RETURN(const auto weights16, DeviceBuffer<uint16_t>::Of(ToBf16(tokens.weights)));
  CAIRN_ASSIGN_OR_RETURN(const auto cos_sin, DeviceBuffer<float>::Of(tokens.cos_sin));
  const auto bytes = static_cast<size_t>(tokens.count() * PreparedIndexQueryBytes());
  CAIRN_ASSIGN_OR_RETURN(auto prepared, DeviceBuffer<uint8_t>::Create(bytes));
  CAIRN_RETURN_IF_ERROR(prepared.Fill(0xff));
  std::vector<DeviceBuffer<uint8_t>> data, scales;
  for (const KeyPool& pool : pools) {
    CAIRN_ASSIGN_OR_RETURN(data.emplace_back(), DeviceBuffer<uint8_t>::Of(pool.data));
    CAIRN_ASSIGN_OR_RETURN(scales.emplace_back(), DeviceBuffer<uint8_t>::Of(pool.scales));
  }
  std::vector<IndexGroup> list;
  int64_t tokens_max = 1;
  for (const GroupOf& g : groups) {
    const auto pool = static_cast<size_t>(g.pool);
    IndexGroup group{data[pool].get(), scales[pool].get(), static_cast<int32_t>(g.first),
                     static_cast<int32_t>(g.tokens), 0};
    for (int64_t t = g.first; t < g.first + g.tokens; ++t) {
      group.rows = std::max(group.rows, counts[static_cast<size_t>(t)]);
    }
    tokens_max = std::max(tokens_max, g.tokens);
    list.push_back(group);
  }
  CAIRN_ASSIGN_OR_RETURN(const auto device_groups, DeviceBuffer<IndexGroup>::Of(list));
  CAIRN_ASSIGN_OR_RETURN(const auto device_counts, DeviceBuffer<int32_t>::Of(counts));
  CAIRN_ASSIGN_OR_RETURN(auto scores,
                         DeviceBuffer<float>::Create(static_cast<size_t>(tokens.count() * stride)));
  CAIRN_RETURN_IF_ERROR(scores.Fill(0xff));
  // Filling is another stream's.
  CAIRN_RETURN_IF_ERROR(Synchronize(nullptr));
  const IndexValues q_values = bf16 ? IndexValues(q16.get()) : IndexValues(q.get());
  const IndexValues weight_values =
      bf16 ? IndexValues(weights16.get()) : IndexValues(weights.get());
  CAIRN_RETURN_IF_ERROR(PrepareIndexQueries(
      {tokens.count(), q_values, weight_values, cos_sin.get()}, prepared.get(), stream.get()));
  CAIRN_RETURN_IF_ERROR(
      ScoreIndexRows({prepared.get(), device_groups.get(), static_cast<int64_t>(list.size()),
                      tokens_max, device_counts.get(), scores.get(), stride},
                     stream.get()));
  CAIRN_RETURN_IF_ERROR(Synchronize(stream.get()));
  CAIRN_ASSIGN_OR_RETURN(std::vector<float> values, scores.Read());
  return ScoredOnGpu{std::move(values), stride};
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_INDEXER_TEST_DATA_H_
