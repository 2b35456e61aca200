// A model of DeepSeek-V4-Flash's shape on the GPU: prefilling 128k tokens, the time to the first
// token cold and from stored entries, and decoding. All 43 layers at true widths, random weights,
// as many routed experts a layer as fit; a token takes 6 of them however many there are.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/cuda/cuda_forward.h"
#include "engine/cuda/cuda_transfer.h"
#include "kernels/cuda/pinned_buffer.h"
#include "store/base/clock.h"
#include "store/base/limits.h"
#include "tools/cairn-bench/gpu_benches.h"

namespace cairn::bench {
namespace {

using engine::CudaForward;
using engine::CudaModel;
using engine::CudaSessions;
using engine::CudaStepItem;
using engine::KvLayout;
using engine::ModelConfig;
using engine::TransferDirection;
using kernels::cuda::CudaStatus;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::PinnedBuffer;
using kernels::cuda::SegmentCopy;

constexpr int64_t kPromptTokens = 131072;
constexpr int64_t kStepTokens = 4096;
constexpr int64_t kDecodeTokens = 64;
// The last block is computed: something must give the first token's logits.
constexpr int64_t kBlocks = kPromptTokens / kBlockTokens - 1;
constexpr int64_t kColdSlot = 0;
constexpr int64_t kResumedSlot = 1;

// Spec section 1, without the MTP block.
ModelConfig FlashConfig(int64_t experts) {
  ModelConfig c;
  c.vocab = 129280;
  c.dim = 4096;
  c.layers = 43;
  c.heads = 64;
  c.head_dim = 512;
  c.rope_dim = 64;
  c.q_lora = 1024;
  c.o_lora = 1024;
  c.o_groups = 8;
  c.window = 128;
  c.index_heads = 64;
  c.index_dim = 128;
  c.index_topk = 512;
  c.experts = experts;
  c.shared_experts = 1;
  c.experts_per_token = 6;
  c.expert_dim = 2048;
  c.hash_layers = 3;
  c.route_scale = 1.5;
  c.swiglu_limit = 10.0;
  c.rope_factor = 16.0;
  c.rope_original_len = 65536;
  c.max_positions = 1 << 20;
  for (int64_t i = 0; i < c.layers; ++i) {
    c.compress_ratios.push_back(i < 2 ? 0 : i % 2 == 0 ? 4 : 128);
  }
  return c;
}

// Experts a layer for which there is room beside everything else, in steps of 32.
absl::StatusOr<int64_t> ExpertsThatFit() {
  size_t free = 0, total = 0;
  CAIRN_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "asking for free memory"));
  constexpr double kOthers = 16e9;         // the other weights, activations, sessions
  constexpr double kExpert = 13.4e6 * 43;  // one in every layer, packed FP4
  const double room = static_cast<double>(free) - kOthers;
  const auto experts = static_cast<int64_t>(room / kExpert) / 32 * 32;
  if (experts < 32) return absl::ResourceExhaustedError("too little GPU memory for 32 experts");
  return std::min<int64_t>(experts, 256);
}

class FlashModel {
 public:
  static absl::StatusOr<std::shared_ptr<FlashModel>> Create() {
    CAIRN_RETURN_IF_ERROR(kernels::cuda::DevicePresent());
    CAIRN_ASSIGN_OR_RETURN(const int64_t experts, ExpertsThatFit());
    const auto made = std::make_shared<FlashModel>();
    CAIRN_ASSIGN_OR_RETURN(made->model_, engine::RandomCudaModel(FlashConfig(experts), 1));
    CAIRN_ASSIGN_OR_RETURN(
        made->sessions_,
        CudaSessions::Create(
            made->model_->config,
            {.slots = 2, .tokens_max = kPromptTokens + 1024, .span_tokens_max = kStepTokens}));
    CAIRN_ASSIGN_OR_RETURN(made->forward_,
                           CudaForward::Create(*made->model_, *made->sessions_, kStepTokens, 2));
    made->layout_ = std::make_unique<KvLayout>(engine::CudaKvLayout(made->model_->config));
    std::mt19937 random(3);
    for (int64_t i = 0; i < kPromptTokens; ++i) {
      made->prompt_.push_back(static_cast<int32_t>(random() % 129280));
    }
    CAIRN_RETURN_IF_ERROR(made->Store());
    return made;
  }

  int64_t experts() const { return model_->config.experts; }

  // Seconds from an empty slot to the first token.
  absl::StatusOr<double> Cold() {
    const int64_t start = RealClock().NowNanos();
    CAIRN_RETURN_IF_ERROR(Prefill(kColdSlot, 0, kPromptTokens));
    return Seconds(start);
  }

  // The same from entries in GPU memory or in pinned host memory. The logits must be the cold ones,
  // to the bit.
  absl::StatusOr<double> Resumed(bool from_device) {
    uint8_t* const entries = from_device ? on_device_.get() : on_host_.bytes().data();
    CAIRN_ASSIGN_OR_RETURN(const std::vector<SegmentCopy> copies,
                           Copies(kResumedSlot, TransferDirection::kFromEntry, entries));
    CAIRN_RETURN_IF_ERROR(copies_.Write(copies));
    const int64_t start = RealClock().NowNanos();
    CAIRN_RETURN_IF_ERROR(RunCopies(copies));
    sessions_->set_position(kResumedSlot, kBlocks * kBlockTokens);
    CAIRN_RETURN_IF_ERROR(Prefill(kResumedSlot, kBlocks * kBlockTokens, kPromptTokens));
    const double seconds = Seconds(start);
    CAIRN_ASSIGN_OR_RETURN(const std::vector<float> logits, forward_->Logits());
    if (logits != cold_logits_) {
      return absl::DataLossError("the resumed logits are not the cold ones");
    }
    return seconds;
  }

