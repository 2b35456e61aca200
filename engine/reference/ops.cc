#include "engine/reference/ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "kernels/cpu/formats.h"

namespace cairn::engine::reference {
namespace {

float Element(const TensorView& tensor, int64_t i) {
  if (tensor.dtype == DType::kBF16) {
    uint16_t v;
    std::memcpy(&v, tensor.bytes.data() + 2 * i, sizeof(v));
    return kernels::Bf16ToF32(v);
  }
  float v;
  std::memcpy(&v, tensor.bytes.data() + 4 * i, sizeof(v));
  return v;
}

// Section 3.1: FP8 with a scale for 128 x 128 weights, FP4 with one for 32 along the input.
float Weight(const LinearWeight& w, int64_t row, int64_t column) {
  const int64_t i = row * w.in + column;
  if (w.weight.dtype == DType::kF8E4M3) {
    const int64_t scales_across = (w.in + 127) / 128;
    const int64_t s = row / 128 * scales_across + column / 128;
    return kernels::E4m3ToF32(w.weight.bytes[static_cast<size_t>(i)]) *
           kernels::E8m0ToF32(w.scale.bytes[static_cast<size_t>(s)]);
  }
  if (w.weight.dtype == DType::kI8) {
    const uint8_t pair = w.weight.bytes[static_cast<size_t>(i / 2)];
    const uint8_t nibble = static_cast<uint8_t>(i % 2 == 0 ? pair & 15 : pair >> 4);
    return kernels::E2m1ToF32(nibble) *
           kernels::E8m0ToF32(w.scale.bytes[static_cast<size_t>(i / 32)]);
  }
  return Element(w.weight, i);
}

float MaxMagnitude(std::span<const float> x) {
  float most = 0.0f;
  for (const float v : x) most = std::max(most, std::fabs(v));
  return most;
}

// The index of the pair that turns `turns` times within the original length.
double TurningPair(const ModelConfig& config, double turns) {
  const double length = static_cast<double>(config.rope_original_len);
  return static_cast<double>(config.rope_dim) * std::log(length / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(config.compress_rope_theta));
}

float Frequency(const ModelConfig& config, int64_t ratio, int64_t pair) {
  const double base = ratio == 0 ? config.rope_theta : config.compress_rope_theta;
  const double exponent = 2.0 * static_cast<double>(pair) / static_cast<double>(config.rope_dim);
  const double freq = std::pow(base, -exponent);
  if (ratio == 0 || config.rope_original_len == 0) return static_cast<float>(freq);
  const double low = std::max(std::floor(TurningPair(config, config.beta_fast)), 0.0);
  double high = std::min(std::ceil(TurningPair(config, config.beta_slow)),
                         static_cast<double>(config.rope_dim - 1));
  if (low == high) high += 0.001;
  const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
  return static_cast<float>(freq / config.rope_factor * ramp + freq * (1.0 - ramp));
}

}  // namespace

std::vector<float> Values(const TensorView& tensor) {
  const size_t n = tensor.bytes.size() / DTypeBytes(tensor.dtype);
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = Element(tensor, static_cast<int64_t>(i));
  return out;
}

Rows LinearSlice(const LinearWeight& w, int64_t begin, int64_t n, const Rows& x) {
  Rows y(x.count, n);
  std::vector<float> row(static_cast<size_t>(w.in));
  for (int64_t o = 0; o < n; ++o) {
    for (int64_t i = 0; i < w.in; ++i) row[static_cast<size_t>(i)] = Weight(w, begin + o, i);
    for (int64_t r = 0; r < x.count; ++r) y[r][static_cast<size_t>(o)] = Dot(row, x[r]);
  }
  return y;
}

Rows Linear(const Setup& setup, const LinearWeight& w, const Rows& x) {
  const bool packed = w.weight.dtype == DType::kF8E4M3 || w.weight.dtype == DType::kI8;
  if (w.weight.dtype == DType::kBF16) return LinearSlice(w, 0, w.out, Bf16Input(setup, x));
  if (!RoundsInputs(setup.numerics) || !packed) return LinearSlice(w, 0, w.out, x);
  Rows rounded = x;
  for (int64_t r = 0; r < x.count; ++r) RoundFp8(rounded[r], 128);
  return LinearSlice(w, 0, w.out, rounded);
}

Rows Bf16Input(const Setup& setup, const Rows& x) {
  Rows rounded = x;
  if (setup.numerics != Numerics::kFullAmx) return rounded;
  for (float& v : rounded.values) v = kernels::Bf16ToF32(kernels::F32ToBf16(v));
  return rounded;
}

void RmsNorm(const Setup& setup, std::span<float> x, std::span<const float> weight) {
  const float mean = Dot(x, x) / static_cast<float>(x.size());
  const float scale = 1.0f / std::sqrt(mean + static_cast<float>(setup.config.norm_eps));
  for (size_t i = 0; i < x.size(); ++i) x[i] = x[i] * scale * (weight.empty() ? 1.0f : weight[i]);
}

void RmsNormRows(const Setup& setup, Rows& x, const TensorView& weight) {
  const std::vector<float> w = Values(weight);
  for (int64_t r = 0; r < x.count; ++r) RmsNorm(setup, x[r], w);
}

void RotateLast(const Setup& setup, int64_t ratio, int64_t position, bool inverse,
                std::span<float> x) {
  const std::span<float> pairs = x.last(static_cast<size_t>(setup.config.rope_dim));
  for (size_t i = 0; i < pairs.size(); i += 2) {
    const float angle =
        static_cast<float>(position) * Frequency(setup.config, ratio, static_cast<int64_t>(i / 2));
    const float c = static_cast<float>(std::cos(static_cast<double>(angle)));
    const float s = static_cast<float>(std::sin(static_cast<double>(inverse ? -angle : angle)));
    const float a = pairs[i];
    const float b = pairs[i + 1];
    pairs[i] = a * c - b * s;
    pairs[i + 1] = a * s + b * c;
  }
}

void RoundFp8(std::span<float> x, size_t group) {
  for (size_t g = 0; g < x.size(); g += group) {
    const std::span<float> part = x.subspan(g, group);
    const float scale = kernels::E8m0ToF32(kernels::ScaleE8m0Fp8(MaxMagnitude(part)));
    for (float& v : part) v = kernels::E4m3ToF32(kernels::F32ToE4m3(v / scale)) * scale;
  }
}

void RoundFp4(std::span<float> x) {
  for (size_t g = 0; g < x.size(); g += 32) {
    const std::span<float> part = x.subspan(g, 32);
    const float scale = kernels::E8m0ToF32(kernels::ScaleE8m0Fp4(MaxMagnitude(part)));
    for (float& v : part) v = kernels::E2m1ToF32(kernels::F32ToE2m1(v / scale)) * scale;
  }
}

void RoundRow(const Setup& setup, std::span<float> row) {
  if (setup.numerics == Numerics::kPlain) return;
  const size_t rope = static_cast<size_t>(setup.config.rope_dim);
  RoundFp8(row.first(row.size() - rope), 64);
  if (setup.rope_rows == RopeRows::kF32) return;
  for (float& v : row.last(rope)) v = kernels::Bf16ToF32(kernels::F32ToBf16(v));
}

void RoundIndex(const Setup& setup, std::span<float> x) {
  if (setup.numerics != Numerics::kPlain) RoundFp4(x);
}

// H[i][j] = (-1)^(number of common bits of i and j).
void Hadamard(std::span<float> x) {
  std::vector<float> y(x.size(), 0.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = 0; j < x.size(); ++j) y[i] += std::popcount(i & j) % 2 == 0 ? x[j] : -x[j];
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) x[i] = y[i] * scale;
}

float Sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

float Dot(std::span<const float> a, std::span<const float> b) {
  float sum = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace cairn::engine::reference
