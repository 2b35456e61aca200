#include "kernels/cuda/compressor.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr int kOverlapRatio = 4;
constexpr int kOverlapSlots = 2 * kOverlapRatio;
constexpr int kOverlapThreads = 128;  // of four channels each
constexpr int kLongRatio = 128;
constexpr int kLongWarps = 8;
constexpr int kTokensOfWarp = kLongRatio / kLongWarps;

// A span with where its tokens' values are: in the step, or before it in the state. kApe: scores of
// the step are to get theirs; those of the state have it.
template <int kRatio, int kSlots, bool kApe>
struct SpanReader {
  CompressorInput input;
  CompressorSpan span;
  int width;

  __device__ int64_t end() const { return span.position + span.count; }
  __device__ int64_t first_group() const { return span.position / kRatio; }
  __device__ int64_t groups() const { return end() / kRatio - first_group(); }
  __device__ float* KvSlot(int64_t t) const { return span.state + (t & (kSlots - 1)) * width; }
  __device__ float* ScoreSlot(int64_t t) const { return KvSlot(t) + kSlots * width; }
  __device__ bool InStep(int64_t t) const { return t >= span.position; }
  // Of a token of the step; its ape is that of its place in the group.
  __device__ const float* Kv(int64_t t) const { return input.kv + Offset(t); }
  __device__ const float* Score(int64_t t) const { return input.score + Offset(t); }
  __device__ const float* Ape(int64_t t) const { return input.ape + (t & (kRatio - 1)) * width; }

 private:
  __device__ int64_t Offset(int64_t t) const {
    return (span.first + t - span.position) * input.stride;
  }
};

template <bool kApe>
using OverlapReader = SpanReader<kOverlapRatio, kOverlapSlots, kApe>;
template <bool kApe>
using LongReader = SpanReader<kLongRatio, kLongRatio, kApe>;

// Four channels.
struct Four {
  float v[4];
};
__device__ inline Four Load4(const float* at) {
  const float4 v = *reinterpret_cast<const float4*>(at);
  return {{v.x, v.y, v.z, v.w}};
}
__device__ inline void Store4(const Four& v, float* at) {
  *reinterpret_cast<float4*>(at) = {v.v[0], v.v[1], v.v[2], v.v[3]};
}
template <bool kApe>
__device__ inline Four StepScore(const OverlapReader<kApe>& r, int64_t t, int at) {
  Four score = Load4(r.Score(t) + at);
  if constexpr (kApe) {
    const Four ape = Load4(r.Ape(t) + at);
#pragma unroll
    for (int c = 0; c < 4; ++c) score.v[c] += ape.v[c];
  }
  return score;
}

// Group `group` (absolute): the previous group's first halves, then its own second halves. Before
// the first group there is nothing, which weighs 0: what a slot holds in its place is not used.
// kInStep: all of them are in the step. Nothing stands between the loads in either case.
template <bool kInStep, bool kApe>
__device__ inline Four PoolOverlapping(const OverlapReader<kApe>& r, int64_t group, int dim,
                                       int channel) {
  Four score[kOverlapSlots];
  Four kv[kOverlapSlots];
#pragma unroll
  for (int i = 0; i < kOverlapSlots; ++i) {
    const int64_t t = (group - 1) * kOverlapRatio + i;
    const int at = (i < kOverlapRatio ? 0 : dim) + channel;
    const bool in_step = kInStep || r.InStep(t);
    score[i] = Load4((in_step ? r.Score(t) : r.ScoreSlot(t)) + at);
    kv[i] = Load4((in_step ? r.Kv(t) : r.KvSlot(t)) + at);
    if constexpr (kApe) {
      const Four ape = Load4(r.Ape(t) + at);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (in_step) score[i].v[c] += ape.v[c];
      }
    }
    if (!kInStep && t < 0) {
      score[i] = {{-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
      kv[i] = {};
    }
  }
  Four out;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    float top = score[0].v[c];
#pragma unroll
    for (int i = 1; i < kOverlapSlots; ++i) top = fmaxf(top, score[i].v[c]);
    float denominator = 0.0f;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kOverlapSlots; ++i) {
      const float w = Exp(score[i].v[c] - top);
      denominator += w;
      sum = fmaf(w, kv[i].v[c], sum);
    }
    out.v[c] = sum / denominator;
  }
  return out;
}

