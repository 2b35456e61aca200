#include "kernels/cuda/compressor.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr int kOverlapRatio = 4;
constexpr int kOverlapSlots = 2 * kOverlapRatio;
constexpr int kOverlapThreads = 128;  // of four channels each
constexpr int kLongRatio = 128;
constexpr int kLongWarps = 8;
constexpr int kTokensOfWarp = kLongRatio / kLongWarps;

// A span with where its tokens' values are: in the step, or before it in the state.
struct SpanReader {
  CompressorInput input;
  CompressorSpan span;
  int ratio;
  int slots;
  int width;

  __device__ int64_t end() const { return span.position + span.count; }
  __device__ int64_t first_group() const { return span.position / ratio; }
  __device__ int64_t groups() const { return end() / ratio - first_group(); }
  __device__ float* kv_slot(int64_t t) const { return span.state + t % slots * width; }
  __device__ float* score_slot(int64_t t) const { return kv_slot(t) + slots * width; }
  __device__ bool InStep(int64_t t) const { return t >= span.position; }
  __device__ int64_t StepOffset(int64_t t) const {
    return (span.first + t - span.position) * input.stride;
  }
  __device__ const float* Ape(int64_t t) const { return input.ape + t % ratio * width; }
};

// Four channels from `channel` on of token t.
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
// t is one of the step's.
__device__ inline Four StepKv(const SpanReader& r, int64_t t, int channel) {
  return Load4(r.input.kv + r.StepOffset(t) + channel);
}
__device__ inline Four StepScore(const SpanReader& r, int64_t t, int channel) {
  Four score = Load4(r.input.score + r.StepOffset(t) + channel);
  if (r.input.ape == nullptr) return score;
  const Four ape = Load4(r.Ape(t) + channel);
#pragma unroll
  for (int c = 0; c < 4; ++c) score.v[c] += ape.v[c];
  return score;
}

// Group `group` (absolute): the previous group's first halves, then its own second halves. Before
// the first group there is nothing, which weighs 0.
__device__ inline Four PoolOverlapping(const SpanReader& r, int64_t group, int dim, int channel) {
  Four score[kOverlapSlots];
  Four kv[kOverlapSlots];
#pragma unroll
  for (int i = 0; i < kOverlapSlots; ++i) {
    const int64_t t = (group - 1) * kOverlapRatio + i;
    const int at = (i < kOverlapRatio ? 0 : dim) + channel;
    if (t < 0) {
      score[i] = {{-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
      kv[i] = {};
    } else if (r.InStep(t)) {
      score[i] = StepScore(r, t, at);
      kv[i] = StepKv(r, t, at);
    } else {
      score[i] = Load4(r.score_slot(t) + at);
      kv[i] = Load4(r.kv_slot(t) + at);
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

// Unit 0 of a span is its first two groups, which may read the state, and then the state's update;
// unit u after it is group u + 1. A thread has the same channels throughout, so it has read what it
// overwrites, and nobody else reads it.
__global__ void __launch_bounds__(kOverlapThreads)
    PoolOverlappingKernel(CompressorInput input, const CompressorSpan* spans, int dim,
                          float* pooled) {
  const SpanReader r{input, spans[blockIdx.y], kOverlapRatio, kOverlapSlots, 2 * dim};
  const int channel = 4 * threadIdx.x;
  const int64_t groups = r.groups();
  const int64_t first_group = r.first_group();
  const int64_t units = max(groups - 1, int64_t{1});
  for (int64_t unit = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; unit < units;
       unit += static_cast<int64_t>(gridDim.x) * blockDim.y) {
    for (int64_t g = unit == 0 ? 0 : unit + 1; g <= unit + 1 && g < groups; ++g) {
      Store4(PoolOverlapping(r, first_group + g, dim, channel),
             pooled + (r.span.out + g) * dim + channel);
    }
    if (unit != 0) continue;
    for (int64_t t = max(r.span.position, r.end() - kOverlapSlots); t < r.end(); ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = half * dim + channel;
        Store4(StepKv(r, t, at), r.kv_slot(t) + at);
        Store4(StepScore(r, t, at), r.score_slot(t) + at);
      }
    }
  }
}

__device__ inline float LongKv(const SpanReader& r, int64_t t, int channel) {
  return r.InStep(t) ? r.input.kv[r.StepOffset(t) + channel] : r.kv_slot(t)[channel];
}
__device__ inline float LongScore(const SpanReader& r, int64_t t, int channel) {
  if (!r.InStep(t)) return r.score_slot(t)[channel];
  const float score = r.input.score[r.StepOffset(t) + channel];
  return r.input.ape == nullptr ? score : score + r.Ape(t)[channel];
}

// A block has 32 channels, a lane each, of a group: all its values at once, then one warp adds them
// up in order. The block of a span's first group, which alone may read the state, also updates it.
__global__ void __launch_bounds__(kLongWarps* kLanes)
    PoolLongKernel(CompressorInput input, const CompressorSpan* spans, int dim, float* pooled) {
  __shared__ float weights[kLongRatio][kLanes];
  __shared__ float values[kLongRatio][kLanes];
  __shared__ float tops[kLongWarps][kLanes];
  const SpanReader r{input, spans[blockIdx.y], kLongRatio, kLongRatio, dim};
  const int warp = threadIdx.y;
  const int lane = threadIdx.x;
  const int channel = blockIdx.z * kLanes + lane;
  const int64_t groups = r.groups();
  for (int64_t g = blockIdx.x; g < groups; g += gridDim.x) {
    const int64_t first = (r.first_group() + g) * kLongRatio;
    float score[kTokensOfWarp];
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < kTokensOfWarp; ++i) {
      const int token = warp + i * kLongWarps;
      score[i] = LongScore(r, first + token, channel);
      values[token][lane] = LongKv(r, first + token, channel);
    }
#pragma unroll
    for (float s : score) top = fmaxf(top, s);
    tops[warp][lane] = top;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kLongWarps; ++w) top = fmaxf(top, tops[w][lane]);
#pragma unroll
    for (int i = 0; i < kTokensOfWarp; ++i) {
      weights[warp + i * kLongWarps][lane] = Exp(score[i] - top);
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
    r.kv_slot(t)[channel] = LongKv(r, t, channel);
    r.score_slot(t)[channel] = LongScore(r, t, channel);
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
  if (shape.ratio == kOverlapRatio) {
    const unsigned lanes = static_cast<unsigned>(dim) / 4;
    const dim3 block(lanes, kOverlapThreads / lanes);
    PoolOverlappingKernel<<<dim3(CeilDiv(groups, block.y), spans_wide), block, 0, stream>>>(
        input, spans, dim, pooled);
  } else {
    const dim3 grid(groups, spans_wide, static_cast<unsigned>(dim / kLanes));
    PoolLongKernel<<<grid, dim3(kLanes, kLongWarps), 0, stream>>>(input, spans, dim, pooled);
  }
  return LaunchStatus("PoolGroups");
}

}  // namespace cairn::kernels::cuda