  // Seconds for some tokens behind the prompt.
  absl::StatusOr<double> Decode() {
    CAIRN_RETURN_IF_ERROR(Resumed(true).status());
    CAIRN_RETURN_IF_ERROR(forward_->DecodeNext());  // records the graph
    CAIRN_RETURN_IF_ERROR(kernels::cuda::Synchronize(forward_->stream()));
    const int64_t start = RealClock().NowNanos();
    for (int64_t i = 0; i < kDecodeTokens; ++i) CAIRN_RETURN_IF_ERROR(forward_->DecodeNext());
    CAIRN_RETURN_IF_ERROR(kernels::cuda::Synchronize(forward_->stream()));
    return Seconds(start);
  }

 private:
  static double Seconds(int64_t start) {
    return static_cast<double>(RealClock().NowNanos() - start) * 1e-9;
  }

  absl::Status Prefill(int64_t slot, int64_t from, int64_t to) {
    sessions_->set_position(slot, from);
    for (; from < to; from += kStepTokens) {
      const int64_t count = std::min(kStepTokens, to - from);
      const CudaStepItem item{
          slot, std::span(prompt_).subspan(static_cast<size_t>(from), static_cast<size_t>(count))};
      CAIRN_RETURN_IF_ERROR(forward_->Step({&item, 1}));
    }
    return kernels::cuda::Synchronize(forward_->stream());
  }

  // Entry after entry, the checkpoint last; layer by layer.
  absl::StatusOr<std::vector<SegmentCopy>> Copies(int64_t slot, TransferDirection direction,
                                                  uint8_t* entries) const {
    std::vector<SegmentCopy> copies;
    for (int64_t layer = 0; layer < sessions_->layers(); ++layer) {
      for (int64_t block = 0; block < kBlocks; ++block) {
        engine::AddRowsCopies(*layout_, *sessions_, layer, slot, block, direction,
                              entries + block * layout_->rows_entry_bytes(), copies);
      }
      engine::AddCheckpointCopies(*layout_, *sessions_, layer, slot, kBlocks, direction,
                                  entries + kBlocks * layout_->rows_entry_bytes(), copies);
    }
    return copies;
  }

  absl::Status RunCopies(const std::vector<SegmentCopy>& copies) {
    int64_t most = 0;
    for (const SegmentCopy& copy : copies) most = std::max(most, copy.bytes);
    return kernels::cuda::CopySegments(forward_->stream(), copies_.get(), std::ssize(copies), most);
  }

  // Prefills once, cold, and keeps what it stored and what came out.
  absl::Status Store() {
    const int64_t bytes = kBlocks * layout_->rows_entry_bytes() + layout_->checkpoint_bytes();
    CAIRN_ASSIGN_OR_RETURN(on_device_, DeviceBuffer<uint8_t>::Create(static_cast<size_t>(bytes)));
    CAIRN_ASSIGN_OR_RETURN(on_host_, PinnedBuffer::Create(static_cast<size_t>(bytes)));
    CAIRN_RETURN_IF_ERROR(Prefill(kColdSlot, 0, kBlocks * kBlockTokens));
    CAIRN_ASSIGN_OR_RETURN(const std::vector<SegmentCopy> copies,
                           Copies(kColdSlot, TransferDirection::kToEntry, on_device_.get()));
    CAIRN_ASSIGN_OR_RETURN(copies_, DeviceBuffer<SegmentCopy>::Of(copies));
    CAIRN_RETURN_IF_ERROR(RunCopies(copies));
    CAIRN_RETURN_IF_ERROR(kernels::cuda::Synchronize(forward_->stream()));
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaMemcpy(on_host_.bytes().data(), on_device_.get(),
                                                static_cast<size_t>(bytes), cudaMemcpyDefault),
                                     "copying entries"));
    CAIRN_RETURN_IF_ERROR(Prefill(kColdSlot, kBlocks * kBlockTokens, kPromptTokens));
    CAIRN_ASSIGN_OR_RETURN(cold_logits_, forward_->Logits());
    return absl::OkStatus();
  }

  std::unique_ptr<CudaModel> model_;
  std::unique_ptr<CudaSessions> sessions_;
  std::unique_ptr<CudaForward> forward_;
  std::unique_ptr<KvLayout> layout_;
  std::vector<int32_t> prompt_;
  std::vector<float> cold_logits_;
  DeviceBuffer<uint8_t> on_device_;
  PinnedBuffer on_host_;
  DeviceBuffer<SegmentCopy> copies_;
};

absl::StatusOr<Prepared> PrepareModel() {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<FlashModel> model, FlashModel::Create());
  Prepared prepared;
  prepared.contenders = {
      {absl::StrCat("from entries in GPU memory, ", model->experts(), " experts a layer"),
       Role::kOurs, [model] { return model->Resumed(true); }},
      {"from entries in pinned host memory", Role::kRival,
       [model] { return model->Resumed(false); }},
      {"cold: prefilling all", Role::kRival, [model] { return model->Cold(); }},
      {absl::StrCat("decoding ", kDecodeTokens, " more"), Role::kRival,
       [model] { return model->Decode(); }}};
  return prepared;
}

}  // namespace

void AddGpuModelBenches(std::vector<Bench>& benches) {
  benches.push_back({.name = "gpu-model",
                     .what = "a Flash-shaped model: 128k tokens to the first one behind them",
                     .unit = "s",
                     .higher_is_better = false,
                     .prepare = [](const BenchContext&) { return PrepareModel(); }});
}

}  // namespace cairn::bench
