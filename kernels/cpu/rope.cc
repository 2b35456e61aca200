#include "kernels/cpu/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cairn::kernels {
namespace {

// The (fractional) pair index that turns `turns` times within `length` positions.
double TurningDim(double turns, const RopeOptions& o) {
  return static_cast<double>(o.dim) *
         std::log(static_cast<double>(o.original_len) / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(o.base));
}

}  // namespace

RopeTable::RopeTable(const RopeOptions& o) {
  const int64_t pairs = o.dim / 2;
  double low = 0.0;
  double high = 0.0;
  if (o.original_len > 0) {
    low = std::max(std::floor(TurningDim(o.beta_fast, o)), 0.0);
    high = std::min(std::ceil(TurningDim(o.beta_slow, o)), static_cast<double>(o.dim - 1));
    if (low == high) high += 0.001;
  }
  for (int64_t i = 0; i < pairs; ++i) {
    double freq = 1.0 / std::pow(o.base, 2.0 * static_cast<double>(i) / static_cast<double>(o.dim));
    if (o.original_len > 0) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      freq = freq / o.factor * ramp + freq * (1.0 - ramp);
    }
    freq_.push_back(static_cast<float>(freq));
  }
}

void RopeTable::Angles(int64_t position, float* cos_sin) const {
  for (size_t i = 0; i < freq_.size(); ++i) {
    const float angle = static_cast<float>(position) * freq_[i];
    cos_sin[2 * i] = static_cast<float>(std::cos(static_cast<double>(angle)));
    cos_sin[2 * i + 1] = static_cast<float>(std::sin(static_cast<double>(angle)));
  }
}

void Rotate(float* x, const float* cos_sin, int64_t dim, bool inverse) {
  for (int64_t i = 0; i < dim; i += 2) {
    const float c = cos_sin[i];
    const float s = inverse ? -cos_sin[i + 1] : cos_sin[i + 1];
    const float a = x[i];
    const float b = x[i + 1];
    x[i] = a * c - b * s;
    x[i + 1] = a * s + b * c;
  }
}

}  // namespace cairn::kernels
