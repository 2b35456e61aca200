// Decoding on the GPU behind 128k tokens, by a captured graph: one sequence, and 16 that have the
// same prefix. Beside it: what such a step has to read, at the rate of a copy.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "engine/cuda/cuda_forward.h"
#include "engine/cuda/cuda_transfer.h"
#include "tools/cairn-bench/gpu_benches.h"
#include "tools/cairn-bench/gpu_flash_model.h"
#include "tools/cairn-bench/gpu_timing.h"

namespace cairn::bench {
namespace {

using engine::CudaForward;
using engine::CudaMatrix;
using engine::CudaModel;
using engine::CudaSessions;
using engine::CudaStepItem;
using engine::TransferDirection;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::SegmentCopy;

constexpr int64_t kPrefixTokens = 131072;
constexpr int64_t kPrefillTokens = 4096;  // a step
constexpr int64_t kSequences = 16;
constexpr int64_t kOtherBytes = 26'000'000'000;  // the other weights, activations, 16 sequences

double BytesOf(const CudaMatrix& m) {
  return static_cast<double>(m.values.count() + m.scales.count());
}

// Bytes of all that a step reads once: the weights, and each sequence's rows.
double BytesOfStep(const CudaModel& model, int64_t sequences) {
  const auto& c = model.config;
  const auto n = static_cast<double>(sequences);
  const double share = static_cast<double>(c.experts_per_token) / static_cast<double>(c.experts);
  const double of_experts = 1 - std::pow(1 - share, n);  // that a layer's tokens choose
  constexpr double kRow = 584, kKey = 68;
  double bytes = BytesOf(model.head);
  for (const auto& block : model.layers) {
    const auto& a = block.attn;
    for (const CudaMatrix* m :
         {&a.wq_a, &a.wq_b, &a.wkv, &a.wo_a, &a.wo_b, &a.compressor.kv_score, &a.index_wq_b,
          &a.index_weights, &a.index_compressor.kv_score, &block.ffn.gate,
          &block.ffn.shared_gate_up, &block.ffn.shared_down}) {
      bytes += BytesOf(*m);
    }
    bytes += of_experts * (BytesOf(block.ffn.gate_up) + BytesOf(block.ffn.down));
    bytes +=
        static_cast<double>(block.hc_attn.fn.count() + block.hc_ffn.fn.count()) * sizeof(float);
    double rows = static_cast<double>(c.window);
    if (block.ratio == 4) {
      rows += static_cast<double>(c.index_topk);
      bytes += n * kKey * kPrefixTokens / 4;
    }
    if (block.ratio == 128) rows += static_cast<double>(kPrefixTokens) / 128;
    bytes += n * rows * kRow;
  }
  return bytes;
}

class Decoder {
 public:
  static absl::StatusOr<std::shared_ptr<Decoder>> Create(int64_t sequences) {
    auto made = std::make_shared<Decoder>();
    made->sequences_ = sequences;
    CAIRN_ASSIGN_OR_RETURN(made->model_, RandomFlashModel(kOtherBytes));
    CAIRN_ASSIGN_OR_RETURN(
        made->sessions_,
        CudaSessions::Create(made->model_->config, {.slots = sequences,
                                                    .tokens_max = kPrefixTokens + 16384,
                                                    .span_tokens_max = kPrefillTokens}));
    CAIRN_ASSIGN_OR_RETURN(made->forward_, CudaForward::Create(*made->model_, *made->sessions_,
                                                               kPrefillTokens, sequences));
    CAIRN_RETURN_IF_ERROR(made->Prefill());
    CAIRN_RETURN_IF_ERROR(made->Spread());
    return made;
  }

  double bytes() const { return BytesOfStep(*model_, sequences_); }

  // Milliseconds a step.
  absl::StatusOr<double> Decode() {
    std::vector<int32_t> tokens(static_cast<size_t>(sequences_));
    std::vector<CudaStepItem> items;
    for (int64_t i = 0; i < sequences_; ++i) {
      tokens[static_cast<size_t>(i)] = static_cast<int32_t>(1000 + 17 * i);
      items.push_back({i, std::span(tokens).subspan(static_cast<size_t>(i), 1)});
      sessions_->set_position(i, kPrefixTokens);
    }
    CAIRN_RETURN_IF_ERROR(forward_->Step(items));
    for (int64_t i = 0; i < 3; ++i) CAIRN_RETURN_IF_ERROR(forward_->DecodeNext());
    CAIRN_RETURN_IF_ERROR(kernels::cuda::Synchronize(forward_->stream()));
    CAIRN_ASSIGN_OR_RETURN(const double seconds, SecondsALaunch(forward_->stream(), [&](int64_t) {
                             return forward_->DecodeNext();
                           }));
    return seconds * 1e3;
  }

