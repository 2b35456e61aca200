#include "kernels/cuda/step_plan.h"

#include <algorithm>
#include <cmath>

namespace cairn::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWindow = 128;
constexpr int kCsaRatio = 4;
constexpr int kHcaRatio = 128;

unsigned Blocks(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

// A row a thread; a span a row of blocks.
dim3 Grid(int64_t count, int64_t spans) { return {Blocks(count), static_cast<unsigned>(spans)}; }

__device__ int64_t Index() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

__global__ void FillTokenPlanKernel(StepShape shape, const StepSpan* spans, TokenPlan plan) {
  const StepSpan span = spans[blockIdx.y];
  const int64_t i = Index();
  if (i >= span.count) return;
  const int64_t row = span.first + i;
  const int64_t p = span.position + i;
  const int64_t seen = min(p + 1, int64_t{kWindow});
  AttentionList list;
  list.window_base = span.slot * shape.ring;
  list.window_first = static_cast<int32_t>((p + 1 - seen) % shape.ring);
  list.window_count = static_cast<int32_t>(seen);
  plan.position[row] = static_cast<int32_t>(p);
  plan.window_row[row] = list.window_base + p % shape.ring;
  plan.window[row] = list;
  const int64_t visible = (p + 1) / kCsaRatio;
  plan.visible[row] = static_cast<int32_t>(visible);
  list.compressed_base = span.slot * shape.csa_rows;
  list.compressed_count = static_cast<int32_t>(min(visible, shape.index_topk));
  plan.csa[row] = list;
  list.compressed_base = span.slot * shape.hca_rows;
  list.compressed_count = static_cast<int32_t>((p + 1) / kHcaRatio);
  plan.hca[row] = list;
}

__global__ void FillGroupPlanKernel(int64_t ratio, int64_t rows_of_slot, int64_t groups_max,
                                    const StepSpan* spans, GroupPlan plan) {
  const StepSpan span = spans[blockIdx.y];
  const int64_t i = Index();
  if (i >= groups_max) return;
  const int64_t group = span.position / ratio + i;
  const bool closed = group < (span.position + span.count) / ratio;
  const int64_t at = blockIdx.y * groups_max + i;
  plan.row[at] = closed ? span.slot * rows_of_slot + group : -1;
  plan.position[at] = static_cast<int32_t>(closed ? group * ratio : 0);
}

// A compressor a row of blocks.
__global__ void FillCompressorSpansKernel(int64_t groups_max, const StepSpan* spans,
                                          int64_t span_count, float* const* states,
                                          int64_t state_floats, CompressorSpan* out) {
  const int64_t i = Index();
  if (i >= span_count) return;
  const StepSpan span = spans[i];
  CompressorSpan made;
  made.first = span.first;
  made.count = span.count;
  made.position = span.position;
  made.out = i * groups_max;
  made.state = states[blockIdx.y] + span.slot * state_floats;
  out[blockIdx.y * span_count + i] = made;
}

__global__ void FillIndexSlotsKernel(const int64_t* rows, int64_t count, const IndexPool* pools,
                                     IndexKeySlot* slots) {
  const int64_t i = Index();
  if (i >= count) return;
  const IndexPool pool = pools[blockIdx.y];
  const int64_t row = rows[i] < 0 ? pool.spare : rows[i];
  slots[blockIdx.y * count + i] = {pool.data + row * kIndexRowDataBytes,
                                   pool.scales + row * kIndexRowScaleBytes};
}

__global__ void FillIndexGroupsKernel(StepShape shape, int64_t groups_of_span,
                                      const StepSpan* spans, const IndexPool* pools,
                                      IndexGroup* groups) {
  const int64_t i = Index();
  if (i >= shape.spans * groups_of_span) return;
  const StepSpan span = spans[i / groups_of_span];
  const IndexPool pool = pools[blockIdx.y];
  const int64_t begin = i % groups_of_span * kIndexGroupTokensMax;
  const int64_t count =
      max(int64_t{0}, min(span.count - begin, static_cast<int64_t>(kIndexGroupTokensMax)));
  const int64_t base = span.slot * shape.csa_rows;
  // Where all rows are taken nothing is scored.
  const int64_t visible = count == 0 ? 0 : (span.position + begin + count) / kCsaRatio;
  IndexGroup group;
  group.data = pool.data + base * kIndexRowDataBytes;
  group.scales = pool.scales + base * kIndexRowScaleBytes;
  group.first = static_cast<int32_t>(span.first + begin);
  group.tokens = static_cast<int32_t>(count);
  group.rows = static_cast<int32_t>(visible <= shape.index_topk ? 0 : visible);
  groups[blockIdx.y * shape.spans * groups_of_span + i] = group;
}

// A block a token: 16 bytes a thread, read once and written to each stream.
__global__ void EmbedTokensKernel(const uint4* table, int64_t pieces, int hc, const int32_t* tokens,
                                  uint4* streams) {
  const uint4* row = table + tokens[blockIdx.x] * pieces;
  uint4* out = streams + static_cast<int64_t>(blockIdx.x) * hc * pieces;
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) {
    const uint4 piece = row[i];
    for (int j = 0; j < hc; ++j) out[j * pieces + i] = piece;
  }
}