// The step's last tokens into their slots. All are read before any is written; in place of those
// before the step its first is read.
template <bool kApe>
__device__ inline void KeepTokens(const OverlapReader<kApe>& r, int dim, int channel) {
  for (int at = channel; at < r.width; at += dim) {
    Four kv[kOverlapSlots];
    Four score[kOverlapSlots];
#pragma unroll
    for (int i = 0; i < kOverlapSlots; ++i) {
      const int64_t t = max(r.span.position, r.end() - kOverlapSlots + i);
      kv[i] = Load4(r.Kv(t) + at);
      score[i] = StepScore(r, t, at);
    }
#pragma unroll
    for (int i = 0; i < kOverlapSlots; ++i) {
      const int64_t t = r.end() - kOverlapSlots + i;
      if (!r.InStep(t)) continue;
      Store4(kv[i], r.KvSlot(t) + at);
      Store4(score[i], r.ScoreSlot(t) + at);
    }
  }
}

// Unit 0 of a span is its first two groups, which may read the state, and then the state's update;
// unit u after it is group u + 1. A thread has the same channels throughout, so it has read what it
// overwrites, and nobody else reads it.
template <bool kApe>
__global__ void __launch_bounds__(kOverlapThreads, 4)
    PoolOverlappingKernel(CompressorInput input, const CompressorSpan* spans, int dim,
                          float* pooled) {
  LetNextStartOfFew();
  WaitForKernelsBefore();
  const OverlapReader<kApe> r{input, spans[blockIdx.y], 2 * dim};
  const int channel = 4 * threadIdx.x;
  const int64_t groups = r.groups();
  const int64_t first_group = r.first_group();
  const int64_t units = max(groups - 1, int64_t{1});
  float* const out = pooled + r.span.out * dim + channel;
  for (int64_t unit = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; unit < units;
       unit += static_cast<int64_t>(gridDim.x) * blockDim.y) {
    if (unit > 0) {
      const int64_t g = unit + 1;
      Store4(PoolOverlapping<true>(r, first_group + g, dim, channel), out + g * dim);
      continue;
    }
    for (int64_t g = 0; g < 2 && g < groups; ++g) {
      Store4(PoolOverlapping<false>(r, first_group + g, dim, channel), out + g * dim);
    }
    if (r.span.count > 0) KeepTokens(r, dim, channel);
  }
}

template <bool kApe>
__device__ inline float LongScore(const LongReader<kApe>& r, int64_t t, int channel) {
  const float score = r.Score(t)[channel];
  return kApe ? score + r.Ape(t)[channel] : score;
}

// The warp's tokens of a group: `first`, and every kLongWarps-th after it. kInStep as above.
template <bool kInStep, bool kApe>
__device__ inline void LoadLong(const LongReader<kApe>& r, int64_t first, int channel,
                                float (&score)[kTokensOfWarp], float (&kv)[kTokensOfWarp]) {
  const float* const step_kv = r.Kv(first) + channel;
  const float* const step_score = r.Score(first) + channel;
  const int64_t stride = kLongWarps * r.input.stride;
  float* const slot_kv = r.KvSlot(first) + channel;
  float* const slot_score = r.ScoreSlot(first) + channel;
  const int slot_stride = kLongWarps * r.width;
#pragma unroll
  for (int i = 0; i < kTokensOfWarp; ++i) {
    const bool in_step = kInStep || r.InStep(first + i * kLongWarps);
    score[i] = in_step ? step_score[i * stride] : slot_score[i * slot_stride];
    kv[i] = in_step ? step_kv[i * stride] : slot_kv[i * slot_stride];
  }
  if constexpr (kApe) {
    const float* const ape = r.Ape(first) + channel;
#pragma unroll
    for (int i = 0; i < kTokensOfWarp; ++i) {
      const float add = ape[i * slot_stride];
      if (kInStep || r.InStep(first + i * kLongWarps)) score[i] += add;
    }
  }
}

