// routing.h: which experts a token goes to, with what weights, and the tokens of each expert side
// by side (engine/forward/moe.cc is the definition). Nothing waits for the host.
//
// A pair is a token's choice of an expert: pair t * k + i is the i-th of token t's experts, which
// are ascending. Sorted pairs lie expert by expert, in each by token: a function of the choices
// alone, found by counting.
//
// Pointers are the device's.
//
// Threads: any. Errors: INVALID_ARGUMENT for shapes, naming the bound.
#ifndef CAIRN_KERNELS_CUDA_ROUTING_H_
#define CAIRN_KERNELS_CUDA_ROUTING_H_

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/linear.h"

namespace cairn::kernels::cuda {

struct RouteShape {
  int64_t tokens = 0;
  int64_t experts = 0;  // at most 512
  int64_t k = 0;        // experts a token, at most 8 and at most experts
  float scale = 1.0f;
};

// How a layer chooses: the k largest of score + bias [experts], ties to the lower index; or, where
// there is a table, row token_ids[t] of it. REQUIRES: token ids and the table's experts are in
// range.
struct RouteChoice {
  const float* bias = nullptr;
  const int32_t* table = nullptr;      // [vocab, k]
  const int32_t* token_ids = nullptr;  // [tokens]
};

// The gate's outputs [tokens, experts] to ids [tokens, k], ascending, and weights [tokens, k]:
// score = sqrt(softplus(gate)), in double and rounded once; weight = score / sum of the k * scale.
absl::Status Route(Stream stream, const float* gate, const RouteChoice& choice,
                   const RouteShape& shape, int32_t* ids, float* weights);

// What a grouped product wants. offsets [experts + 1]: expert e's are sorted pairs [offsets[e],
// offsets[e + 1]). Of each sorted pair: token_of, weight_of (where weights are given). place_of
// [tokens, k]: where a pair lies among the sorted. tokens * k below 2^31.
struct RouteOrder {
  int32_t* offsets = nullptr;
  int32_t* token_of = nullptr;
  float* weight_of = nullptr;
  int32_t* place_of = nullptr;
};
absl::Status SortPairs(Stream stream, const int32_t* ids, const float* weights,
                       const RouteShape& shape, const RouteOrder& order);

// Room for all pairs' experts and weights [tokens, k]. What is in them after RouteExperts is open.
struct RouteRoom {
  int32_t* ids = nullptr;
  float* weights = nullptr;
};

// Route, SortPairs and CutExpertRows of `rows`: in one launch where tokens are few. REQUIRES:
// order.weight_of is there, rows.offsets is order.offsets, rows.rows is tokens * k, no expert is
// chosen from rows.experts on (shape.experts may have some more, for the gate's sake).
absl::Status RouteExperts(Stream stream, const float* gate, const RouteChoice& choice,
                          const RouteShape& shape, const RouteRoom& room, const RouteOrder& order,
                          const ExpertRows& rows);

// out [tokens, dim] BF16: what the experts made of each token, in the order of its pairs, added up
// in F32 from 0, then the shared expert's; rounded once. made [tokens * k, dim] BF16, sorted;
// shared [tokens, dim]. dim a multiple of 8; pointers to rows aligned to 16 bytes.
absl::Status CombineExperts(Stream stream, const uint16_t* made, const int32_t* place_of,
                            const uint16_t* shared, const RouteShape& shape, int64_t dim,
                            uint16_t* out);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_ROUTING_H_
