#include "kernels/cpu/linear.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/cpu/cpu_path.h"
#include "kernels/cpu/pair_tiles.h"
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

// `work`: multiply-adds, or as much.
template <typename Body>
void Run(ThreadPool& pool, int64_t work, int64_t tasks, const Body& body) {
  if (work >= kSerialWork) return pool.Run(tasks, body);
  for (int64_t task = 0; task < tasks; ++task) body(task);
}

// What a task takes of m rows and of the panels.
struct Parts {
  int64_t m, rows, panels;
};

// Rows in equal parts of whole tiles.
Parts PartsOf(const ThreadPool& pool, const PackedMatrix& w, int64_t m, int64_t tile) {
  const int64_t rows = CeilDiv(CeilDiv(m, CeilDiv(m, kRowsPerTask)), tile) * tile;
  const int64_t panels = w.panels() * CeilDiv(m, rows) / (kTasksPerThread * pool.threads());
  return {m, rows, std::clamp<int64_t>(panels, 1, kPanelsPerTask)};
}

template <typename Body>
void RunTasks(ThreadPool& pool, const PackedMatrix& w, const Parts& parts, const Body& body) {
  const int64_t row_tasks = CeilDiv(parts.m, parts.rows);
  const int64_t tasks = CeilDiv(w.panels(), parts.panels) * row_tasks;
  Run(pool, parts.m * w.n() * w.k(), tasks, [&](int64_t i) {
    const int64_t row = i % row_tasks * parts.rows;
    const int64_t panel = i / row_tasks * parts.panels;
    body(Task{row, std::min(parts.rows, parts.m - row), panel,
              std::min(parts.panels, w.panels() - panel)});
  });
}

Scratch& ThreadScratch() {
  thread_local const std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
  return *scratch;
}

// Of so many rows the input is packed at once: several tasks' in number, a few MiB.
constexpr int64_t kPackedRows = 4 * kRowsPerTask;

// Room for `tiles` tiles of input, kept for the thread's next ones.
uint16_t* ThreadTiles(int64_t tiles) {
  struct alignas(64) Tile {
    uint16_t values[kTileRows * kTileKs];
  };
  thread_local std::vector<Tile> room;
  if (static_cast<int64_t>(room.size()) < tiles) room.resize(static_cast<size_t>(tiles));
  return room.data()->values;
}

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
  if (m <= products.few_rows_max[static_cast<size_t>(w.format())]) {
    RunTasks(pool, w, {m, m, kFewRowsPanelsPerTask},
             [&](const Task& task) { products.few_rows(product, task); });
    return;
  }
  RunTasks(pool, w, PartsOf(pool, w, m, products.tile_rows),
           [&](const Task& task) { products.many_rows(product, task, ThreadScratch()); });
}

void PairLinear(ThreadPool& pool, const PackedMatrix& w, const float* x, int64_t ldx, int64_t m,
                float* y, int64_t ldy) {
  Product product = ProductOf(w, x, ldx, y, ldy);
  const PairPath path = ChosenPairPath();
  if (path == PairPath::kVectors) {
    const Products& products = ChosenProducts();
    RunTasks(pool, w, PartsOf(pool, w, m, products.pair_rows_tile),
             [&](const Task& task) { products.pair_rows(product, task, ThreadScratch()); });
    return;
  }
  const PairTiles instructions = path == PairPath::kAmx ? AmxPairTiles() : Bf16PairTiles();
  for (; m > 0; m -= kPackedRows) {
    const int64_t rows = std::min(m, kPackedRows);
    const int64_t blocks = CeilDiv(rows, kTileRows);
    uint16_t* const tiles = ThreadTiles(blocks * w.k() / kTileKs);
    Run(pool, rows * w.k(), blocks, [&](int64_t i) { instructions.pack(product, rows, i, tiles); });
    const Parts parts = rows <= 2 * kTileRows ? Parts{rows, rows, kFewRowsPanelsPerTask}
                                              : PartsOf(pool, w, rows, 2 * kTileRows);
    RunTasks(pool, w, parts,
             [&](const Task& task) { instructions.rows(product, tiles, task, ThreadScratch()); });
    product.x += rows * ldx;
    product.y += rows * ldy;
  }
}

}  // namespace cairn::kernels
