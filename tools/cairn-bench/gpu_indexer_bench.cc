// The lightning indexer on the GPU, in DeepSeek-V4's shape (64 heads of 128 dims, rows of 68
// bytes): decoding, which reads keys, prefilling, which multiplies, and the choice of the best
// rows.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/indexer.h"
#include "kernels/cuda/top_k.h"
#include "store/base/random.h"
#include "tools/cairn-bench/gpu_benches.h"
#include "tools/cairn-bench/gpu_timing.h"

namespace cairn::bench {
namespace {

using namespace kernels::cuda;

// So many bytes of keys or scores in turn that no cache holds them.
constexpr int64_t kRotatedBytes = 160 << 20;

std::vector<uint8_t> RandomBytes(int64_t count, uint64_t seed) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  SeededRandom(seed).Fill(bytes);
  return bytes;
}

std::vector<float> RandomFloats(int64_t count, uint64_t seed) {
  const std::vector<uint8_t> bytes = RandomBytes(2 * count, seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(bytes[2 * i] * 256 + bytes[2 * i + 1]) * 0x1p-15f - 1.0f;
  }
  return values;
}

struct Shape {
  const char* name;
  int64_t tokens, rows;
  int64_t sequences;  // 1: the tokens share their keys, else each has its own
};

// Prepared tokens, and sets of keys that launches take in turn.
struct Scorer {
  Shape shape;
  OwnedStream stream;
  DeviceBuffer<uint8_t> prepared, data, scales;
  DeviceBuffer<int32_t> counts;
  DeviceBuffer<float> scores;
  std::vector<DeviceBuffer<IndexGroup>> sets;
  int64_t groups = 0, group_tokens = 1;

  int64_t key_bytes() const {
    return shape.sequences * shape.rows * (kIndexRowDataBytes + kIndexRowScaleBytes);
  }
  absl::Status Launch(int64_t i) const {
    const DeviceBuffer<IndexGroup>& set = sets[static_cast<size_t>(i) % sets.size()];
    return ScoreIndexRows(
        {prepared.get(), set.get(), groups, group_tokens, counts.get(), scores.get(), shape.rows},
        stream.get());
  }
};

absl::Status PrepareTokens(Scorer& s) {
  const int64_t tokens = s.shape.tokens;
  CAIRN_ASSIGN_OR_RETURN(
      const auto q, DeviceBuffer<float>::Of(RandomFloats(tokens * kIndexHeads * kIndexDim, 1)));
  CAIRN_ASSIGN_OR_RETURN(const auto weights,
                         DeviceBuffer<float>::Of(RandomFloats(tokens * kIndexHeads, 2)));
  CAIRN_ASSIGN_OR_RETURN(const auto turns,
                         DeviceBuffer<float>::Of(RandomFloats(tokens * kIndexRopeDim, 3)));
  CAIRN_ASSIGN_OR_RETURN(s.prepared, DeviceBuffer<uint8_t>::Create(
                                         static_cast<size_t>(tokens * PreparedIndexQueryBytes())));
  CAIRN_RETURN_IF_ERROR(PrepareIndexQueries({tokens, q.get(), weights.get(), turns.get()},
                                            s.prepared.get(), s.stream.get()));
  return Synchronize(s.stream.get());
}

absl::StatusOr<std::shared_ptr<Scorer>> MakeScorer(const Shape& shape) {
  CAIRN_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create());
  const auto s =
      std::make_shared<Scorer>(Scorer{shape, std::move(stream), {}, {}, {}, {}, {}, {}, 0, 1});
  CAIRN_RETURN_IF_ERROR(PrepareTokens(*s));
  const int64_t set_count = std::max<int64_t>(kRotatedBytes / s->key_bytes(), 1);
  const int64_t rows = set_count * shape.sequences * shape.rows;
  // The same random million rows again and again.
  std::vector<uint8_t> data = RandomBytes(std::min<int64_t>(rows, 1 << 20) * kIndexRowDataBytes, 4);
  const size_t distinct = data.size();
  data.resize(static_cast<size_t>(rows * kIndexRowDataBytes));
  for (size_t at = distinct; at < data.size(); ++at) data[at] = data[at - distinct];
  std::vector<uint8_t> scales = RandomBytes(rows * kIndexRowScaleBytes, 5);
  for (uint8_t& scale : scales) scale = static_cast<uint8_t>(120 + scale % 4);
  CAIRN_ASSIGN_OR_RETURN(s->data, DeviceBuffer<uint8_t>::Of(data));
  CAIRN_ASSIGN_OR_RETURN(s->scales, DeviceBuffer<uint8_t>::Of(scales));
  CAIRN_ASSIGN_OR_RETURN(
      s->counts, DeviceBuffer<int32_t>::Of(std::vector<int32_t>(static_cast<size_t>(shape.tokens),
                                                                static_cast<int32_t>(shape.rows))));
  CAIRN_ASSIGN_OR_RETURN(
      s->scores, DeviceBuffer<float>::Create(static_cast<size_t>(shape.tokens * shape.rows)));
  s->group_tokens = shape.sequences > 1 ? 1 : std::min(shape.tokens, kIndexGroupTokensMax);
  s->groups = shape.tokens / s->group_tokens;
  for (int64_t set = 0; set < set_count; ++set) {
    std::vector<IndexGroup> groups;
    for (int64_t g = 0; g < s->groups; ++g) {
      const int64_t first = (set * shape.sequences + g % shape.sequences) * shape.rows;
      groups.push_back({s->data.get() + first * kIndexRowDataBytes,
                        s->scales.get() + first * kIndexRowScaleBytes,
                        static_cast<int32_t>(g * s->group_tokens),
                        static_cast<int32_t>(s->group_tokens), static_cast<int32_t>(shape.rows)});
    }
    CAIRN_ASSIGN_OR_RETURN(s->sets.emplace_back(), DeviceBuffer<IndexGroup>::Of(groups));
  }
  return s;
}

