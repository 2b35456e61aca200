// The memory-bound kernels between the linears, at the widths of DeepSeek-V4-Flash: bytes read and
// written once over the time of 4096 tokens, beside a device-to-device copy; and how long one token
// takes. Launches follow one another in a graph.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/compressor.h"
#include "kernels/cuda/gather.h"
#include "kernels/cuda/hyper_connection.h"
#include "kernels/cuda/kv_writer.h"
#include "kernels/cuda/norms.h"
#include "kernels/cuda/routing.h"
#include "store/base/random.h"
#include "tools/cairn-bench/flash_layout.h"
#include "tools/cairn-bench/gpu_benches.h"
#include "tools/cairn-bench/gpu_graph.h"
#include "tools/cairn-bench/gpu_timing.h"

namespace cairn::bench {
namespace {

using kernels::cuda::CudaStatus;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::Stream;

constexpr int64_t kDim = 4096;
constexpr int64_t kHeads = 64;
constexpr int64_t kHeadDim = 512;
constexpr int64_t kExperts = 256;
constexpr int64_t kChosen = 6;
constexpr float kEps = 1e-6f;
constexpr int64_t kManyTokens = 4096;
constexpr int64_t kInFlightBytes = 512 << 20;  // inputs taken in turn: several times the cache
constexpr int64_t kTurnsMax = 64;

using Bytes = DeviceBuffer<uint8_t>;

// Numbers from 0.5 to 2 of either sign, whether they are read as BF16 or as F32.
absl::StatusOr<Bytes> MadeNumbers(int64_t bytes) {
  constexpr size_t kPattern = 1 << 20;
  static const std::vector<uint16_t>& pattern = *[] {
    SeededRandom random(1);
    auto* const values = new std::vector<uint16_t>(kPattern / 2);
    for (uint16_t& v : *values) v = static_cast<uint16_t>(0x3f00 | (random.Next() & 0x80ff));
    return values;
  }();
  CAIRN_ASSIGN_OR_RETURN(Bytes buffer, Bytes::Create(static_cast<size_t>(bytes)));
  for (size_t at = 0; at < buffer.count(); at += kPattern) {
    CAIRN_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpy(buffer.get() + at, pattern.data(),
                              std::min(kPattern, buffer.count() - at), cudaMemcpyHostToDevice),
                   "filling"));
  }
  return buffer;
}

// Memory of one kind for every launch of a rotation.
struct Turns {
  Bytes all;
  int64_t each = 0;
  int64_t count = 0;
  template <typename T>
  T* at(int64_t i) const {
    return reinterpret_cast<T*>(all.get() + i % count * each);
  }
  static absl::StatusOr<Turns> Make(int64_t bytes, int64_t count) {
    const int64_t each = (bytes + 255) / 256 * 256;
    CAIRN_ASSIGN_OR_RETURN(Bytes all, MadeNumbers(each * count));
    return Turns{std::move(all), each, count};
  }
};

// What a comparison launches, and the bytes that one launch cannot but read and write.
struct Work {
  std::function<absl::Status(Stream, int64_t i)> launch;
  int64_t bytes = 0;
};

int64_t TurnsFor(int64_t bytes) {
  return std::clamp<int64_t>(kInFlightBytes / bytes, 1, kTurnsMax);
}

// post [tokens, 4] of 0 and comb [tokens, 4, 4] of the identity: streams that are merged again and
// again stay as they are.
absl::StatusOr<Turns> NoMerging(int64_t tokens) {
  CAIRN_ASSIGN_OR_RETURN(Turns factors, Turns::Make(tokens * 64, 2));
  CAIRN_RETURN_IF_ERROR(factors.all.Fill(0));
  std::vector<float> identities(static_cast<size_t>(tokens * 16));
  for (size_t i = 0; i < identities.size(); ++i) identities[i] = i % 16 % 5 == 0 ? 1.0f : 0.0f;
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaMemcpy(factors.at<float>(1), identities.data(),
                            identities.size() * sizeof(float), cudaMemcpyHostToDevice),
                 "filling"));
  return factors;
}

