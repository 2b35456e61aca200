#include "kernels/cpu/linear.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/cpu/cpu_path.h"
#include "kernels/cpu/pair_tiles.h"
#include "kernels/cpu/products.h"

namespace cairn::kernels {
namespace {

constexpr int64_t kFewRowsPanelsMax = 4;
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
Parts PartsOf(const ThreadPool& pool, int64_t panels, int64_t m, int64_t tile) {
  const int64_t rows = CeilDiv(CeilDiv(m, CeilDiv(m, kRowsPerTask)), tile) * tile;
  const int64_t each = panels * CeilDiv(m, rows) / (kTasksPerThread * pool.threads());
  return {m, rows, std::clamp<int64_t>(each, 1, kPanelsPerTask)};
}

// All rows at once. Of very few rows panels side by side are worth as much as another thread; of
// more there are no fewer tasks than threads, if there can be.
Parts PartsOfFewRows(const ThreadPool& pool, int64_t panels, int64_t m) {
  constexpr int64_t kVeryFew = 3;
  const int64_t least = m <= kVeryFew ? kFewRowsPanelsMax : 1;
  return {m, m, std::clamp(panels / pool.threads(), least, kFewRowsPanelsMax)};
}

// body(i, task) for each part of `count` matrices of the shape of w.
template <typename Body>
void RunTasks(ThreadPool& pool, const PackedMatrix& w, int64_t count, const Parts& parts,
              const Body& body) {
  const int64_t row_tasks = CeilDiv(parts.m, parts.rows);
  const int64_t tasks = CeilDiv(w.panels(), parts.panels) * row_tasks;
  Run(pool, count * parts.m * w.n() * w.k(), count * tasks, [&](int64_t i) {
    const int64_t row = i % row_tasks * parts.rows;
    const int64_t panel = i % tasks / row_tasks * parts.panels;
    body(i / tasks, Task{row, std::min(parts.rows, parts.m - row), panel,
                         std::min(parts.panels, w.panels() - panel)});
  });
}

Scratch& ThreadScratch() {
  thread_local const std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
  return *scratch;
}

// Up to how many rows PairLinear has them all in one task.
constexpr int64_t kFewPairRows = 2 * kTileRows;
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
  const LinearPart whole{&w, x, y};
  LinearParts(pool, {&whole, 1}, ldx, m, ldy);
}

void LinearParts(ThreadPool& pool, std::span<const LinearPart> parts, int64_t ldx, int64_t m,
                 int64_t ldy) {
  const Products& products = ChosenProducts();
  const PackedMatrix& w = *parts.front().w;
  const int64_t panels = w.panels() * std::ssize(parts);
  const auto product = [&](int64_t i) {
    const LinearPart& part = parts[static_cast<size_t>(i)];
    return ProductOf(*part.w, part.x, ldx, part.y, ldy);
  };
  if (m <= products.few_rows_max[static_cast<size_t>(w.format())]) {
    RunTasks(pool, w, std::ssize(parts), PartsOfFewRows(pool, panels, m),
             [&](int64_t i, const Task& task) { products.few_rows(product(i), task); });
    return;
  }
  RunTasks(
      pool, w, std::ssize(parts), PartsOf(pool, panels, m, products.tile_rows),
      [&](int64_t i, const Task& task) { products.many_rows(product(i), task, ThreadScratch()); });
}

void PairLinear(ThreadPool& pool, const PackedMatrix& w, const float* x, int64_t ldx, int64_t m,
                float* y, int64_t ldy) {
  const LinearPart whole{&w, x, y};
  PairLinearParts(pool, {&whole, 1}, ldx, m, ldy);
}

void PairLinearParts(ThreadPool& pool, std::span<const LinearPart> parts, int64_t ldx, int64_t m,
                     int64_t ldy) {
  // Of many rows each is enough for all threads, and packed input of all of them too much.
  if (m > kFewPairRows && parts.size() > 1) {
    for (const LinearPart& part : parts) PairLinearParts(pool, {&part, 1}, ldx, m, ldy);
    return;
  }
  const PackedMatrix& w = *parts.front().w;
  const int64_t count = std::ssize(parts), panels = w.panels() * count;
  const auto product = [&](int64_t i, int64_t row) {
    const LinearPart& part = parts[static_cast<size_t>(i)];
    return ProductOf(*part.w, part.x + row * ldx, ldx, part.y + row * ldy, ldy);
  };
  const PairPath path = ChosenPairPath();
  if (path == PairPath::kVectors) {
    const Products& products = ChosenProducts();
    RunTasks(pool, w, count, PartsOf(pool, panels, m, products.pair_rows_tile),
             [&](int64_t i, const Task& task) {
               products.pair_rows(product(i, 0), task, ThreadScratch());
             });
    return;
  }
  const PairTiles instructions = path == PairPath::kAmx ? AmxPairTiles() : Bf16PairTiles();
  for (int64_t row = 0; row < m; row += kPackedRows) {
    const int64_t rows = std::min(m - row, kPackedRows);
    const int64_t blocks = CeilDiv(rows, kTileRows);
    const int64_t each = blocks * kTileRows * w.k();
    uint16_t* const tiles = ThreadTiles(count * blocks * w.k() / kTileKs);
    Run(pool, count * rows * w.k(), count * blocks, [&](int64_t i) {
      instructions.pack(product(i / blocks, row), rows, i % blocks, tiles + i / blocks * each);
    });
    RunTasks(pool, w, count,
             rows <= kFewPairRows ? PartsOfFewRows(pool, panels, rows)
                                  : PartsOf(pool, panels, rows, 2 * kTileRows),
             [&](int64_t i, const Task& task) {
               instructions.rows(product(i, row), tiles + i * each, task, ThreadScratch());
             });
  }
}

}  // namespace cairn::kernels
