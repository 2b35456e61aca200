// PairLinear's loops with AMX: an instruction multiplies 16 rows with 16 outputs over 32 k.
// Compiled for x86-64-v4 with VBMI and AMX, and called only where the processor has those. Uses no
// inline function of another file, for the reason that products_avx512.cc has; the test
// check_avx512 looks here too.
//
// A tile of weights is decoded to BF16 in the first-level cache: row j has for each of 16 outputs
// the pair of k = 2j and 2j + 1.
#include "kernels/cpu/pair_tiles.h"

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/bf16_pairs.h"
#include "kernels/cpu/vector_loops.h"

namespace cairn::kernels {
namespace {

constexpr PairOrder kOrder = PairOrder::kNeighbours;
// Tiles of k that one pass takes of a panel with more rows: two panels' lie in the first-level
// cache, and each pass loads and stores sums.
constexpr int64_t kSlabTiles = 16;
// Up to how many rows sums stay in tiles from the first k to the last.
constexpr int64_t kPassRows = 2 * kTileRows;
// Panels side by side.
constexpr int kSide = 2;

// The intrinsics for tiles do not say that they read memory.
inline void MemoryIsWritten() { asm volatile("" ::: "memory"); }

// Tiles 0 to 3: sums of the first 16 rows with both panels, then of the other 16; 4 and 5: rows; 6
// and 7: panels.
void Configure(int64_t rows) {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  const auto first = static_cast<uint8_t>(Smaller(rows, kTileRows));
  const auto second = static_cast<uint8_t>(rows > kTileRows ? rows - kTileRows : 1);
  const uint8_t each[8] = {first, first, second, second, first, second, kTileRows, kTileRows};
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = 64;
    config.rows[i] = each[i];
  }
  MemoryIsWritten();
  _tile_loadconfig(&config);
}

template <int kRowTiles, int kPanels>
[[gnu::always_inline]] inline void ZeroSums() {
  _tile_zero(0);
  if constexpr (kPanels > 1) _tile_zero(1);
  if constexpr (kRowTiles > 1) _tile_zero(2);
  if constexpr (kRowTiles > 1 && kPanels > 1) _tile_zero(3);
}

// Sums lie as Scratch has them.
constexpr int64_t kRowStep = kTileRows * kPanel;

template <int kRowTiles, int kPanels>
[[gnu::always_inline]] inline void LoadSums(const float* sums) {
  _tile_loadd(0, sums, 64);
  if constexpr (kPanels > 1) _tile_loadd(1, sums + kPanelStep, 64);
  if constexpr (kRowTiles > 1) _tile_loadd(2, sums + kRowStep, 64);
  if constexpr (kRowTiles > 1 && kPanels > 1) _tile_loadd(3, sums + kRowStep + kPanelStep, 64);
}

template <int kRowTiles, int kPanels>
[[gnu::always_inline]] inline void StoreSums(float* sums) {
  _tile_stored(0, sums, 64);
  if constexpr (kPanels > 1) _tile_stored(1, sums + kPanelStep, 64);
  if constexpr (kRowTiles > 1) _tile_stored(2, sums + kRowStep, 64);
  if constexpr (kRowTiles > 1 && kPanels > 1) _tile_stored(3, sums + kRowStep + kPanelStep, 64);
}

// 32 k: tiles of rows, the second kept `row_stride` values after the first, with decoded panels.
template <int kRowTiles, int kPanels>
[[gnu::always_inline]] inline void Multiply(const uint16_t* rows, int64_t row_stride,
                                            const uint16_t* first, const uint16_t* second) {
  _tile_loadd(4, rows, 64);
  _tile_loadd(6, first, 64);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kPanels > 1) {
    _tile_loadd(7, second, 64);
    _tile_dpbf16ps(1, 4, 7);
  }
  if constexpr (kRowTiles > 1) {
    _tile_loadd(5, rows + row_stride, 64);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kPanels > 1) _tile_dpbf16ps(3, 5, 7);
  }
}

uint16_t* DecodedRoom(Scratch& scratch) {
  static_assert(sizeof(scratch.x) >= kSide * kSlabTiles * kTileValues * sizeof(uint16_t));
  return reinterpret_cast<uint16_t*>(scratch.x);
}

