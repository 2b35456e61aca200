// step_plan.h: what the tokens of a step see and write of their sequences' rows, worked out on the
// device from where the sequences stand, so that a captured step can be replayed at other
// positions. Spec sections 2.4 to 2.6.
//
// A step computes spans: tokens of one sequence (a slot of the pools) each, row after row. A
// layer's pool holds for every slot a ring of window rows, and compressed rows from the first on.
//
// Pointers are the device's.
//
// Threads: any. Errors: INVALID_ARGUMENT for shapes, naming the bound.
#ifndef CAIRN_KERNELS_CUDA_STEP_PLAN_H_
#define CAIRN_KERNELS_CUDA_STEP_PLAN_H_

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/compressor.h"
#include "kernels/cuda/indexer.h"

namespace cairn::kernels::cuda {

// A span: rows [first, first + count) of the step, of `slot`, from `position` on.
struct StepSpan {
  int32_t first = 0;
  int32_t count = 0;
  int32_t slot = 0;
  int32_t position = 0;
};

struct StepShape {
  int64_t spans = 0;
  int64_t span_tokens_max = 0;  // of the longest, or about that: launches' width
  int64_t ring = 0;             // window rows of a slot: at least 127 + span_tokens_max
  int64_t csa_rows = 0;         // compressed rows of a slot
  int64_t hca_rows = 0;
  int64_t index_topk = 0;

  int64_t groups_max(int64_t ratio) const { return (span_tokens_max + ratio - 1) / ratio; }
  int64_t index_groups() const {
    return (span_tokens_max + kIndexGroupTokensMax - 1) / kIndexGroupTokensMax;
  }
};

// Of each row of the step.
struct TokenPlan {
  int32_t* position = nullptr;
  int64_t* window_row = nullptr;    // its own, in the window pool
  int32_t* visible = nullptr;       // CSA rows that it sees
  AttentionList* window = nullptr;  // what it attends to in layers without compressed rows
  AttentionList* csa = nullptr;     // as many as the indexer takes
  AttentionList* hca = nullptr;
};
absl::Status FillTokenPlan(Stream stream, const StepShape& shape, const StepSpan* spans,
                           const TokenPlan& plan);

// The groups that the step closes; a span's begin at span * groups_max(ratio). Of each: its row in
// the pool, or -1 behind the last, and the position of its first token.
struct GroupPlan {
  int64_t* row = nullptr;
  int32_t* position = nullptr;
};
absl::Status FillGroupPlan(Stream stream, const StepShape& shape, int64_t ratio,
                           const StepSpan* spans, const GroupPlan& plan);

// Of every compressor of a ratio and width: out [count][spans]. states [count]: of slot 0; another
// slot's is `state_floats` further on.
absl::Status FillCompressorSpans(Stream stream, const StepShape& shape, int64_t ratio,
                                 const StepSpan* spans, float* const* states, int64_t count,
                                 int64_t state_floats, CompressorSpan* out);

// Where a layer's index keys lie: row r at data + 64 r and scales + 4 r; `spare` is a row that
// nothing reads.
struct IndexPool {
  uint8_t* data = nullptr;
  uint8_t* scales = nullptr;
  int64_t spare = 0;
};
// Of every layer with an indexer: where the step's keys go, slots [count][spans * groups_max(4)],
// the rows of `groups`; and what its tokens score, groups [count][spans * index_groups()].
absl::Status FillIndexPlan(Stream stream, const StepShape& shape, const StepSpan* spans,
                           const GroupPlan& closed, const IndexPool* pools, int64_t count,
                           IndexKeySlot* slots, IndexGroup* groups);

// streams BF16 [rows, hc, dim]: the token's row of `table` BF16 [vocab, dim] in every stream.
// REQUIRES: every token is in the vocabulary. INVALID_ARGUMENT: dim is no multiple of 8.
absl::Status EmbedTokens(Stream stream, const uint16_t* table, int64_t dim, int64_t hc,
                         const int32_t* tokens, int64_t rows, uint16_t* streams);

// out [spans, width]: the last row of each span of rows [.., width] BF16. INVALID_ARGUMENT: width
// is no multiple of 8.
absl::Status TakeLastRows(Stream stream, const StepSpan* spans, int64_t count, int64_t width,
                          const uint16_t* rows, uint16_t* out);

// next [rows]: the index of the largest of each row's `vocab` logits (F32), ties to the lower one.
absl::Status Argmax(Stream stream, const float* logits, int64_t rows, int64_t vocab, int32_t* next);

// What decoding goes on with: each span is one token, row by row, behind where it ended; tokens
// [count] become `next`.
absl::Status NextStep(Stream stream, StepSpan* spans, int64_t count, const int32_t* next,
                      int32_t* tokens);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_STEP_PLAN_H_
