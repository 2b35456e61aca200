// streams.h: the sums over residual streams (spec section 2.2) and over the indexer's heads (2.6):
// short sums, many outputs side by side.
//
// Threads: pure functions. Shapes: streams [hc, dim]; hc at most kStreamsMax.
#ifndef CAIRN_KERNELS_CPU_STREAMS_H_
#define CAIRN_KERNELS_CPU_STREAMS_H_

#include <cstdint>

namespace cairn::kernels {

inline constexpr int64_t kStreamsMax = 16;

// x[i] = pre[0] * s[0][i], then fma(pre[j], s[j][i], .) for j = 1, 2, ...
void CollapseStreams(const float* pre, const float* streams, int64_t hc, int64_t dim, float* x);

// In place: s[k][i] = post[k] * f[i], then fma(comb[j][k], old s[j][i], .) for j = 0, 1, ...
void MergeStreams(const float* f, const float* post, const float* comb, int64_t hc, int64_t dim,
                  float* streams);

// out[j] = fma(weights[h], max(products[h][j], 0), .) for h = 0, 1, ... from 0; j in [0, 16).
void CombineHeads(const float* products, const float* weights, int64_t heads, float* out);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_STREAMS_H_
