// rope.h: rotary positions on the last dims of a vector, interleaved pairs (2i, 2i+1). Spec
// section 2.3.
//
// freq_i = base^(-2i/dim); with YaRN each is blended with freq_i / factor by a ramp between the
// dims that turn beta_fast and beta_slow times within original_len. No amplitude factor anywhere.
// The angle is the F32 product position * freq; cos and sin are taken in double and rounded once.
//
// Threads: a RopeTable is immutable. Units: positions in tokens.
#ifndef CAIRN_KERNELS_CPU_ROPE_H_
#define CAIRN_KERNELS_CPU_ROPE_H_

#include <cstdint>
#include <vector>

namespace cairn::kernels {

struct RopeOptions {
  int64_t dim = 64;
  double base = 10000.0;
  int64_t original_len = 0;  // 0: no YaRN
  double factor = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
};

class RopeTable {
 public:
  explicit RopeTable(const RopeOptions& options);
  int64_t dim() const { return 2 * static_cast<int64_t>(freq_.size()); }
  const std::vector<float>& frequencies() const { return freq_; }

  // cos_sin: dim floats, (cos, sin) a pair.
  void Angles(int64_t position, float* cos_sin) const;

 private:
  std::vector<float> freq_;
};

// x: dim floats, rotated in place; inverse turns by the negative angle.
void Rotate(float* x, const float* cos_sin, int64_t dim, bool inverse);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_ROPE_H_