absl::StatusOr<Work> Mix(int64_t tokens, bool merge) {
  const int64_t fn_bytes = kernels::cuda::kHcMixes * 4 * kDim * 4;
  struct State {
    Turns streams, x, fn, f, scale, factors, out;
  };
  const int64_t turns = TurnsFor(tokens * 4 * kDim * 2 + fn_bytes);
  CAIRN_ASSIGN_OR_RETURN(Turns streams, Turns::Make(tokens * 4 * kDim * 2, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns x, Turns::Make(tokens * kDim * 2, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns f, Turns::Make(tokens * kDim * 2, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns fn, Turns::Make(fn_bytes, tokens == 1 ? turns : 1));
  CAIRN_ASSIGN_OR_RETURN(Turns scale, Turns::Make(kernels::cuda::kHcMixes * 4, 2));
  CAIRN_ASSIGN_OR_RETURN(Turns factors, NoMerging(tokens));
  CAIRN_ASSIGN_OR_RETURN(Turns out, Turns::Make(tokens * 64, 2));
  const auto s =
      std::make_shared<State>(State{std::move(streams), std::move(x), std::move(fn), std::move(f),
                                    std::move(scale), std::move(factors), std::move(out)});
  return Work{[s, tokens, merge](Stream stream, int64_t i) {
                const kernels::cuda::HcWeights weights{s->fn.at<float>(i), s->scale.at<float>(0),
                                                       s->scale.at<float>(1)};
                const kernels::cuda::HcShape shape{.rows = tokens, .dim = kDim};
                uint16_t* const streams_at = s->streams.at<uint16_t>(i);
                uint16_t* const x_at = s->x.at<uint16_t>(i);
                float* const post = s->out.at<float>(0);
                float* const comb = s->out.at<float>(1);
                if (!merge) {
                  return kernels::cuda::HcMix(stream, weights, shape, streams_at, x_at, post, comb);
                }
                const kernels::cuda::HcMerging merging{
                    s->f.at<uint16_t>(i), s->factors.at<float>(0), s->factors.at<float>(1)};
                return kernels::cuda::HcMergeMix(stream, merging, weights, shape, streams_at, x_at,
                                                 post, comb);
              },
              tokens * ((merge ? 10 : 5) * kDim * 2 + (merge ? 160 : 80)) + fn_bytes};
}

absl::StatusOr<Work> MhcPre(int64_t tokens) { return Mix(tokens, false); }
absl::StatusOr<Work> MhcPostPre(int64_t tokens) { return Mix(tokens, true); }

absl::StatusOr<Work> MhcPost(int64_t tokens) {
  struct State {
    Turns streams, f, factors;
  };
  const int64_t turns = TurnsFor(tokens * 4 * kDim * 2);
  CAIRN_ASSIGN_OR_RETURN(Turns streams, Turns::Make(tokens * 4 * kDim * 2, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns f, Turns::Make(tokens * kDim * 2, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns factors, NoMerging(tokens));
  const auto s =
      std::make_shared<State>(State{std::move(streams), std::move(f), std::move(factors)});
  return Work{[s, tokens](Stream stream, int64_t i) {
                return kernels::cuda::HcMerge(
                    stream,
                    {s->f.at<uint16_t>(i), s->factors.at<float>(0), s->factors.at<float>(1)},
                    tokens, kDim, s->streams.at<uint16_t>(i));
              },
              tokens * (9 * kDim * 2 + 80)};
}

absl::StatusOr<Work> NormQuantise(int64_t tokens) {
  struct State {
    Turns x, out, codes, scales;
  };
  const int64_t turns = TurnsFor(tokens * kDim * 4);
  CAIRN_ASSIGN_OR_RETURN(Turns x, Turns::Make(tokens * kDim * 2, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns out, Turns::Make(tokens * kDim * 2, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns codes, Turns::Make(tokens * kDim, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns scales, Turns::Make(tokens * kDim / 32, turns));
  const auto s = std::make_shared<State>(
      State{std::move(x), std::move(out), std::move(codes), std::move(scales)});
  return Work{[s, tokens](Stream stream, int64_t i) {
                return kernels::cuda::RmsNormQuantise(
                    stream, s->x.at<uint16_t>(i), s->x.at<uint16_t>(i + 1), tokens, kDim, kEps,
                    s->out.at<uint16_t>(i), s->codes.at<uint8_t>(i), s->scales.at<float>(i),
                    tokens);
              },
              tokens * (kDim * 5 + kDim / 32)};
}

absl::StatusOr<Work> QueryHeads(int64_t tokens) {
  struct State {
    Turns q, angles;
  };
  const int64_t bytes = tokens * kHeads * kHeadDim * 2;
  CAIRN_ASSIGN_OR_RETURN(Turns q, Turns::Make(bytes, TurnsFor(bytes)));
  CAIRN_ASSIGN_OR_RETURN(Turns angles, Turns::Make(tokens * 256, 1));
  const auto s = std::make_shared<State>(State{std::move(q), std::move(angles)});
  return Work{[s, tokens](Stream stream, int64_t i) {
                uint16_t* const q_at = s->q.at<uint16_t>(i);
                return kernels::cuda::NormRotateHeads(stream, q_at, s->angles.at<float>(0), tokens,
                                                      kHeads, kEps, q_at);
              },
              2 * bytes + tokens * 256};
}

absl::StatusOr<Work> KvWrite(int64_t tokens) {
  struct State {
    Turns x, angles, rows, data, scales;
  };
  const int64_t turns = TurnsFor(tokens * kHeadDim * 4);
  CAIRN_ASSIGN_OR_RETURN(Turns x, Turns::Make(tokens * kHeadDim * 2, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns angles, Turns::Make(tokens * 256, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns rows, Turns::Make(tokens * 8, 1));
  CAIRN_ASSIGN_OR_RETURN(Turns data, Turns::Make(tokens * 576, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns scales, Turns::Make(tokens * 8, turns));
  std::vector<int64_t> numbers;
  for (int64_t t = 0; t < tokens; ++t) numbers.push_back(t);
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaMemcpy(rows.all.get(), numbers.data(), numbers.size() * sizeof(int64_t),
                            cudaMemcpyHostToDevice),
                 "filling"));
  const auto s = std::make_shared<State>(
      State{std::move(x), std::move(angles), std::move(rows), std::move(data), std::move(scales)});
  return Work{[s, tokens](Stream stream, int64_t i) {
                return kernels::cuda::WriteKvRows(
                    stream, s->x.at<uint16_t>(i), s->x.at<uint16_t>(i + 1), s->angles.at<float>(i),
                    s->rows.at<int64_t>(0), tokens, kEps,
                    {s->data.at<uint8_t>(i), s->scales.at<uint8_t>(i)});
              },
              tokens * (kHeadDim * 2 + 256 + 8 + 584)};
}

absl::StatusOr<Work> Compress(int64_t tokens, const kernels::cuda::CompressorShape& shape) {
  struct State {
    Turns kv, pooled, ape, carried;
    DeviceBuffer<kernels::cuda::CompressorSpan> spans;
  };
  const int64_t row_bytes = 2 * shape.width() * 4;
  const int64_t turns = TurnsFor(tokens * row_bytes);
  CAIRN_ASSIGN_OR_RETURN(Turns kv, Turns::Make(tokens * row_bytes, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns pooled,
                         Turns::Make((tokens / shape.ratio + 1) * shape.dim * 4, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns ape, Turns::Make(shape.ratio * shape.width() * 4, 1));
  CAIRN_ASSIGN_OR_RETURN(Turns carried, Turns::Make(shape.state_floats() * 4, 1));
  // One token is one that closes a group.
  const kernels::cuda::CompressorSpan span{
      .count = tokens, .position = tokens == 1 ? 1023 : 1024, .state = carried.at<float>(0)};
  CAIRN_ASSIGN_OR_RETURN(auto spans, DeviceBuffer<kernels::cuda::CompressorSpan>::Of({&span, 1}));
  const auto s = std::make_shared<State>(State{std::move(kv), std::move(pooled), std::move(ape),
                                               std::move(carried), std::move(spans)});
  const int64_t groups = std::max<int64_t>(tokens / shape.ratio, 1);
  return Work{[s, shape, groups](Stream stream, int64_t i) {
                const float* const kv_at = s->kv.at<float>(i);
                return kernels::cuda::PoolGroups(
                    stream, shape,
                    {kv_at, kv_at + shape.width(), 2 * shape.width(), s->ape.at<float>(0)},
                    s->spans.get(), 1, groups, s->pooled.at<float>(i));
              },
              tokens * row_bytes + groups * shape.dim * 4};
}

absl::StatusOr<Work> CompressCsa(int64_t tokens) { return Compress(tokens, {4, 512}); }
absl::StatusOr<Work> CompressHca(int64_t tokens) { return Compress(tokens, {128, 512}); }

// One gate's outputs to sorted pairs and their tiles: three launches, of few tokens one.
absl::StatusOr<Work> Route(int64_t tokens) {
  struct State {
    Turns gate, bias, out, tiles;
  };
  const int64_t pairs = tokens * kChosen;
  CAIRN_ASSIGN_OR_RETURN(Turns gate, Turns::Make(tokens * kExperts * 4, 8));
  CAIRN_ASSIGN_OR_RETURN(Turns bias, Turns::Make(kExperts * 4, 1));
  CAIRN_ASSIGN_OR_RETURN(Turns out, Turns::Make((pairs + kExperts + 1) * 4, 6));
  CAIRN_ASSIGN_OR_RETURN(Turns tiles,
                         Turns::Make(kernels::cuda::ExpertScratchBytes(pairs, kExperts), 1));
  const auto s = std::make_shared<State>(
      State{std::move(gate), std::move(bias), std::move(out), std::move(tiles)});
  return Work{[s, tokens, pairs](Stream stream, int64_t i) {
                int32_t* const offsets = s->out.at<int32_t>(2);
                return kernels::cuda::RouteExperts(
                    stream, s->gate.at<float>(i), {.bias = s->bias.at<float>(0)},
                    {tokens, kExperts, kChosen, 1.5f}, {s->out.at<int32_t>(0), s->out.at<float>(1)},
                    {offsets, s->out.at<int32_t>(3), s->out.at<float>(4), s->out.at<int32_t>(5)},
                    {offsets, kExperts, pairs, s->tiles.at<uint8_t>(0)});
              },
              tokens * (kExperts * 4 + kChosen * 32)};
}

absl::StatusOr<Work> Combine(int64_t tokens) {
  struct State {
    Turns made, shared, place, out;
  };
  const int64_t row = kDim * 2;
  const int64_t turns = TurnsFor(tokens * kChosen * row);
  CAIRN_ASSIGN_OR_RETURN(Turns made, Turns::Make(tokens * kChosen * row, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns shared, Turns::Make(tokens * row, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns out, Turns::Make(tokens * row, turns));
  CAIRN_ASSIGN_OR_RETURN(Turns place, Turns::Make(tokens * kChosen * 4, 1));
  std::vector<int32_t> places;  // as of experts that all tokens go to
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < kChosen; ++i) places.push_back(static_cast<int32_t>(i * tokens + t));
  }
  CAIRN_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpy(place.all.get(), places.data(), places.size() * 4, cudaMemcpyHostToDevice),
      "filling"));
  const auto s = std::make_shared<State>(
      State{std::move(made), std::move(shared), std::move(place), std::move(out)});
  return Work{[s, tokens](Stream stream, int64_t i) {
                return kernels::cuda::CombineExperts(
                    stream, s->made.at<uint16_t>(i), s->place.at<int32_t>(0),
                    s->shared.at<uint16_t>(i), {tokens, kExperts, kChosen}, kDim,
                    s->out.at<uint16_t>(i));
              },
              tokens * (kChosen + 2) * row};
}

// Row entries, each as the layout has it, to layers whose rows lie side by side.
absl::StatusOr<Work> Gather(int64_t tokens) {
  using kernels::cuda::SegmentCopy;
  struct State {
    Turns entries, layers;
    DeviceBuffer<SegmentCopy> segments;
  };
  const int64_t blocks = (tokens + 127) / 128;
  std::vector<std::pair<int64_t, int64_t>> parts;  // {offset in an entry, bytes}
  int64_t entry = 0;
  for (const cache::LayoutComponent& c : FlashLayout().components) {
    if (c.scope != cache::LayoutScope::kPrefix) continue;
    for (const int64_t bytes :
         {int64_t{c.rows} * (c.row_bytes - c.scale_bytes), int64_t{c.rows} * c.scale_bytes}) {
      parts.emplace_back(entry, bytes);
      entry += bytes;
    }
  }
  CAIRN_ASSIGN_OR_RETURN(Turns entries, Turns::Make(blocks * entry, 1));
  CAIRN_ASSIGN_OR_RETURN(Turns layers, Turns::Make(blocks * entry, 1));
  std::vector<SegmentCopy> segments;
  int64_t longest = 0;
  for (const auto& [offset, bytes] : parts) {
    for (int64_t b = 0; b < blocks; ++b) {
      segments.push_back({entries.at<uint8_t>(0) + b * entry + offset,
                          layers.at<uint8_t>(0) + blocks * offset + b * bytes, bytes});
    }
    longest = std::max(longest, bytes);
  }
  CAIRN_ASSIGN_OR_RETURN(auto device, DeviceBuffer<SegmentCopy>::Of(segments));
  const auto s =
      std::make_shared<State>(State{std::move(entries), std::move(layers), std::move(device)});
  const int64_t count = std::ssize(segments);
  return Work{[s, count, longest](Stream stream, int64_t) {
                return kernels::cuda::CopySegments(stream, s->segments.get(), count, longest);
              },
              2 * blocks * entry};
}

struct Row {
  const char* name;
  const char* what;
  absl::StatusOr<Work> (*make)(int64_t tokens);
  int64_t tokens;
  bool one_token = true;  // and how long one takes
};
constexpr Row kRows[] = {
    {"gpu-mhc-pre", "mixes, Sinkhorn and collapse of 4 streams of 4096", MhcPre, kManyTokens},
    {"gpu-mhc-post", "merging into 4 streams of 4096", MhcPost, kManyTokens},
    {"gpu-mhc-post-pre", "both at once", MhcPostPre, kManyTokens},
    {"gpu-norm-quantise", "RMSNorm of 4096 to BF16 and e4m3", NormQuantise, kManyTokens},
    {"gpu-query-heads", "norm and rotation of 64 heads of 512", QueryHeads, kManyTokens},
    {"gpu-kv-write", "norm, rotation and e4m3 rows of 584 bytes", KvWrite, kManyTokens},
    {"gpu-compressor-csa", "pooling groups of 4 with overlap", CompressCsa, kManyTokens},
    {"gpu-compressor-hca", "pooling groups of 128", CompressHca, kManyTokens},
    {"gpu-route", "256 scores, the best 6, sorted by expert", Route, kManyTokens},
    {"gpu-combine", "adding up 6 experts and the shared one", Combine, kManyTokens},
    {"gpu-gather", "row entries of 64k tokens to layers side by side", Gather, 65536, false},
};

absl::StatusOr<Prepared> Prepare(const Row& row, int64_t tokens, bool as_rate) {
  CAIRN_RETURN_IF_ERROR(kernels::cuda::DevicePresent());
  Prepared prepared;
  CAIRN_ASSIGN_OR_RETURN(Work made, row.make(tokens));
  const auto work = std::make_shared<Work>(std::move(made));
  if (as_rate) {
    CAIRN_ASSIGN_OR_RETURN(Contender limit, DeviceCopyLimit());
    prepared.contenders.push_back(std::move(limit));
  }
  prepared.contenders.push_back(
      {"ours", Role::kOurs, [work, as_rate]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(const double seconds, SecondsInGraph(kTurnsMax, work->launch));
         return as_rate ? static_cast<double>(work->bytes) / seconds * 1e-9 : seconds * 1e6;
       }});
  return prepared;
}

}  // namespace

void AddGpuRowsBenches(std::vector<Bench>& benches) {
  for (const Row& row : kRows) {
    benches.push_back(
        {.name = row.name,
         .what = absl::StrCat(row.what, ", ", row.tokens, " tokens"),
         .unit = "GB/s",
         .prepare = [&row](const BenchContext&) { return Prepare(row, row.tokens, true); }});
    if (!row.one_token) continue;
    benches.push_back({.name = absl::StrCat(row.name, "-1"),
                       .what = absl::StrCat(row.what, ", one token"),
                       .unit = "us",
                       .higher_is_better = false,
                       .prepare = [&row](const BenchContext&) { return Prepare(row, 1, false); }});
  }
}

}  // namespace cairn::bench
