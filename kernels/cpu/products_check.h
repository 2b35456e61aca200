// products_check.h: whether two sets of inner loops give the same bits. What a process asks before
// it uses instructions that are seldom tested, and the tests ask of all. Some 25 ms for AVX-512,
// and 45 for AMX on a Xeon; 4, and 13 for BF16, on a Zen 5.
//
// Threads: any.
#ifndef CAIRN_KERNELS_CPU_PRODUCTS_CHECK_H_
#define CAIRN_KERNELS_CPU_PRODUCTS_CHECK_H_

#include "kernels/cpu/pair_tiles.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/row_loops.h"

namespace cairn::kernels {

// Every format, every number of rows up to beyond two tiles, edges of panels, slabs and groups.
bool SameBits(const Products& one, const Products& other);
// Every number of heads and of rows up to beyond what is taken at once; every code.
bool SameBits(const RowLoops& one, const RowLoops& other);

// The same of PairLinear's loops, with codes and sums small enough to be subnormal among them.
bool SamePairBits(const Products& vectors, const PairTiles& instructions);
bool SamePairBits(const Products& one, const Products& other);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_PRODUCTS_CHECK_H_
