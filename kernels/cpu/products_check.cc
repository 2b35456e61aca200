#include "kernels/cpu/products_check.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace cairn::kernels {
namespace {

constexpr int64_t kOutputs = 3 * PackedMatrix::kPanel + 5;
constexpr int64_t kK = kSlab + 128 + 32;  // a slab, a group of FP8, a group of FP4
constexpr int64_t kRowsMax = 27;

// Numbers without a library: the same everywhere.
class Numbers {
 public:
  uint32_t Next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 32);
  }
  // In [-1, 1), of 24 bits.
  float Small() { return static_cast<float>(static_cast<int32_t>(Next()) >> 7) * 0x1p-24f; }

 private:
  uint64_t state_ = 1;
};

// `lowest`: of the scales, which are more than either format has.
PackedMatrix Made(WeightFormat format, Numbers& numbers, int lowest = 120) {
  std::vector<uint8_t> values, scales;
  const auto put = [&](uint32_t bits, int bytes) {
    for (int i = 0; i < bytes; ++i) values.push_back(static_cast<uint8_t>(bits >> (8 * i)));
  };
  for (int64_t i = 0; i < kOutputs * kK; ++i) {
    const auto small = std::bit_cast<uint32_t>(numbers.Small());
    if (format == WeightFormat::kF32) put(small, 4);
    if (format == WeightFormat::kBf16) put(small >> 16, 2);
    // Not the NaNs, which have all bits of exponent and mantissa.
    if (format == WeightFormat::kFp8) put(numbers.Next() & 0xf7, 1);
    if (format == WeightFormat::kFp4 && i % 2 == 0) put(numbers.Next() & 0xff, 1);
  }
  for (int64_t i = 0; i < kOutputs * kK / 32; ++i) {
    scales.push_back(static_cast<uint8_t>(lowest + static_cast<int>(numbers.Next() % 8)));
  }
  return PackedMatrix({format, kOutputs, kK, values.data(), scales.data()}, 0, kOutputs);
}

using Results = std::vector<float>;

// Of `rows` rows, by both ways that Linear has; the second one adds to what is there.
Results Of(const Products& products, const PackedMatrix& w, const std::vector<float>& x,
           int64_t rows) {
  static thread_local const std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
  Results y(static_cast<size_t>(2 * rows * kOutputs));
  Product product = ProductOf(w, x.data(), kK, y.data(), kOutputs);
  products.many_rows(product, {0, rows, 0, w.panels()}, *scratch);
  product.y += rows * kOutputs;
  if (rows <= products.few_rows_max[static_cast<size_t>(w.format())]) {
    products.few_rows(product, {0, rows, 0, w.panels()});
  } else {
    std::copy_n(y.data(), rows * kOutputs, product.y);
  }
  return y;
}

Results PanelOf(const Products& products, const std::vector<float>& panel,
                const std::vector<float>& x, int64_t rows) {
  Results y(static_cast<size_t>(rows * PackedMatrix::kPanel), 0.5f);
  products.panel(panel.data(), kSlab, x.data(), kK, rows, y.data(), PackedMatrix::kPanel);
  return y;
}

constexpr int64_t kHeads = 15;  // 8 + 4 + 2 + 1
constexpr int64_t kDim = 48;
constexpr int64_t kRowsSeenMax = 20;

Results HeadsOf(const RowLoops& loops, int64_t near, int64_t far) {
  Numbers numbers;
  Results q(kHeads * kDim), rows(kRowsSeenMax * kDim), sinks(kHeads), out(kHeads * kDim), scratch;
  for (Results* values : {&q, &rows, &sinks}) {
    for (float& v : *values) v = numbers.Small();
  }
  Attend(loops, q.data(), kHeads, kDim, {rows.data(), near}, {rows.data() + near * kDim, far}, 0.5f,
         sinks.data(), out.data(), scratch);
  return out;
}

Results CodesOf(const RowLoops& loops) {
  std::vector<uint8_t> codes(256);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i);
  constexpr float kScales[] = {1, 0x1p-20f, 0x1p100f, 0x1p-127f};
  Results x(codes.size());
  loops.decode_fp8(codes.data(), 4, kScales, x.data());
  return x;
}

