#include "kernels/cpu/linear.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace cairn::kernels {
namespace {

constexpr int kPanel = PackedMatrix::kPanel;
constexpr int kSlab = PackedMatrix::kSlab;
// Rows of x that one task takes through a panel: their slab stays in the second-level cache.
constexpr int64_t kRowsPerTask = 192;
// Below this many multiply-adds a loop costs less than waking a thread.
constexpr int64_t kSerialWork = 150'000;

template <int kRows>
inline void Tile(const float* panel, int64_t count, const float* x, int64_t ldx, float* y,
                 int64_t ldy) {
  __m256 acc[kRows][2];
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = _mm256_loadu_ps(y + r * ldy);
    acc[r][1] = _mm256_loadu_ps(y + r * ldy + 8);
  }
  for (int64_t k = 0; k < count; ++k) {
    const __m256 w0 = _mm256_loadu_ps(panel + k * kPanel);
    const __m256 w1 = _mm256_loadu_ps(panel + k * kPanel + 8);
    for (int r = 0; r < kRows; ++r) {
      const __m256 v = _mm256_broadcast_ss(x + r * ldx + k);
      acc[r][0] = _mm256_fmadd_ps(v, w0, acc[r][0]);
      acc[r][1] = _mm256_fmadd_ps(v, w1, acc[r][1]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    _mm256_storeu_ps(y + r * ldy, acc[r][0]);
    _mm256_storeu_ps(y + r * ldy + 8, acc[r][1]);
  }
}

// Rows [begin, end) of one panel. Sums live in `tile` until the last slab, so y needs no padding
// to 16.
void RunPanel(const PackedMatrix& w, int64_t panel, const float* x, int64_t ldx, int64_t begin,
              int64_t end, float* y, int64_t ldy) {
  alignas(32) float scratch[kSlab * kPanel];
  alignas(32) float tile[kRowsPerTask * kPanel];
  const int64_t rows = end - begin;
  std::memset(tile, 0, static_cast<size_t>(rows) * kPanel * sizeof(float));
  for (int64_t k = 0; k < w.k(); k += kSlab) {
    const int64_t count = std::min<int64_t>(kSlab, w.k() - k);
    const float* values = w.Expand(panel, k, count, scratch);
    PanelMultiply(values, count, x + begin * ldx + k, ldx, rows, tile, kPanel);
  }
  const int64_t columns = std::min<int64_t>(kPanel, w.n() - panel * kPanel);
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(y + (begin + r) * ldy + panel * kPanel, tile + r * kPanel,
                static_cast<size_t>(columns) * sizeof(float));
  }
}

}  // namespace

void PanelMultiply(const float* panel, int64_t count, const float* x, int64_t ldx, int64_t m,
                   float* y, int64_t ldy) {
  int64_t r = 0;
  for (; r + 6 <= m; r += 6) Tile<6>(panel, count, x + r * ldx, ldx, y + r * ldy, ldy);
  switch (m - r) {
    case 5:
      Tile<5>(panel, count, x + r * ldx, ldx, y + r * ldy, ldy);
      break;
    case 4:
      Tile<4>(panel, count, x + r * ldx, ldx, y + r * ldy, ldy);
      break;
    case 3:
      Tile<3>(panel, count, x + r * ldx, ldx, y + r * ldy, ldy);
      break;
    case 2:
      Tile<2>(panel, count, x + r * ldx, ldx, y + r * ldy, ldy);
      break;
    case 1:
      Tile<1>(panel, count, x + r * ldx, ldx, y + r * ldy, ldy);
      break;
    default:
      break;
  }
}

void Linear(ThreadPool& pool, const PackedMatrix& w, const float* x, int64_t ldx, int64_t m,
            float* y, int64_t ldy) {
  const int64_t row_tasks = (m + kRowsPerTask - 1) / kRowsPerTask;
  const int64_t tasks = w.panels() * row_tasks;
  const auto body = [&](int64_t task) {
    const int64_t begin = task % row_tasks * kRowsPerTask;
    RunPanel(w, task / row_tasks, x, ldx, begin, std::min(m, begin + kRowsPerTask), y, ldy);
  };
  if (m * w.n() * w.k() < kSerialWork) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
  } else {
    pool.Run(tasks, body);
  }
}

}  // namespace cairn::kernels
