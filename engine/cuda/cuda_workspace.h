// cuda_workspace.h: the activations of a step, taken once for the largest step there may be.
//
// Letters in shapes: R rows of a step, d dim, H padded heads, K experts a token, E padded experts,
// I expert width, P = R * K pairs.
//
// Threads: one step at a time. Ownership: owns its device memory.
#ifndef CAIRN_ENGINE_CUDA_CUDA_WORKSPACE_H_
#define CAIRN_ENGINE_CUDA_CUDA_WORKSPACE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/cuda/cuda_sessions.h"
#include "engine/model/config.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/quantise.h"
#include "kernels/cuda/step_plan.h"

namespace cairn::engine {

// Codes and scales of a linear's inputs, for up to so many values.
class QuantisedRoom {
 public:
  static absl::StatusOr<QuantisedRoom> Create(int64_t rows_max, int64_t k_max);
  kernels::cuda::QuantisedRows Rows(int64_t rows, int64_t k) const {
    return {codes_.get(), scales_.get(), rows, k, kernels::cuda::ScaleStride(rows)};
  }

 private:
  kernels::cuda::DeviceBuffer<uint8_t> codes_;
  kernels::cuda::DeviceBuffer<float> scales_;
};

// The longest list that a token attends to in a layer of this ratio.
int64_t AttentionRowsMax(const ModelConfig& config, const CudaSessions& sessions, int64_t ratio);

struct CudaWorkspace {
  template <typename T>
  using Buffer = kernels::cuda::DeviceBuffer<T>;

  static absl::StatusOr<std::unique_ptr<CudaWorkspace>> Create(const ModelConfig& config,
                                                               const CudaSessions& sessions,
                                                               int64_t rows_max, int64_t spans_max);

  int64_t rows_max = 0;
  int64_t spans_max = 0;

  // The step's inputs and what follows from them.
  Buffer<int32_t> tokens;                                                // [R]
  Buffer<kernels::cuda::StepSpan> spans;                                 // [spans]
  Buffer<int32_t> position, visible;                                     // [R]
  Buffer<int64_t> window_row;                                            // [R]
  Buffer<kernels::cuda::AttentionList> window_list, csa_list, hca_list;  // [R]
  Buffer<int64_t> csa_row, hca_row;                                      // groups that close
  Buffer<int32_t> csa_position, hca_position;
  Buffer<kernels::cuda::CompressorSpan> csa_spans, index_spans, hca_spans;  // [layers][spans]
  Buffer<kernels::cuda::IndexKeySlot> index_slots;                          // [layers][groups]
  Buffer<kernels::cuda::IndexGroup> index_groups;                           // [layers][...]
  Buffer<float> angles_window, angles_compressed;                           // [R, 64]
  Buffer<float> angles_csa, angles_hca;                                     // [groups, 64]

  Buffer<uint16_t> streams;  // [R, 4, d]
  Buffer<uint16_t> x, f;     // [R, d]
  Buffer<float> post, comb;  // [R, 4], [R, 4, 4]
  QuantisedRoom x_codes;     // [R, d]

  // Attention.
  Buffer<uint16_t> latent;  // [R, q_lora]
  QuantisedRoom latent_codes;
  Buffer<uint16_t> q, heads;  // [R, H, 512]
  Buffer<uint16_t> kv;        // [R, 512]
  // What runs beside other things has room of its own.
  Buffer<float> projected, index_projected;  // [R, 2 * width]
  Buffer<float> pooled, index_pooled, keys;
  Buffer<uint16_t> index_q;        // [R, 64, 128]
  Buffer<uint16_t> index_weights;  // [R, 64]
  Buffer<uint8_t> index_prepared;
  Buffer<float> scores;  // [score_rows, csa_rows]
  int64_t score_rows = 0;
  Buffer<int32_t> chosen;             // [R, index_topk]
  Buffer<uint8_t> attention_scratch;  // for steps of few rows
  Buffer<uint16_t> u;                 // [R, o_groups * o_lora]
  QuantisedRoom u_codes;

  // Experts.
  Buffer<float> gate;          // [R, E]
  Buffer<int32_t> expert_ids;  // [R, K]
  Buffer<float> expert_weights;
  Buffer<int32_t> offsets;             // [E + 1]
  Buffer<int32_t> token_of, place_of;  // [P]
  Buffer<float> weight_of;
  QuantisedRoom pair_codes;                  // [P, d]
  Buffer<uint16_t> gate_up;                  // [P, 2 I]
  QuantisedRoom middle_codes, shared_codes;  // [P, I], [R, I]
  Buffer<uint16_t> made;                     // [P, d]
  Buffer<uint16_t> shared_gate_up, shared;   // [R, 2 I], [R, d]
  Buffer<uint8_t> tiles;                     // of grouped products

  // Head: of one row a span.
  Buffer<uint16_t> last;    // [spans, 4, d]
  Buffer<uint16_t> head_x;  // [spans, d]
  Buffer<float> logits;     // [spans, vocab]
  Buffer<int32_t> next;     // [spans]
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_CUDA_WORKSPACE_H_
