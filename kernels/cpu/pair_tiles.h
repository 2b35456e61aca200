// pair_tiles.h: the inner loops of PairLinear with instructions that multiply pairs of BF16 numbers
// (linear.h, cpu_path.h): AMX's, and AVX-512's.
//
// Threads: pure functions, which leave the thread's tiles released and MXCSR as it was; a Scratch
// belongs to one call at a time. Orders and shapes: linear.h.
#ifndef CAIRN_KERNELS_CPU_PAIR_TILES_H_
#define CAIRN_KERNELS_CPU_PAIR_TILES_H_

#include <cstdint>

#include "kernels/cpu/products.h"

namespace cairn::kernels {

// A tile of the input: 16 rows of 32 k in BF16, 1 KiB.
inline constexpr int64_t kTileRows = 16, kTileKs = 32;

struct PairTiles {
  // Rows [16 block, 16 block + 16) of product.x, rounded to BF16, as tiles, those of a block one
  // after another: tiles[m / 16][k / 32][16][32], the k of a tile's row in an order of the
  // instructions' own. Rows from m on are not written; what comes of them is nobody's.
  void (*pack)(const Product& product, int64_t m, int64_t block, uint16_t* tiles);
  // Rows of `task`, which begin a block, of x as packed.
  void (*rows)(const Product& product, const uint16_t* tiles, const Task& task, Scratch& scratch);
};

// REQUIRES: HasPairPath(PairPath::kAmx) where its functions are called.
PairTiles AmxPairTiles();
// REQUIRES: HasPairPath(PairPath::kBf16) where its functions are called.
PairTiles Bf16PairTiles();

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_PAIR_TILES_H_