__global__ void TakeLastRowsKernel(const StepSpan* spans, int64_t pieces, const uint4* rows,
                                   uint4* out) {
  const StepSpan span = spans[blockIdx.x];
  const uint4* from = rows + (span.first + span.count - 1) * pieces;
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) {
    out[blockIdx.x * pieces + i] = from[i];
  }
}

// A larger value wins, then the lower index: the same whichever way it is joined.
__device__ void TakeBetter(float& value, int32_t& index, float other, int32_t other_index) {
  if (other > value || (other == value && other_index < index)) {
    value = other;
    index = other_index;
  }
}

__global__ void ArgmaxKernel(const float* logits, int64_t vocab, int32_t* next) {
  constexpr int kWarps = kThreads / 32;
  __shared__ float values[kWarps];
  __shared__ int32_t indices[kWarps];
  const float* row = logits + blockIdx.x * vocab;
  float value = -INFINITY;
  int32_t index = INT32_MAX;
  for (int64_t i = threadIdx.x; i < vocab; i += kThreads) {
    TakeBetter(value, index, row[i], static_cast<int32_t>(i));
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    const float other = __shfl_down_sync(~0u, value, offset);
    const int32_t other_index = __shfl_down_sync(~0u, index, offset);
    TakeBetter(value, index, other, other_index);
  }
  if (threadIdx.x % 32 == 0) {
    values[threadIdx.x / 32] = value;
    indices[threadIdx.x / 32] = index;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kWarps; ++w) TakeBetter(value, index, values[w], indices[w]);
  next[blockIdx.x] = index;
}

__global__ void NextStepKernel(StepSpan* spans, int64_t count, const int32_t* next,
                               int32_t* tokens) {
  const int64_t i = Index();
  if (i >= count) return;
  const StepSpan span = spans[i];
  spans[i] = {static_cast<int32_t>(i), 1, span.slot, span.position + span.count};
  tokens[i] = next[i];
}

}  // namespace

absl::Status FillTokenPlan(Stream stream, const StepShape& shape, const StepSpan* spans,
                           const TokenPlan& plan) {
  if (shape.ring < kWindow - 1 + shape.span_tokens_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("a window ring of ", shape.ring, " rows for spans of ", shape.span_tokens_max,
                     " tokens; at least ", kWindow - 1 + shape.span_tokens_max, " are needed"));
  }
  if (shape.spans == 0) return absl::OkStatus();
  FillTokenPlanKernel<<<Grid(shape.span_tokens_max, shape.spans), kThreads, 0, stream>>>(
      shape, spans, plan);
  return LaunchStatus("FillTokenPlan");
}

