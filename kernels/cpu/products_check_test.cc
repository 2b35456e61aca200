// Goal: one wrong bit of any loop, for any format and number of rows, is found; and this
// processor's paths are right. Method: AVX2's loops, one of them spoiled.
#include "kernels/cpu/products_check.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/cpu/cpu_path.h"

namespace cairn::kernels {
namespace {

// What is spoiled: a result of so many rows (or heads, or of that code) with such weights. (The
// loops are plain functions.)
struct Spoiled {
  WeightFormat format = WeightFormat::kF32;
  int64_t rows = 0;
} spoiled;

void Spoil(float* y) {
  uint32_t bits = 0;
  std::memcpy(&bits, y, sizeof(bits));
  bits ^= 1;
  std::memcpy(y, &bits, sizeof(bits));
}

bool IsSpoiled(const Product& product, const Task& task) {
  return product.format == spoiled.format && task.rows == spoiled.rows;
}

TEST(ProductsCheck, ThePathsOfThisProcessorAreRight) {
  EXPECT_TRUE(SameBits(Avx2Products(), Avx2Products()));
  EXPECT_TRUE(SameBits(Avx2RowLoops(), Avx2RowLoops()));
  if (!HasCpuPath(CpuPath::kAvx512)) GTEST_SKIP() << "no AVX-512 here";
  EXPECT_TRUE(SameBits(Avx2Products(), Avx512Products()));
  EXPECT_TRUE(SameBits(Avx2RowLoops(), Avx512RowLoops()));
  EXPECT_TRUE(SamePairBits(Avx2Products(), Avx512Products()));
  if (HasPairPath(PairPath::kBf16)) {
    EXPECT_TRUE(SamePairBits(Avx2Products(), Bf16PairTiles()));
  }
  if (HasPairPath(PairPath::kAmx)) {
    EXPECT_TRUE(SamePairBits(Avx2Products(), AmxPairTiles()));
  }
}

TEST(ProductsCheck, OneWrongBitOfPairsIsFound) {
  Products wrong = Avx2Products();
  wrong.pair_rows = [](const Product& product, const Task& task, Scratch& scratch) {
    Avx2Products().pair_rows(product, task, scratch);
    if (IsSpoiled(product, task)) Spoil(product.y + (task.rows - 1) * product.ldy + product.n - 1);
  };
  for (const WeightFormat format : {WeightFormat::kFp8, WeightFormat::kFp4}) {
    for (const int64_t rows : {1, 15, 16, 17, 32, 33, 48, 49, 64, 67}) {
      spoiled = {format, rows};
      EXPECT_FALSE(SamePairBits(Avx2Products(), wrong)) << rows;
    }
  }
  spoiled = {};
  EXPECT_TRUE(SamePairBits(Avx2Products(), wrong));
}

TEST(ProductsCheck, PairsInAnotherOrderAreFound) {
  Products wrong = Avx2Products();
  wrong.pair_rows = Avx2Products().many_rows;
  EXPECT_FALSE(SamePairBits(Avx2Products(), wrong));
}

TEST(ProductsCheck, OneWrongBitOfFewRowsIsFound) {
  Products wrong = Avx2Products();
  wrong.few_rows = [](const Product& product, const Task& task) {
    Avx2Products().few_rows(product, task);
    if (IsSpoiled(product, task)) Spoil(product.y + (task.rows - 1) * product.ldy + product.n - 1);
  };
  for (const WeightFormat format :
       {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8, WeightFormat::kFp4}) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 12, 13}) {
      spoiled = {format, rows};
      EXPECT_FALSE(SameBits(Avx2Products(), wrong)) << rows;
      EXPECT_FALSE(SameBits(wrong, Avx2Products())) << rows;
    }
  }
  spoiled = {};
  EXPECT_TRUE(SameBits(Avx2Products(), wrong));
}

TEST(ProductsCheck, OneWrongBitOfManyRowsOrAPanelIsFound) {
  Products wrong = Avx2Products();
  wrong.many_rows = [](const Product& product, const Task& task, Scratch& scratch) {
    Avx2Products().many_rows(product, task, scratch);
    if (IsSpoiled(product, task)) Spoil(product.y);
  };
  for (const int64_t rows : {1, 11, 12, 13, 24, 25, 27}) {
    spoiled = {WeightFormat::kFp4, rows};
    EXPECT_FALSE(SameBits(Avx2Products(), wrong)) << rows;
  }
  wrong = Avx2Products();
  wrong.panel = [](const float* panel, int64_t count, const float* x, int64_t ldx, int64_t m,
                   float* y, int64_t ldy) {
    Avx2Products().panel(panel, count, x, ldx, m, y, ldy);
    if (m == spoiled.rows) Spoil(y + (m - 1) * ldy + 15);
  };
  EXPECT_FALSE(SameBits(Avx2Products(), wrong));
}

TEST(ProductsCheck, OneWrongBitOfAHeadOrACodeIsFound) {
  RowLoops wrong = Avx2RowLoops();
  wrong.scores = [](const float* q, int64_t heads, int64_t dim, const float* rows, int64_t count,
                    float scale, float* z, int64_t ldz) {
    Avx2RowLoops().scores(q, heads, dim, rows, count, scale, z, ldz);
    if (heads == spoiled.rows && count > 6) z[(heads - 1) * ldz + 6] += 0x1p-10f;
  };
  for (const int64_t heads : {1, 2, 4}) {
    spoiled.rows = heads;
    EXPECT_FALSE(SameBits(Avx2RowLoops(), wrong)) << heads;
  }
  wrong = Avx2RowLoops();
  wrong.add = [](const float* p, int64_t ldp, int64_t heads, int64_t dim, const float* rows,
                 int64_t count, float* out) {
    Avx2RowLoops().add(p, ldp, heads, dim, rows, count, out);
    if (count == spoiled.rows) Spoil(out + heads * dim - 1);
  };
  for (const int64_t rows : {1, 2, 3, 4, 5, 11, 13}) {
    spoiled.rows = rows;
    EXPECT_FALSE(SameBits(wrong, Avx2RowLoops())) << rows;
  }
  wrong = Avx2RowLoops();
  wrong.decode_fp8 = [](const uint8_t* codes, int64_t groups, const float* scales, float* x) {
    Avx2RowLoops().decode_fp8(codes, groups, scales, x);
    Spoil(x + spoiled.rows);
  };
  for (int64_t code = 0; code < 256; ++code) {
    spoiled.rows = code;
    EXPECT_FALSE(SameBits(Avx2RowLoops(), wrong)) << code;
  }
}

}  // namespace
}  // namespace cairn::kernels
