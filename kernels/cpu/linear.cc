#include "kernels/cpu/linear.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/weight_chunks.h"

namespace cairn::kernels {
namespace {

constexpr int kPanel = PackedMatrix::kPanel;
// Values of k that one pass takes: a panel's, decoded, stay in the first-level cache, and the rows'
// in the second with the sums of all panels of a task.
constexpr int64_t kSlab = 256;
constexpr int64_t kRowsPerTask = 192;
constexpr int64_t kPanelsPerTask = 8;
constexpr int64_t kFewRowsPanelsPerTask = 4;
constexpr int64_t kTileRows = 6;
// Tasks a thread, so that none waits long for the last one.
constexpr int64_t kTasksPerThread = 4;
// Below this many multiply-adds a loop costs less than waking a thread.
constexpr int64_t kSerialWork = 150'000;

struct Scratch {
  alignas(64) float x[kRowsPerTask * kSlab];
  alignas(64) float w[kSlab * kPanel];
  alignas(64) float sums[kPanelsPerTask * kRowsPerTask * kPanel];
};

// Sums y [kRows][16] over `count` values of k: continued, or (`scales` set) made from 0 and added
// scaled to y.
template <int kRows, bool kScaled>
[[gnu::always_inline]] inline void Tile(const float* panel, int64_t count, const float* x,
                                        int64_t ldx, float* y, int64_t ldy,
                                        const PanelScales& scales) {
  __m256 acc[kRows][2];
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = kScaled ? _mm256_setzero_ps() : _mm256_loadu_ps(y + r * ldy);
    acc[r][1] = kScaled ? _mm256_setzero_ps() : _mm256_loadu_ps(y + r * ldy + 8);
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
    float* out = y + r * ldy;
    if constexpr (kScaled) {
      acc[r][0] = _mm256_fmadd_ps(acc[r][0], scales.low, _mm256_loadu_ps(out));
      acc[r][1] = _mm256_fmadd_ps(acc[r][1], scales.high, _mm256_loadu_ps(out + 8));
    }
    _mm256_storeu_ps(out, acc[r][0]);
    _mm256_storeu_ps(out + 8, acc[r][1]);
  }
}

template <bool kScaled>
[[gnu::always_inline]] inline void Tiles(const float* panel, int64_t count, const float* x,
                                         int64_t ldx, int64_t m, float* y, int64_t ldy,
                                         const PanelScales& scales) {
  int64_t r = 0;
  for (; r + kTileRows <= m; r += kTileRows) {
    Tile<kTileRows, kScaled>(panel, count, x + r * ldx, ldx, y + r * ldy, ldy, scales);
  }
  x += r * ldx;
  y += r * ldy;
  switch (m - r) {
    case 5:
      return Tile<5, kScaled>(panel, count, x, ldx, y, ldy, scales);
    case 4:
      return Tile<4, kScaled>(panel, count, x, ldx, y, ldy, scales);
    case 3:
      return Tile<3, kScaled>(panel, count, x, ldx, y, ldy, scales);
    case 2:
      return Tile<2, kScaled>(panel, count, x, ldx, y, ldy, scales);
    case 1:
      return Tile<1, kScaled>(panel, count, x, ldx, y, ldy, scales);
    default:
      return;
  }
}

// Values of a panel from k_begin on as [count][16], those of FP4 without their scales. Returns
// `room` or, where nothing is to be decoded, the panel itself. k_begin is a multiple of kSlab.
template <WeightFormat format>
const float* Decode(const PackedMatrix& w, int64_t panel, int64_t k_begin, int64_t count,
                    float* room) {
  using C = Chunks<format>;
  const uint8_t* from = w.panel(panel) + k_begin / C::kKs * C::kBytes;
  if constexpr (format == WeightFormat::kF32) {
    return reinterpret_cast<const float*>(from);
  } else {
    constexpr int64_t kGroup = C::kGroup > 0 && C::kScaleInWeight ? C::kGroup : kSlab;
    static_assert(kSlab % kGroup == 0);
    float* to = room;
    for (int64_t k = 0; k < count; k += kGroup) {
      PanelScales scales;
      if constexpr (C::kGroup > 0) {
        scales = C::Scales(w.panel_scales(panel) + (k_begin + k) / C::kGroup * kPanel);
      }
      const int64_t end = std::min(count, k + kGroup);
      for (int64_t i = k; i < end; i += C::kKs, from += C::kBytes, to += C::kKs * kPanel) {
        constexpr int kVectors = 2 * C::kKs / C::kParts;
        for (int part = 0; part < C::kParts; ++part) {
          __m256 values[kVectors];
          C::Decode(from, part, scales, values);
          for (int v = 0; v < kVectors; ++v) {
            _mm256_store_ps(to + 8 * (part * kVectors + v), values[v]);
          }
        }
      }
    }
    return room;
  }
}

// A task: rows of x (copied slab by slab, so that they lie together) against some panels.
struct Task {
  int64_t row_begin, rows;
  int64_t panel_begin, panels;
};

template <WeightFormat format>
void MultiplySlab(const PackedMatrix& w, const Task& task, int64_t k, int64_t count,
                  Scratch& scratch) {
  using C = Chunks<format>;
  for (int64_t p = 0; p < task.panels; ++p) {
    float* sums = scratch.sums + p * kRowsPerTask * kPanel;
    const int64_t panel = task.panel_begin + p;
    const float* values = Decode<format>(w, panel, k, count, scratch.w);
    if constexpr (C::kScaleInWeight) {
      Tiles<false>(values, count, scratch.x, kSlab, task.rows, sums, kPanel, PanelScales());
    } else {
      for (int64_t g = 0; g < count; g += C::kGroup) {
        const PanelScales scales = C::Scales(w.panel_scales(panel) + (k + g) / C::kGroup * kPanel);
        Tiles<true>(values + g * kPanel, C::kGroup, scratch.x + g, kSlab, task.rows, sums, kPanel,
                    scales);
      }
    }
  }
}

template <WeightFormat format>
void RunTask(const PackedMatrix& w, const Task& task, const float* x, int64_t ldx, float* y,
             int64_t ldy) {
  thread_local const std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
  for (int64_t p = 0; p < task.panels; ++p) {
    std::memset(scratch->sums + p * kRowsPerTask * kPanel, 0,
                static_cast<size_t>(task.rows * kPanel) * sizeof(float));
  }
  for (int64_t k = 0; k < w.k(); k += kSlab) {
    const int64_t count = std::min(kSlab, w.k() - k);
    for (int64_t r = 0; r < task.rows; ++r) {
      std::memcpy(scratch->x + r * kSlab, x + (task.row_begin + r) * ldx + k,
                  static_cast<size_t>(count) * sizeof(float));
    }
    MultiplySlab<format>(w, task, k, count, *scratch);
  }
  for (int64_t r = 0; r < task.rows; ++r) {
    for (int64_t p = 0; p < task.panels; ++p) {
      const int64_t column = (task.panel_begin + p) * kPanel;
      const int64_t columns = std::min<int64_t>(kPanel, w.n() - column);
      std::memcpy(y + (task.row_begin + r) * ldy + column,
                  scratch->sums + (p * kRowsPerTask + r) * kPanel,
                  static_cast<size_t>(columns) * sizeof(float));
    }
  }
}

using TaskRunner = void (*)(const PackedMatrix&, const Task&, const float*, int64_t, float*,
                            int64_t);
TaskRunner RunnerOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return RunTask<WeightFormat::kF32>;
    case WeightFormat::kBf16:
      return RunTask<WeightFormat::kBf16>;
    case WeightFormat::kFp8:
      return RunTask<WeightFormat::kFp8>;
    case WeightFormat::kFp4:
      return RunTask<WeightFormat::kFp4>;
  }
  return nullptr;
}

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