absl::StatusOr<Prepared> PrepareDecode(const Shape& shape) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Scorer> s, MakeScorer(shape));
  Prepared prepared;
  CAIRN_ASSIGN_OR_RETURN(prepared.contenders.emplace_back(), DeviceCopyLimit());
  prepared.contenders.push_back(
      {"ScoreIndexRows, keys read", Role::kOurs, [s]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(
             const double seconds,
             SecondsALaunch(s->stream.get(), [&](int64_t i) { return s->Launch(i); }));
         return static_cast<double>(s->key_bytes()) / seconds * 1e-9;
       }});
  return prepared;
}

absl::StatusOr<Prepared> PreparePrefill(const Shape& shape) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Scorer> s, MakeScorer(shape));
  Prepared prepared;
  prepared.contenders.push_back(
      {"ScoreIndexRows", Role::kOurs, [s]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(
             const double seconds,
             SecondsALaunch(s->stream.get(), [&](int64_t i) { return s->Launch(i); }));
         const double products = static_cast<double>(s->shape.tokens * s->shape.rows) *
                                 static_cast<double>(kIndexHeads * kIndexDim);
         return 2.0 * products / seconds * 1e-12;
       }});
  return prepared;
}

struct Chooser {
  OwnedStream stream;
  DeviceBuffer<float> scores;
  DeviceBuffer<int32_t> counts, indices;
};

absl::StatusOr<Prepared> PrepareTopK(const Shape& shape) {
  constexpr int64_t kChosen = 512;
  const int64_t values = shape.tokens * shape.rows;
  const int64_t sets =
      std::max<int64_t>(kRotatedBytes / (values * static_cast<int64_t>(sizeof(float))), 1);
  CAIRN_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create());
  std::vector<float> scores = RandomFloats(std::min<int64_t>(sets * values, 4 << 20), 6);
  const size_t distinct = scores.size();
  scores.resize(static_cast<size_t>(sets * values));
  for (size_t at = distinct; at < scores.size(); ++at) scores[at] = scores[at - distinct];
  CAIRN_ASSIGN_OR_RETURN(auto device_scores, DeviceBuffer<float>::Of(scores));
  CAIRN_ASSIGN_OR_RETURN(auto counts,
                         DeviceBuffer<int32_t>::Of(std::vector<int32_t>(
                             static_cast<size_t>(shape.tokens), static_cast<int32_t>(shape.rows))));
  CAIRN_ASSIGN_OR_RETURN(
      auto indices, DeviceBuffer<int32_t>::Create(static_cast<size_t>(shape.tokens * kChosen)));
  const auto c = std::make_shared<Chooser>(
      Chooser{std::move(stream), std::move(device_scores), std::move(counts), std::move(indices)});
  Prepared prepared;
  prepared.contenders.push_back(
      {"TopK", Role::kOurs, [c, shape, values, sets]() -> absl::StatusOr<double> {
         const auto launch = [&](int64_t i) {
           return TopK({shape.tokens, c->scores.get() + i % sets * values, shape.rows,
                        c->counts.get(), shape.rows, kChosen, c->indices.get()},
                       c->stream.get());
         };
         CAIRN_ASSIGN_OR_RETURN(const double seconds, SecondsALaunch(c->stream.get(), launch));
         return seconds * 1e6;
       }});
  return prepared;
}

constexpr Shape kDecode[] = {
    {"1", 1, 262144, 1}, {"16", 16, 32768, 16}, {"16-long", 16, 262144, 16}};
constexpr Shape kPrefill = {"prefill", 1024, 32768, 1};
constexpr Shape kChoices[] = {{"1", 1, 262144, 1}, {"16", 16, 32768, 16}, {"1024", 1024, 32768, 1}};

}  // namespace

void AddGpuIndexerBenches(std::vector<Bench>& benches) {
  for (const Shape& shape : kDecode) {
    benches.push_back({.name = absl::StrCat("gpu-indexer-decode-", shape.name),
                       .what = absl::StrCat("scores of ", shape.rows,
                                            " rows of FP4 keys each for tokens of different "
                                            "sequences: ",
                                            shape.tokens),
                       .unit = "GB/s",
                       .ratio_bound = 0.7,
                       .prepare = [&shape](const BenchContext&) { return PrepareDecode(shape); }});
  }
  benches.push_back({.name = "gpu-indexer-prefill",
                     .what = "scores of 32768 rows for each of 1024 tokens of one sequence",
                     .unit = "TFLOP/s",
                     .prepare = [](const BenchContext&) { return PreparePrefill(kPrefill); }});
  for (const Shape& shape : kChoices) {
    benches.push_back({.name = absl::StrCat("gpu-top-k-", shape.name),
                       .what = absl::StrCat("the best 512 of ", shape.rows,
                                            " scores for each of so many tokens: ", shape.tokens),
                       .unit = "us",
                       .higher_is_better = false,
                       .prepare = [&shape](const BenchContext&) { return PrepareTopK(shape); }});
  }
}

}  // namespace cairn::bench
