// Products with AMX: an instruction multiplies 16 rows with 16 outputs over 32 k. Compiled for
// x86-64-v4 with VBMI and AMX, and called only where the processor has those. Uses no inline
// function of another file, for the reason that products_avx512.cc has; the test check_avx512 looks
// here too.
//
// A tile of weights is decoded to BF16 in the first-level cache: row j has for each of 16 outputs
// the pair of k = 2j and 2j + 1. Both packed formats have the pairs of 16 outputs within 32 bytes,
// so a row is one permutation of bytes and a few instructions on 16-bit lanes.
#include "kernels/cpu/products_amx.h"

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/vector_loops.h"

namespace cairn::kernels {
namespace {

constexpr int64_t kTileValues = kTileRows * kTileKs;
// Tiles of k that one pass takes of a panel with more rows: two panels' lie in the first-level
// cache, and each pass loads and stores sums.
constexpr int64_t kSlabTiles = 16;
// Up to how many rows sums stay in tiles from the first k to the last.
constexpr int64_t kPassRows = 2 * kTileRows;
// Panels side by side.
constexpr int kSide = 2;
// How far ahead of their decoding weights are asked for. Those of FP4 leave the first-level cache
// too few misses at once, so they are first asked for into the second.
constexpr int64_t kFp8Ahead = 2048;
constexpr int64_t kFp4Ahead = 1024, kFp4FarAhead = 8192, kFp4ScalesAhead = 512;

// ---- decoding ----

// Of a tile's row, the byte of a chunk with the value of each 16-bit lane: output lane / 2, and the
// earlier or the later k, which are `later` bytes apart. Outputs 1, 4 and 8 lie `one`, `four` and
// `eight` bytes after output 0.
struct ByteTable {
  alignas(64) uint8_t bytes[64] = {};
  constexpr ByteTable(int first, int one, int four, int eight, int later) {
    for (int lane = 0; lane < 32; ++lane) {
      const int output = lane / 2;
      const int byte =
          first + output % 4 * one + output / 4 % 2 * four + output / 8 * eight + lane % 2 * later;
      bytes[2 * lane] = bytes[2 * lane + 1] = static_cast<uint8_t>(byte);
    }
  }
};

inline __m512i Load(const void* p) { return _mm512_loadu_si512(p); }
inline __m512i Words(int v) { return _mm512_set1_epi16(static_cast<short>(v)); }

// e8m0 bytes of 16 outputs as exponents of BF16, for both lanes of each.
inline __m512i ScaleWords(const uint8_t* e8m0) {
  const __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(e8m0)));
  return _mm512_or_si512(_mm512_slli_epi32(v, 7), _mm512_slli_epi32(v, 23));
}

template <WeightFormat format>
struct Decoder;

template <>
struct Decoder<WeightFormat::kFp8> {
  static constexpr int64_t kTileBytes = 512, kGroupTiles = 4;

  // An e4m3 code moved into a BF16's exponent and mantissa is short of 120 in the exponent, which
  // goes with the scale.
  static __m512i Scales(const uint8_t* e8m0) {
    return _mm512_sub_epi16(ScaleWords(e8m0), Words(7 << 7));
  }
  static __m512i Normal(__m512i codes, __m512i scales) {
    const __m512i moved = _mm512_and_si512(_mm512_srai_epi16(codes, 4), Words(0x87f0));
    return _mm512_add_epi16(moved, scales);
  }
  // Codes with an exponent of 0 too: zeros, and multiples of 2^-9, normal numbers in BF16.
  [[gnu::noinline]] static __m512i Any(__m512i codes, __m512i scales) {
    const __m512i multiples = _mm512_broadcast_i32x4(
        _mm_sub_epi16(_mm_setr_epi16(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60),
                      _mm_set1_epi16(120 << 7)));
    const __m512i mantissa = _mm512_and_si512(_mm512_srli_epi16(codes, 8), Words(7));
    const __m512i magnitude =
        _mm512_add_epi16(_mm512_permutexvar_epi16(mantissa, multiples), scales);
    const __m512i sign = _mm512_and_si512(codes, Words(0x8000));
    const __mmask32 small = _mm512_testn_epi16_mask(codes, Words(0x7800));
    const __mmask32 zero = _mm512_testn_epi16_mask(codes, Words(0x7f00));
    const __m512i nonzero =
        _mm512_mask_mov_epi16(Normal(codes, scales), small, _mm512_or_si512(magnitude, sign));
    return _mm512_mask_mov_epi16(nonzero, zero, Words(0x8000));
  }
  static void Tile(const uint8_t* from, __m512i scales, uint16_t* to) {
    static constexpr ByteTable kFirst(0, 4, 16, 1, 2), kSecond(32, 4, 16, 1, 2);
    const __m512i first_bytes = Load(kFirst.bytes), second_bytes = Load(kSecond.bytes);
    for (int i = 0; i < 8; ++i, from += 64, to += 64) {
      _mm_prefetch(from + kFp8Ahead, _MM_HINT_T0);
      const __m512i codes = Load(from);
      const __m512i first = _mm512_permutexvar_epi8(first_bytes, codes);
      const __m512i second = _mm512_permutexvar_epi8(second_bytes, codes);
      const __mmask64 small = _mm512_testn_epi8_mask(codes, _mm512_set1_epi8(0x78));
      if (__builtin_expect(small == 0, 1)) {
        _mm512_store_si512(to, Normal(first, scales));
        _mm512_store_si512(to + 32, Normal(second, scales));
      } else {
        _mm512_store_si512(to, Any(first, scales));
        _mm512_store_si512(to + 32, Any(second, scales));
      }
    }
  }
};