bool Same(const Results& a, const Results& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr int64_t kPairRowsMax = 4 * kTileRows + 3;

Results PairsOf(const Products& products, const PackedMatrix& w, const std::vector<float>& x,
                int64_t rows) {
  static thread_local const std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
  Results y(static_cast<size_t>(rows * kOutputs));
  products.pair_rows(ProductOf(w, x.data(), kK, y.data(), kOutputs), {0, rows, 0, w.panels()},
                     *scratch);
  return y;
}

// By two tasks, the second one of the last `alone` panels.
Results PairsOf(const PairTiles& instructions, const PackedMatrix& w, const std::vector<float>& x,
                int64_t rows, int64_t alone) {
  struct alignas(64) Tile {
    uint16_t values[kTileRows * kTileKs];
  };
  static thread_local const std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
  Results y(static_cast<size_t>(rows * kOutputs));
  const Product product = ProductOf(w, x.data(), kK, y.data(), kOutputs);
  const int64_t blocks = (rows + kTileRows - 1) / kTileRows;
  std::vector<Tile> tiles(static_cast<size_t>(blocks * kK / kTileKs));
  for (int64_t b = 0; b < blocks; ++b) instructions.pack(product, rows, b, tiles.data()->values);
  const int64_t first = w.panels() - alone;
  instructions.rows(product, tiles.data()->values, {0, rows, 0, first}, *scratch);
  if (alone > 0) {
    instructions.rows(product, tiles.data()->values, {0, rows, first, alone}, *scratch);
  }
  return y;
}

bool Same(const Results& wanted, const Products& other, const PackedMatrix& w,
          const std::vector<float>& x, int64_t rows) {
  return Same(wanted, PairsOf(other, w, x, rows));
}

// Panels go side by side, as many as a task has: all four, and three and one.
bool Same(const Results& wanted, const PairTiles& other, const PackedMatrix& w,
          const std::vector<float>& x, int64_t rows) {
  return Same(wanted, PairsOf(other, w, x, rows, 0)) && Same(wanted, PairsOf(other, w, x, rows, 1));
}

template <typename Other>
bool SamePairs(const Products& one, const Other& other) {
  Numbers numbers;
  std::vector<float> x(static_cast<size_t>(kPairRowsMax * kK));
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kFp8, WeightFormat::kFp4}) {
    // Sums of usual size; and such that many of them are below 2^-126.
    const float small = format == WeightFormat::kBf16 ? 0x1p-125f : 0x1p-16f;
    for (const auto& [lowest, factor] : {std::pair{120, 1.0f}, std::pair{12, small}}) {
      for (float& v : x) v = numbers.Small() * factor;
      const PackedMatrix w = Made(format, numbers, lowest);
      for (int64_t rows = 1; rows <= kPairRowsMax; ++rows) {
        if (!Same(PairsOf(one, w, x, rows), other, w, x, rows)) return false;
      }
    }
  }
  return true;
}

}  // namespace

bool SamePairBits(const Products& vectors, const PairTiles& instructions) {
  return SamePairs(vectors, instructions);
}

bool SamePairBits(const Products& one, const Products& other) { return SamePairs(one, other); }

bool SameBits(const Products& one, const Products& other) {
  Numbers numbers;
  std::vector<float> x(static_cast<size_t>(kRowsMax * kK));
  std::vector<float> panel(static_cast<size_t>(kSlab * PackedMatrix::kPanel));
  for (float& v : x) v = numbers.Small();
  for (float& v : panel) v = numbers.Small();
  for (const WeightFormat format :
       {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8, WeightFormat::kFp4}) {
    const PackedMatrix w = Made(format, numbers);
    for (int64_t rows = 1; rows <= kRowsMax; ++rows) {
      if (!Same(Of(one, w, x, rows), Of(other, w, x, rows))) return false;
    }
  }
  for (int64_t rows = 1; rows <= kRowsMax; ++rows) {
    if (!Same(PanelOf(one, panel, x, rows), PanelOf(other, panel, x, rows))) return false;
  }
  return true;
}

bool SameBits(const RowLoops& one, const RowLoops& other) {
  for (int64_t rows = 1; rows <= kRowsSeenMax; ++rows) {
    for (const int64_t far : {int64_t{0}, rows / 3}) {
      if (!Same(HeadsOf(one, rows - far, far), HeadsOf(other, rows - far, far))) return false;
    }
  }
  return Same(CodesOf(one), CodesOf(other));
}

}  // namespace cairn::kernels