absl::Status FillGroupPlan(Stream stream, const StepShape& shape, int64_t ratio,
                           const StepSpan* spans, const GroupPlan& plan) {
  if (ratio != kCsaRatio && ratio != kHcaRatio) {
    return absl::InvalidArgumentError(absl::StrCat("groups of ", ratio, " tokens; 4 or 128"));
  }
  if (shape.spans == 0) return absl::OkStatus();
  const int64_t groups = shape.groups_max(ratio);
  FillGroupPlanKernel<<<Grid(groups, shape.spans), kThreads, 0, stream>>>(
      ratio, ratio == kCsaRatio ? shape.csa_rows : shape.hca_rows, groups, spans, plan);
  return LaunchStatus("FillGroupPlan");
}

absl::Status FillCompressorSpans(Stream stream, const StepShape& shape, int64_t ratio,
                                 const StepSpan* spans, float* const* states, int64_t count,
                                 int64_t state_floats, CompressorSpan* out) {
  if (shape.spans == 0 || count == 0) return absl::OkStatus();
  FillCompressorSpansKernel<<<Grid(shape.spans, count), kThreads, 0, stream>>>(
      shape.groups_max(ratio), spans, shape.spans, states, state_floats, out);
  return LaunchStatus("FillCompressorSpans");
}

absl::Status FillIndexPlan(Stream stream, const StepShape& shape, const StepSpan* spans,
                           const GroupPlan& closed, const IndexPool* pools, int64_t count,
                           IndexKeySlot* slots, IndexGroup* groups) {
  if (shape.spans == 0 || count == 0) return absl::OkStatus();
  const int64_t rows = shape.spans * shape.groups_max(kCsaRatio);
  FillIndexSlotsKernel<<<Grid(rows, count), kThreads, 0, stream>>>(closed.row, rows, pools, slots);
  CAIRN_RETURN_IF_ERROR(LaunchStatus("FillIndexSlots"));
  FillIndexGroupsKernel<<<Grid(shape.spans * shape.index_groups(), count), kThreads, 0, stream>>>(
      shape, shape.index_groups(), spans, pools, groups);
  return LaunchStatus("FillIndexGroups");
}

absl::Status EmbedTokens(Stream stream, const uint16_t* table, int64_t dim, int64_t hc,
                         const int32_t* tokens, int64_t rows, uint16_t* streams) {
  if (dim % 8 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("an embedding of ", dim, " values; rows are read by 8"));
  }
  if (rows == 0) return absl::OkStatus();
  EmbedTokensKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
      reinterpret_cast<const uint4*>(table), dim / 8, static_cast<int>(hc), tokens,
      reinterpret_cast<uint4*>(streams));
  return LaunchStatus("EmbedTokens");
}

absl::Status TakeLastRows(Stream stream, const StepSpan* spans, int64_t count, int64_t width,
                          const uint16_t* rows, uint16_t* out) {
  if (width % 8 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows of ", width, " values; they are read by 8"));
  }
  if (count == 0) return absl::OkStatus();
  TakeLastRowsKernel<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(
      spans, width / 8, reinterpret_cast<const uint4*>(rows), reinterpret_cast<uint4*>(out));
  return LaunchStatus("TakeLastRows");
}

absl::Status Argmax(Stream stream, const float* logits, int64_t rows, int64_t vocab,
                    int32_t* next) {
  if (rows == 0) return absl::OkStatus();
  ArgmaxKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(logits, vocab, next);
  return LaunchStatus("Argmax");
}

absl::Status NextStep(Stream stream, StepSpan* spans, int64_t count, const int32_t* next,
                      int32_t* tokens) {
  if (count == 0) return absl::OkStatus();
  NextStepKernel<<<Blocks(count), kThreads, 0, stream>>>(spans, count, next, tokens);
  return LaunchStatus("NextStep");
}

}  // namespace cairn::kernels::cuda