template <>
struct Decoder<WeightFormat::kFp4> {
  static constexpr int64_t kTileBytes = 256, kGroupTiles = 1;

  // Values come from a table as 2^125 times what they are, and the scales take that back: so they
  // are never positive, and subtracting with saturation leaves the table's zeros, -0, where they
  // are.
  static constexpr int kRaised = 125;
  static __m512i Scales(const uint8_t* e8m0) {
    _mm_prefetch(e8m0 + kFp4ScalesAhead, _MM_HINT_T0);
    return _mm512_sub_epi16(ScaleWords(e8m0), Words((127 + kRaised) << 7));
  }
  static void Tile(const uint8_t* from, __m512i scales, uint16_t* to) {
    static constexpr ByteTable kFirst(0, 2, 16, 1, 8), kSecond(32, 2, 16, 1, 8);
    const __m512i first_bytes = Load(kFirst.bytes), second_bytes = Load(kSecond.bytes);
    // The permutation reads five bits of a lane, of which four are a code's: all twice.
    const __m256i magnitudes = _mm256_add_epi16(
        _mm256_broadcastsi128_si256(
            _mm_setr_epi16(-kRaised * 128, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0)),
        _mm256_set1_epi16(kRaised * 128));
    const __m256i signs = _mm256_setr_epi16(-0x8000, 0, 0, 0, 0, 0, 0, 0, -0x8000, -0x8000, -0x8000,
                                            -0x8000, -0x8000, -0x8000, -0x8000, -0x8000);
    const __m512i values = _mm512_broadcast_i64x4(_mm256_or_si256(magnitudes, signs));
    for (int i = 0; i < 4; ++i, from += 64, to += 128) {
      _mm_prefetch(from + kFp4FarAhead, _MM_HINT_T1);
      _mm_prefetch(from + kFp4Ahead, _MM_HINT_T0);
      const __m512i codes = Load(from);
      const __m512i first = _mm512_permutexvar_epi8(first_bytes, codes);
      const __m512i second = _mm512_permutexvar_epi8(second_bytes, codes);
      const __m512i rows[4] = {first, _mm512_srli_epi16(first, 4), second,
                               _mm512_srli_epi16(second, 4)};
      for (int r = 0; r < 4; ++r) {
        const __m512i v = _mm512_permutexvar_epi16(rows[r], values);
        _mm512_store_si512(to + r * 32, _mm512_adds_epi16(v, scales));
      }
    }
  }
};

// Tile `i`, in k, of a panel.
template <WeightFormat format>
[[gnu::always_inline]] inline void DecodeTile(const Product& a, int64_t panel, int64_t i,
                                              uint16_t* to) {
  using D = Decoder<format>;
  const __m512i scales = D::Scales(a.scales + panel * a.panel_scales + i / D::kGroupTiles * kPanel);
  D::Tile(a.values + panel * a.panel_bytes + i * D::kTileBytes, scales, to);
}

// ---- multiplying ----

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
constexpr int64_t kRowStep = kTileRows * kPanel, kPanelStep = kRowsPerTask * kPanel;

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

void CopySums(const Product& a, const Task& task, int64_t panel, int64_t panels,
              const float* sums) {
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t column = (panel + p) * kPanel;
    const auto bytes = static_cast<size_t>(Smaller(kPanel, a.n - column)) * sizeof(float);
    for (int64_t r = 0; r < task.rows; ++r) {
      std::memcpy(a.y + (task.row_begin + r) * a.ldy + column, sums + p * kPanelStep + r * kPanel,
                  bytes);
    }
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
  for (int p = 0; p < kPanels; ++p) DecodeTile<format>(a, panel + p, 0, decoded(0, p));
  ZeroSums<kRowTiles, kPanels>();
  for (int64_t i = 0; i < tiles; ++i) {
    MemoryIsWritten();
    Multiply<kRowTiles, kPanels>(rows + i * kTileValues, row_stride, decoded(i, 0), decoded(i, 1));
    if (i + 1 == tiles) break;
    for (int p = 0; p < kPanels; ++p) DecodeTile<format>(a, panel + p, i + 1, decoded(i + 1, p));
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
      DecodeTile<format>(a, panel + p, begin + i, room + (p * kSlabTiles + i) * kTileValues);
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
  if (a.format == WeightFormat::kFp8) {
    RowsOf<WeightFormat::kFp8>(a, tiles, task, scratch);
  } else {
    RowsOf<WeightFormat::kFp4>(a, tiles, task, scratch);
  }
  _tile_release();
}

// The upper halves of F32.
void Pack(const Product& a, int64_t m, int64_t block, uint16_t* tiles) {
  static constexpr auto kUpper = [] {
    struct {
      alignas(64) uint16_t words[32];
    } table = {};
    for (int i = 0; i < 32; ++i) table.words[i] = static_cast<uint16_t>(2 * i + 1);
    return table;
  }();
  const __m512i upper = Load(kUpper.words);
  uint16_t* const to = tiles + block * kTileRows * a.k;
  for (int64_t r = 0; r < kTileRows; ++r) {
    const int64_t row = block * kTileRows + r;
    const float* x = a.x + row * a.ldx;
    for (int64_t k = 0; k < a.k; k += kTileKs) {
      __m512i v = _mm512_setzero_si512();
      if (row < m) v = _mm512_permutex2var_epi16(Load(x + k), upper, Load(x + k + 16));
      _mm512_store_si512(to + k * kTileRows + r * kTileKs, v);
    }
  }
}

}  // namespace

AmxProducts AmxProductsHere() { return {Pack, Rows}; }

}  // namespace cairn::kernels