void PanelMultiply(const float* panel, int64_t count, const float* x, int64_t ldx, int64_t m,
                   float* y, int64_t ldy) {
  Tiles<false>(panel, count, x, ldx, m, y, ldy, PanelScales());
}

void Linear(ThreadPool& pool, const PackedMatrix& w, const float* x, int64_t ldx, int64_t m,
            float* y, int64_t ldy) {
  const bool serial = m * w.n() * w.k() < kSerialWork;
  const auto run = [&](int64_t tasks, const auto& body) {
    if (serial) {
      for (int64_t task = 0; task < tasks; ++task) body(task);
    } else {
      pool.Run(tasks, body);
    }
  };
  if (IsFewRows(w.format(), m)) {
    run(CeilDiv(w.panels(), kFewRowsPanelsPerTask), [&](int64_t task) {
      const int64_t begin = task * kFewRowsPanelsPerTask;
      MultiplyFewRows(w, begin, std::min(w.panels(), begin + kFewRowsPanelsPerTask), x, ldx, m, y,
                      ldy);
    });
    return;
  }
  // Rows in equal parts of whole tiles.
  const int64_t rows = CeilDiv(CeilDiv(m, CeilDiv(m, kRowsPerTask)), kTileRows) * kTileRows;
  const int64_t row_tasks = CeilDiv(m, rows);
  const int64_t panels = std::clamp<int64_t>(
      w.panels() * row_tasks / (kTasksPerThread * pool.threads()), 1, kPanelsPerTask);
  const TaskRunner runner = RunnerOf(w.format());
  run(CeilDiv(w.panels(), panels) * row_tasks, [&](int64_t i) {
    const int64_t row = i % row_tasks * rows;
    const int64_t panel = i / row_tasks * panels;
    runner(w, {row, std::min(rows, m - row), panel, std::min(panels, w.panels() - panel)}, x, ldx,
           y, ldy);
  });
}

}  // namespace cairn::kernels