// At most kPassRows rows: panels are decoded one tile ahead of their multiplication.
template <WeightFormat format, int kRowTiles, int kPanels>
void OnePass(const Product& a, const uint16_t* rows, int64_t row_stride, int64_t panel,
             Scratch& scratch) {
  uint16_t* const room = DecodedRoom(scratch);
  const auto decoded = [&](int64_t i, int p) { return room + (i % 2 * kSide + p) * kTileValues; };
  const int64_t tiles = a.k / kTileKs;
  for (int p = 0; p < kPanels; ++p) DecodeTile<format, kOrder>(a, panel + p, 0, decoded(0, p));
  ZeroSums<kRowTiles, kPanels>();
  for (int64_t i = 0; i < tiles; ++i) {
    MemoryIsWritten();
    Multiply<kRowTiles, kPanels>(rows + i * kTileValues, row_stride, decoded(i, 0), decoded(i, 1));
    if (i + 1 == tiles) break;
    for (int p = 0; p < kPanels; ++p)
      DecodeTile<format, kOrder>(a, panel + p, i + 1, decoded(i + 1, p));
  }
  StoreSums<kRowTiles, kPanels>(scratch.sums);
}

// A slab of kPanels panels from tile `begin` in k on, with all rows of the task.
template <WeightFormat format, int kPanels>
void SlabPasses(const Product& a, const uint16_t* rows, int64_t row_stride, int64_t row_tiles,
                int64_t panel, int64_t begin, int64_t count, float* sums, Scratch& scratch) {
  uint16_t* const room = DecodedRoom(scratch);
  for (int p = 0; p < kPanels; ++p) {
    for (int64_t i = 0; i < count; ++i) {
      DecodeTile<format, kOrder>(a, panel + p, begin + i,
                                 room + (p * kSlabTiles + i) * kTileValues);
    }
  }
  MemoryIsWritten();
  const auto pass = [&]<int kRowTiles>(Constant<kRowTiles>, int64_t tile) {
    LoadSums<kRowTiles, kPanels>(sums + tile * kRowStep);
    const uint16_t* from = rows + tile * row_stride + begin * kTileValues;
    for (int64_t i = 0; i < count; ++i) {
      Multiply<kRowTiles, kPanels>(from + i * kTileValues, row_stride, room + i * kTileValues,
                                   room + (kSlabTiles + i) * kTileValues);
    }
    StoreSums<kRowTiles, kPanels>(sums + tile * kRowStep);
  };
  int64_t tile = 0;
  for (; tile + 2 <= row_tiles; tile += 2) pass(Constant<2>(), tile);
  if (tile < row_tiles) pass(Constant<1>(), tile);
}

template <WeightFormat format>
void RowsOf(const Product& a, const uint16_t* tiles, const Task& task, Scratch& scratch) {
  const int64_t row_stride = a.k * kTileRows;
  const uint16_t* rows = tiles + task.row_begin / kTileRows * row_stride;
  if (task.rows <= kPassRows) {
    Configure(task.rows);
    using Pass = void (*)(const Product&, const uint16_t*, int64_t, int64_t, Scratch&);
    static constexpr Pass kPasses[2][kSide] = {{OnePass<format, 1, 1>, OnePass<format, 1, 2>},
                                               {OnePass<format, 2, 1>, OnePass<format, 2, 2>}};
    const Pass* pass = kPasses[task.rows > kTileRows ? 1 : 0];
    for (int64_t p = 0; p < task.panels; p += kSide) {
      const int64_t panels = Smaller(kSide, task.panels - p);
      pass[panels - 1](a, rows, row_stride, task.panel_begin + p, scratch);
      CopySums(a, task, task.panel_begin + p, panels, scratch.sums);
    }
    return;
  }
  Configure(kPassRows);
  const int64_t row_tiles = CeilDiv(task.rows, kTileRows);
  std::memset(scratch.sums, 0, static_cast<size_t>(task.panels * kPanelStep) * sizeof(float));
  for (int64_t begin = 0; begin < a.k / kTileKs; begin += kSlabTiles) {
    const int64_t count = Smaller(kSlabTiles, a.k / kTileKs - begin);
    for (int64_t p = 0; p < task.panels; p += kSide) {
      const auto passes = task.panels - p > 1 ? SlabPasses<format, 2> : SlabPasses<format, 1>;
      passes(a, rows, row_stride, row_tiles, task.panel_begin + p, begin, count,
             scratch.sums + p * kPanelStep, scratch);
    }
  }
  CopySums(a, task, task.panel_begin, task.panels, scratch.sums);
}

void Rows(const Product& a, const uint16_t* tiles, const Task& task, Scratch& scratch) {
  switch (a.format) {
    case WeightFormat::kF32:  // takes no pairs
      break;
    case WeightFormat::kBf16:
      RowsOf<WeightFormat::kBf16>(a, tiles, task, scratch);
      break;
    case WeightFormat::kFp8:
      RowsOf<WeightFormat::kFp8>(a, tiles, task, scratch);
      break;
    case WeightFormat::kFp4:
      RowsOf<WeightFormat::kFp4>(a, tiles, task, scratch);
      break;
  }
  _tile_release();
}

}  // namespace

PairTiles AmxPairTiles() { return {PackPairs<kOrder>, Rows}; }

}  // namespace cairn::kernels