// A block has 32 channels, a lane each, of a group: all its values at once, then one warp adds them
// up in order. The block of a span's first group, which alone may read the state, also updates it.
template <bool kApe>
__global__ void __launch_bounds__(kLongWarps* kLanes, 4)
    PoolLongKernel(CompressorInput input, const CompressorSpan* spans, int dim, float* pooled) {
  LetNextStartOfFew();
  WaitForKernelsBefore();
  __shared__ float weights[kLongRatio][kLanes];
  __shared__ float values[kLongRatio][kLanes];
  __shared__ float tops[kLongWarps][kLanes];
  const LongReader<kApe> r{input, spans[blockIdx.y], dim};
  const int warp = threadIdx.y;
  const int lane = threadIdx.x;
  const int channel = blockIdx.z * kLanes + lane;
  const int64_t groups = r.groups();
  for (int64_t g = blockIdx.x; g < groups; g += gridDim.x) {
    const int64_t first = (r.first_group() + g) * kLongRatio;
    float score[kTokensOfWarp];
    float kv[kTokensOfWarp];
    if (r.InStep(first)) {
      LoadLong<true>(r, first + warp, channel, score, kv);
    } else {
      LoadLong<false>(r, first + warp, channel, score, kv);
    }
    float top = score[0];
#pragma unroll
    for (int i = 1; i < kTokensOfWarp; ++i) top = fmaxf(top, score[i]);
    tops[warp][lane] = top;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kLongWarps; ++w) top = fmaxf(top, tops[w][lane]);
#pragma unroll
    for (int i = 0; i < kTokensOfWarp; ++i) {
      weights[warp + i * kLongWarps][lane] = Exp(score[i] - top);
      values[warp + i * kLongWarps][lane] = kv[i];
    }
    __syncthreads();
    if (warp == 0) {
      float denominator = 0.0f;
      float sum = 0.0f;
#pragma unroll 16
      for (int token = 0; token < kLongRatio; ++token) {
        const float w = weights[token][lane];
        denominator += w;
        sum = fmaf(w, values[token][lane], sum);
      }
      pooled[(r.span.out + g) * dim + channel] = sum / denominator;
    }
    __syncthreads();
  }
  if (blockIdx.x != 0) return;
  const int64_t open = r.end() / kLongRatio * kLongRatio;
  for (int64_t t = max(r.span.position, open) + warp; t < r.end(); t += kLongWarps) {
    r.KvSlot(t)[channel] = r.Kv(t)[channel];
    r.ScoreSlot(t)[channel] = LongScore(r, t, channel);
  }
}

absl::Status CheckShape(const CompressorShape& shape) {
  if (shape.ratio == kOverlapRatio) {
    return Require(shape.dim >= 32 && shape.dim <= 512 && (shape.dim & (shape.dim - 1)) == 0,
                   "PoolGroups: with ratio 4 dim is a power of two from 32 to 512");
  }
  CAIRN_RETURN_IF_ERROR(Require(shape.ratio == kLongRatio, "PoolGroups: ratio is neither 4 nor 128"));
  return Require(shape.dim > 0 && shape.dim <= 4096 && shape.dim % kLanes == 0,
                 "PoolGroups: dim not a multiple of 32 up to 4096");
}

}  // namespace

absl::Status PoolGroups(Stream stream, const CompressorShape& shape, const CompressorInput& input,
                        const CompressorSpan* spans, int64_t span_count, int64_t groups_max,
                        float* pooled) {
  CAIRN_RETURN_IF_ERROR(CheckShape(shape));
  CAIRN_RETURN_IF_ERROR(Require(input.stride >= shape.width() && input.stride % 4 == 0,
                                "PoolGroups: stride under width, or not a multiple of 4"));
  CAIRN_RETURN_IF_ERROR(Require(span_count >= 0 && span_count <= 65535 && groups_max >= 0,
                                "PoolGroups: span_count not in [0, 65535], or groups_max under 0"));
  if (span_count == 0) return absl::OkStatus();
  const int dim = static_cast<int>(shape.dim);
  const auto spans_wide = static_cast<unsigned>(span_count);
  const auto groups = static_cast<unsigned>(std::clamp<int64_t>(groups_max, 1, int64_t{1} << 24));
  const bool ape = input.ape != nullptr;
  if (shape.ratio == kOverlapRatio) {
    const unsigned lanes = static_cast<unsigned>(dim) / 4;
    const dim3 block(lanes, kOverlapThreads / lanes);
    const dim3 grid(CeilDiv(groups, block.y), spans_wide);
    return LaunchEarlyIfFew(stream, "PoolGroups", {grid, block},
                            ape ? PoolOverlappingKernel<true> : PoolOverlappingKernel<false>, input,
                            spans, dim, pooled);
  }
  const dim3 grid(groups, spans_wide, static_cast<unsigned>(dim / kLanes));
  return LaunchEarlyIfFew(stream, "PoolGroups", {grid, dim3(kLanes, kLongWarps)},
                          ape ? PoolLongKernel<true> : PoolLongKernel<false>, input, spans, dim,
                          pooled);
}

}  // namespace cairn::kernels::cuda
