// cuda_forward.h: tokens to logits on the GPU: the steps of engine/forward composed of the kernels
// of kernels/cuda, in full numerics (FP8 inputs, quantised rows), activations in BF16.
//
// A result depends on its own sequence alone: not on the others of the step, nor on how its prompt
// was cut into steps (kernels/cuda/README.md). It is another numerics than the CPU's: rows of the
// two never mix.
//
// Work is queued on a stream; what reads results waits for it. A step in which each sequence has
// one token is one graph, captured when so many are first together. Decoding by DecodeNext never
// waits for the host: the next token is chosen on the device.
//
// Threads:   one. Ownership: the model and the sessions outlive this.
// Errors:    INVALID_ARGUMENT for a token outside of the vocabulary, OUT_OF_RANGE for a sequence
//            that grows beyond its slot; nothing has changed then. Else what the device says; the
//            sessions are good for nothing any more.
#ifndef CAIRN_ENGINE_CUDA_CUDA_FORWARD_H_
#define CAIRN_ENGINE_CUDA_CUDA_FORWARD_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/cuda/cuda_model.h"
#include "engine/cuda/cuda_sessions.h"
#include "engine/cuda/cuda_workspace.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/graph.h"

namespace cairn::engine {

struct CudaStepItem {
  int64_t slot = 0;
  std::span<const int32_t> tokens;  // follow what the slot holds; at least one
};

class CudaForward {
 public:
  // Steps of up to rows_max tokens of up to spans_max sequences.
  static absl::StatusOr<std::unique_ptr<CudaForward>> Create(const CudaModel& model,
                                                             CudaSessions& sessions,
                                                             int64_t rows_max, int64_t spans_max);

  kernels::cuda::Stream stream() const { return stream_.get(); }

  // Queues one step. Slots are distinct. Behind it the logits of each item's last token are there,
  // and its most likely next token. Nothing on the device may be waited for by another thread while
  // a graph is captured, but for streams of its own.
  absl::Status Step(std::span<const CudaStepItem> items);
  // The sequences of the last step, each by its most likely token. REQUIRES: a Step before.
  absl::Status DecodeNext();

  // Queues a copy of the logits of the last step's first items: out [so many, vocab] is pinned
  // memory, where they are once stream() was waited for.
  absl::Status CopyLogits(std::span<float> out) const;

  // Of the last step: waits. logits [items, vocab]; next [items].
  absl::StatusOr<std::vector<float>> Logits();
  absl::StatusOr<std::vector<int32_t>> NextTokens();
  // The residual streams [rows, hc, dim] as they are after the last step's last layer.
  absl::StatusOr<std::vector<uint16_t>> Streams();

 private:
  CudaForward(const CudaModel& model, CudaSessions& sessions,
              std::unique_ptr<CudaWorkspace> workspace, kernels::cuda::OwnedStream stream,
              std::vector<kernels::cuda::Branch> branches);

  absl::Status CheckItem(const CudaStepItem& item) const;
  absl::Status Check(std::span<const CudaStepItem> items) const;
  kernels::cuda::StepShape Shape(int64_t spans, int64_t span_tokens_max) const;
  // Everything a step does, from tokens and spans on the device to next tokens.
  // `branches`: of a recording, whose launches cost the host nothing.
  absl::Status Launch(const kernels::cuda::StepShape& shape, int64_t rows,
                      std::span<const kernels::cuda::Branch> branches);
  // A step of one token of each of `spans` sequences; `next`: those that the step before chose, or
  // else what is in the workspace.
  absl::StatusOr<kernels::cuda::Graph> Capture(int64_t spans, bool next);

  const CudaModel& model_;
  CudaSessions& sessions_;
  std::unique_ptr<CudaWorkspace> workspace_;
  kernels::cuda::OwnedStream stream_;
  std::vector<kernels::cuda::Branch> branches_;
  std::vector<int64_t> slots_;  // of the last step
  int64_t rows_ = 0;
  std::vector<kernels::cuda::Graph> token_steps_;  // of as many spans as the index says
  kernels::cuda::Graph decode_;
  int64_t decode_spans_ = 0;  // of decode_
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_CUDA_FORWARD_H_
