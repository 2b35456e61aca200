// hyper_connection.h: manifold-constrained hyper-connections, four residual streams a token, mixed
// before and merged after each sub-layer (engine/forward/hyper_connection.cc is the definition).
//
// fn is F32, streams are BF16: products are taken on the tensor cores with two BF16 parts of each
// fn (its nearest, and the nearest to what is left), which are fn to 2^-18 of it. Order of the sum
// over 4 * dim: the channels are cut into slices of 64; a slice's sum runs over streams, then
// channels (each 16 at a time by the tensor core, first parts before second); slices are added up
// in order by blocks, then blocks in order. Blocks have at most 8 slices, and are 1, 2, 4, 8 or 16:
// a function of dim. Sums over the streams are those of kernels/cpu/streams.h, then rounded to
// BF16.
//
// Pointers are the device's, aligned to 16 bytes. streams [rows, 4, dim] BF16.
//
// Threads: any. Errors: INVALID_ARGUMENT for shapes, naming the bound.
#ifndef CAIRN_KERNELS_CUDA_HYPER_CONNECTION_H_
#define CAIRN_KERNELS_CUDA_HYPER_CONNECTION_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

inline constexpr int kHcStreams = 4;
inline constexpr int kHcMixes = (2 + kHcStreams) * kHcStreams;

// Of a sub-layer: fn [24, 4 * dim], base [24], scale [3]. Of a head: fn [4, 4 * dim], base [4],
// scale [1]. All F32.
struct HcWeights {
  const float* fn = nullptr;
  const float* base = nullptr;
  const float* scale = nullptr;
};

// dim: a multiple of 64 up to 512, of 128 up to 1024, of 256 up to 2048, of 512 up to 4096, of 1024
// up to 8192.
struct HcShape {
  int64_t rows = 0;
  int64_t dim = 0;
  float norm_eps = 1e-6f;
  float hc_eps = 1e-6f;
  int sinkhorn_iterations = 20;
  // HcMix and HcMergeMix leave in comb what HcFinish makes comb of: with few rows that takes about
  // as long as all else, and only the next merging waits for it.
  bool finish_later = false;
};

// x [rows, dim] BF16 for the sub-layer, post [rows, 4] and comb [rows, 4, 4] F32 for HcMerge.
absl::Status HcMix(Stream stream, const HcWeights& weights, const HcShape& shape,
                   const uint16_t* streams, uint16_t* x, float* post, float* comb);

// comb [rows, 4, 4], in place, behind an HcMix or HcMergeMix of this shape that was to finish
// later.
absl::Status HcFinish(Stream stream, const HcShape& shape, float* comb);

// What a sub-layer made, f [rows, dim] BF16, and how it goes into the streams: post and comb of the
// HcMix before it. In place, streams[k] = post[k] * f + sum over j of comb[j][k] * streams[j].
struct HcMerging {
  const uint16_t* f = nullptr;
  const float* post = nullptr;
  const float* comb = nullptr;
};

// dim a multiple of 8.
absl::Status HcMerge(Stream stream, const HcMerging& merging, int64_t rows, int64_t dim,
                     uint16_t* streams);

// HcMerge and then HcMix, to the bit, with the streams read once for both. post and comb may be the
// merging's.
absl::Status HcMergeMix(Stream stream, const HcMerging& merging, const HcWeights& weights,
                        const HcShape& shape, uint16_t* streams, uint16_t* x, float* post,
                        float* comb);

// Before a head: x [rows, dim] BF16.
absl::Status HcCollapse(Stream stream, const HcWeights& weights, const HcShape& shape,
                        const uint16_t* streams, uint16_t* x);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_HYPER_CONNECTION_H_
