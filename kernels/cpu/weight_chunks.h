// weight_chunks.h: where each value of the packed weight formats lies. For the matrix kernels and
// packed_matrix.cc only.
//
// A panel (16 outputs) is a sequence of chunks of kKs values of k. Which byte holds which value is
// chosen so that decoding takes few instructions, and is written down here once, in PlaceOf();
// products_avx2.cc and products_avx512.cc decode it.
//
// Scales: kGroup values of k share one scale an output (0: there are none). Where kScaleInWeight,
// decoded weights are whole; otherwise the scale is for the group's sum (linear.h).
//
// Threads: constants.
#ifndef CAIRN_KERNELS_CPU_WEIGHT_CHUNKS_H_
#define CAIRN_KERNELS_CPU_WEIGHT_CHUNKS_H_

#include <cstdint>

#include "kernels/cpu/packed_matrix.h"

namespace cairn::kernels {

template <WeightFormat format>
struct Chunks;

template <>
struct Chunks<WeightFormat::kF32> {
  static constexpr int kKs = 1, kBytes = 64, kGroup = 0;
  static constexpr bool kScaleInWeight = true;
};

// Lane i: output i in the low half, output i + 8 in the high one.
template <>
struct Chunks<WeightFormat::kBf16> {
  static constexpr int kKs = 1, kBytes = 32, kGroup = 0;
  static constexpr bool kScaleInWeight = true;
};

// Bytes of lane i: outputs i and i + 8 of the first k, then of the second. An e4m3 code put into a
// BF16's exponent and mantissa is 2^-120 of its value (the biases differ by 120), subnormals
// included; the scale carries the 2^120.
template <>
struct Chunks<WeightFormat::kFp8> {
  static constexpr int kKs = 2, kBytes = 32, kGroup = 128;
  static constexpr bool kScaleInWeight = true;
  static constexpr int kRaise = 120;
};

// Lane i, 32 bits: output i. Low nibbles: the first four k, high nibbles: the other four; the bytes
// have k = 2, 3, 0 and 1 of four. So each half of a lane has what a pair of BF16 takes there when k
// and k + 2 are a pair, the later one in the lower half (bf16_pairs.h).
template <>
struct Chunks<WeightFormat::kFp4> {
  static constexpr int kKs = 8, kBytes = 64, kGroup = 32;
  static constexpr bool kScaleInWeight = false;
  static constexpr int kRaise = 0;
};

// Bytes of a chunk of `format`, and how many k it holds.
struct ChunkShape {
  int64_t ks, bytes, group;
};
constexpr ChunkShape ShapeOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return {Chunks<WeightFormat::kF32>::kKs, Chunks<WeightFormat::kF32>::kBytes, 0};
    case WeightFormat::kBf16:
      return {Chunks<WeightFormat::kBf16>::kKs, Chunks<WeightFormat::kBf16>::kBytes, 0};
    case WeightFormat::kFp8:
      return {Chunks<WeightFormat::kFp8>::kKs, Chunks<WeightFormat::kFp8>::kBytes, 128};
    case WeightFormat::kFp4:
      return {Chunks<WeightFormat::kFp4>::kKs, Chunks<WeightFormat::kFp4>::kBytes, 32};
  }
  return {};
}

// Byte of a chunk where the value of `output` (in [0, 16)) and k (in [0, ks)) lies, and for FP4 the
// shift of its nibble.
struct Place {
  int64_t byte;
  int shift;
};
constexpr Place PlaceOf(WeightFormat format, int64_t output, int64_t k) {
  const int64_t lane = output % 8, second = output / 8;
  switch (format) {
    case WeightFormat::kF32:
      return {output * 4, 0};
    case WeightFormat::kBf16:
      return {lane * 4 + second * 2, 0};
    case WeightFormat::kFp8:
      return {lane * 4 + k * 2 + second, 0};
    case WeightFormat::kFp4:
      return {output * 4 + (k + 2) % 4, k >= 4 ? 4 : 0};
  }
  return {};
}

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_WEIGHT_CHUNKS_H_
