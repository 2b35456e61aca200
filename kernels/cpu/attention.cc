#include "kernels/cpu/attention.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_path.h"
#include "kernels/cpu/row_loops.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::kernels {
namespace {

constexpr int64_t kHeadsMax = 8;  // at once

// q [heads][dim] to [dim / 8][heads][8].
void InterleaveHeads(const float* q, int64_t heads, int64_t dim, float* to) {
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t e = 0; e < dim; e += 8) {
      _mm256_storeu_ps(to + e * heads + h * 8, _mm256_loadu_ps(q + h * dim + e));
    }
  }
}

// z becomes exp(z - max); returns the denominator.
float SoftmaxInPlace(float* z, int64_t n, float sink) {
  float top = z[0];
  for (int64_t j = 1; j < n; ++j) top = std::max(top, z[j]);
  const __m256 shift = _mm256_set1_ps(top);
  __m256 sum = _mm256_setzero_ps();
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) {
    const __m256 p = ExpVector(_mm256_sub_ps(_mm256_loadu_ps(z + j), shift));
    _mm256_storeu_ps(z + j, p);
    sum = _mm256_add_ps(sum, p);
  }
  if (j < n) {
    alignas(32) float tail[8] = {};
    for (int64_t i = j; i < n; ++i) tail[i - j] = z[i] = Exp(z[i] - top);
    sum = _mm256_add_ps(sum, _mm256_load_ps(tail));
  }
  return AddLanes(sum) + Exp(sink - top);
}

void AttendHeads(const RowLoops& loops, const float* q, int64_t heads, int64_t dim,
                 const RowSegment& window, const RowSegment& compressed, float scale,
                 const float* sink, float* out, float* scratch) {
  const int64_t n = window.count + compressed.count;
  float* const z = scratch;
  float* const interleaved = scratch + heads * n;
  InterleaveHeads(q, heads, dim, interleaved);
  loops.scores(interleaved, heads, dim, window.rows, window.count, scale, z, n);
  loops.scores(interleaved, heads, dim, compressed.rows, compressed.count, scale, z + window.count,
               n);
  float denominator[kHeadsMax];
  for (int64_t h = 0; h < heads; ++h) denominator[h] = SoftmaxInPlace(z + h * n, n, sink[h]);
  std::memset(out, 0, sizeof(float) * static_cast<size_t>(heads * dim));
  loops.add(z, n, heads, dim, window.rows, window.count, out);
  loops.add(z + window.count, n, heads, dim, compressed.rows, compressed.count, out);
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t e = 0; e < dim; ++e) out[h * dim + e] /= denominator[h];
  }
}

}  // namespace

const RowLoops& ChosenRowLoops() {
  static const RowLoops avx2 = Avx2RowLoops();
  static const RowLoops avx512 = Avx512RowLoops();
  return ChosenCpuPath() == CpuPath::kAvx2 ? avx2 : avx512;
}

void Attend(const float* q, int64_t heads, int64_t dim, const RowSegment& window,
            const RowSegment& compressed, float scale, const float* sink, float* out,
            std::vector<float>& scratch) {
  Attend(ChosenRowLoops(), q, heads, dim, window, compressed, scale, sink, out, scratch);
}

void Attend(const RowLoops& widest, const float* q, int64_t heads, int64_t dim,
            const RowSegment& window, const RowSegment& compressed, float scale, const float* sink,
            float* out, std::vector<float>& scratch) {
  static const RowLoops any = Avx2RowLoops();
  const auto room = static_cast<size_t>(kHeadsMax * (window.count + compressed.count + dim));
  if (scratch.size() < room) scratch.resize(room);
  int64_t at_once = kHeadsMax;
  for (int64_t h = 0; h < heads; h += at_once) {
    const auto takes = [&](const RowLoops& loops) {
      return at_once >= loops.heads_min && at_once <= loops.heads_max && dim % loops.lanes == 0;
    };
    while (at_once > heads - h || !(takes(widest) || takes(any))) at_once /= 2;
    AttendHeads(takes(widest) ? widest : any, q + h * dim, at_once, dim, window, compressed, scale,
                sink + h, out + h * dim, scratch.data());
  }
}

}  // namespace cairn::kernels