 private:
  absl::Status Prefill() {
    std::mt19937 random(3);
    std::vector<int32_t> tokens(kPrefillTokens);
    for (int64_t at = 0; at < kPrefixTokens; at += kPrefillTokens) {
      for (int32_t& token : tokens) token = static_cast<int32_t>(random() % kFlashVocab);
      const CudaStepItem item{0, tokens};
      CAIRN_RETURN_IF_ERROR(forward_->Step({&item, 1}));
    }
    return kernels::cuda::Synchronize(forward_->stream());
  }

  // Slot 0's state to all others, as entries go.
  absl::Status Spread() {
    const engine::KvLayout layout = engine::CudaKvLayout(model_->config);
    constexpr int64_t kBlocks = kPrefixTokens / 128;
    const int64_t rows_bytes = layout.rows_entry_bytes();
    CAIRN_ASSIGN_OR_RETURN(const auto entries,
                           DeviceBuffer<uint8_t>::Create(static_cast<size_t>(
                               kBlocks * rows_bytes + layout.checkpoint_bytes())));
    const auto copy = [&](int64_t slot, TransferDirection direction) -> absl::Status {
      std::vector<SegmentCopy> copies;
      for (int64_t layer = 0; layer < sessions_->layers(); ++layer) {
        for (int64_t block = 0; block < kBlocks; ++block) {
          AddRowsCopies(layout, *sessions_, layer, slot, block, direction,
                        entries.get() + block * rows_bytes, copies);
        }
        AddCheckpointCopies(layout, *sessions_, layer, slot, kBlocks, direction,
                            entries.get() + kBlocks * rows_bytes, copies);
      }
      int64_t most = 0;
      for (const SegmentCopy& c : copies) most = std::max(most, c.bytes);
      CAIRN_ASSIGN_OR_RETURN(const auto on_device, DeviceBuffer<SegmentCopy>::Of(copies));
      CAIRN_RETURN_IF_ERROR(kernels::cuda::CopySegments(forward_->stream(), on_device.get(),
                                                        std::ssize(copies), most));
      return kernels::cuda::Synchronize(forward_->stream());
    };
    CAIRN_RETURN_IF_ERROR(copy(0, TransferDirection::kToEntry));
    for (int64_t slot = 1; slot < sequences_; ++slot) {
      sessions_->set_position(slot, kPrefixTokens);
      CAIRN_RETURN_IF_ERROR(copy(slot, TransferDirection::kFromEntry));
    }
    return absl::OkStatus();
  }

  int64_t sequences_ = 1;
  std::unique_ptr<CudaModel> model_;
  std::unique_ptr<CudaSessions> sessions_;
  std::unique_ptr<CudaForward> forward_;
};

absl::StatusOr<Prepared> PrepareDecode(int64_t sequences) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Decoder> decoder, Decoder::Create(sequences));
  CAIRN_ASSIGN_OR_RETURN(Contender copy, DeviceCopyLimit());
  Prepared prepared;
  prepared.contenders = {{"what it reads, at the rate of a copy", Role::kLimit,
                          [copy, bytes = decoder->bytes()]() -> absl::StatusOr<double> {
                            CAIRN_ASSIGN_OR_RETURN(const double rate, copy.measure());
                            return bytes / rate * 1e-6;
                          }},
                         {"a step", Role::kOurs, [decoder] { return decoder->Decode(); }}};
  return prepared;
}

}  // namespace

void AddGpuDecodeBenches(std::vector<Bench>& benches) {
  benches.push_back({.name = "gpu-decode",
                     .what = "a token of a Flash-shaped model behind 128k tokens",
                     .unit = "ms",
                     .higher_is_better = false,
                     .prepare = [](const BenchContext&) { return PrepareDecode(1); }});
  benches.push_back({.name = "gpu-decode-16",
                     .what = "a token each of 16 sequences, each behind 128k tokens",
                     .unit = "ms",
                     .higher_is_better = false,
                     .prepare = [](const BenchContext&) { return PrepareDecode(kSequences); }});
}

}  // namespace cairn::bench
