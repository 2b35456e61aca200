#include "kernels/cpu/linear.h"

#include <algorithm>
#include <memory>

#include "kernels/cpu/cpu_path.h"
#include "kernels/cpu/products.h"

namespace cairn::kernels {
namespace {

constexpr int64_t kFewRowsPanelsPerTask = 4;
// Tasks a thread, so that none waits long for the last one.
constexpr int64_t kTasksPerThread = 4;
// Below this many multiply-adds a loop costs less than waking a thread.
constexpr int64_t kSerialWork = 150'000;

const Products& ChosenProducts() {
  static const Products avx2 = Avx2Products();
  if (ChosenCpuPath() == CpuPath::kAvx2) return avx2;
  static const Products avx512 = Avx512Products();
  return avx512;
}

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Product ProductOf(const PackedMatrix& w, const float* x, int64_t ldx, float* y, int64_t ldy) {
  return {w.format(),
          w.n(),
          w.k(),
          w.panel(0),
          w.panel_bytes(),
          w.panel_scales(0),
          w.panel_scale_bytes(),
          x,
          ldx,
          y,
          ldy};
}

void PanelMultiply(const float* panel, int64_t count, const float* x, int64_t ldx, int64_t m,
                   float* y, int64_t ldy) {
  ChosenProducts().panel(panel, count, x, ldx, m, y, ldy);
}

void Linear(ThreadPool& pool, const PackedMatrix& w, const float* x, int64_t ldx, int64_t m,
            float* y, int64_t ldy) {
  const Products& products = ChosenProducts();
  const Product product = ProductOf(w, x, ldx, y, ldy);
  const bool serial = m * w.n() * w.k() < kSerialWork;
  const auto run = [&](int64_t tasks, const auto& body) {
    if (serial) {
      for (int64_t task = 0; task < tasks; ++task) body(task);
    } else {
      pool.Run(tasks, body);
    }
  };
  if (m <= products.few_rows_max[static_cast<size_t>(w.format())]) {
    run(CeilDiv(w.panels(), kFewRowsPanelsPerTask), [&](int64_t i) {
      const int64_t panel = i * kFewRowsPanelsPerTask;
      products.few_rows(product,
                        {0, m, panel, std::min(kFewRowsPanelsPerTask, w.panels() - panel)});
    });
    return;
  }
  // Rows in equal parts of whole tiles.
  const int64_t tile = products.tile_rows;
  const int64_t rows = CeilDiv(CeilDiv(m, CeilDiv(m, kRowsPerTask)), tile) * tile;
  const int64_t row_tasks = CeilDiv(m, rows);
  const int64_t panels = std::clamp<int64_t>(
      w.panels() * row_tasks / (kTasksPerThread * pool.threads()), 1, kPanelsPerTask);
  run(CeilDiv(w.panels(), panels) * row_tasks, [&](int64_t i) {
    thread_local const std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
    const int64_t row = i % row_tasks * rows;
    const int64_t panel = i / row_tasks * panels;
    products.many_rows(product,
                       {row, std::min(rows, m - row), panel, std::min(panels, w.panels() - panel)},
                       *scratch);
  });
}

}  // namespace cairn::kernels
