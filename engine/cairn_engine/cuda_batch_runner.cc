#include "engine/cairn_engine/cuda_batch_runner.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/cairn_engine/cuda_runner.h"
#include "engine/cuda/cuda_cached_session.h"
#include "engine/cuda/cuda_forward.h"
#include "engine/serve/batch_parts.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

using kernels::cuda::OwnedStream;
using kernels::cuda::PinnedBuffer;

constexpr auto kBlock = static_cast<int64_t>(kBlockTokens);
// Of all sessions together, pinned and again on the GPU, but for what the largest entries take.
constexpr int64_t kStagingBytes = 256ll << 20;

class SlotRunner final : public CudaBatchRunner {
 public:
  SlotRunner(std::shared_ptr<const CudaModel> model, std::function<Digest()> weights)
      : model_(std::move(model)),
        weights_(std::move(weights)),
        layout_(CudaKvLayout(model_->config)) {}

  absl::Status Open(const CudaBatchOptions& options) {
    const int64_t rows = std::max(options.step_tokens, options.sequences_max);
    tokens_max_ = std::min(options.tokens_max, config().max_positions);
    CAIRN_ASSIGN_OR_RETURN(gpu_, store::OpenGpu());
    CAIRN_ASSIGN_OR_RETURN(
        slots_,
        CudaSessions::Create(config(), {.slots = options.sequences_max,
                                        .tokens_max = (tokens_max_ + kBlock - 1) / kBlock * kBlock,
                                        .span_tokens_max = rows}));
    CAIRN_ASSIGN_OR_RETURN(forward_,
                           CudaForward::Create(*model_, *slots_, rows, options.sequences_max));
    CAIRN_ASSIGN_OR_RETURN(
        logits_, PinnedBuffer::Create(static_cast<size_t>(options.sequences_max * config().vocab *
                                                          static_cast<int64_t>(sizeof(float)))));
    const int64_t staging =
        std::min(kStagingBytes / options.sequences_max, CudaCachedSession::kStagingBytes);
    for (int64_t slot = 0; slot < options.sequences_max; ++slot) {
      CAIRN_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create());
      streams_.push_back(std::move(stream));
      sessions_.push_back(std::make_unique<CudaCachedSession>(
          layout_, *slots_, slot, streams_.back().get(), gpu_.get(), staging));
      free_.push_back(sessions_.back().get());
    }
    return absl::OkStatus();
  }

  const ModelConfig& config() const override { return model_->config; }
  int64_t tokens_max() const override { return tokens_max_; }
  // A slot, whatever is in it.
  int64_t SequenceBytes(int64_t) const override { return kv_bytes() / std::ssize(sessions_); }
  ExpertStats expert_stats() const override {
    const auto experts = static_cast<uint64_t>(config().layers * config().experts);
    return {.places = experts, .experts = experts};
  }
  CachedModel cached_model() const override {
    return {.config = config(), .layout = layout_, .weights = weights_(), .replays = false};
  }
  store::Gpu* gpu() const override { return gpu_.get(); }
  absl::Status PrepareForCache() override {
    for (const auto& session : sessions_) CAIRN_RETURN_IF_ERROR(session->Prepare());
    return absl::OkStatus();
  }
  int64_t kv_bytes() const override { return slots_->bytes(); }

  BatchSession NewSession() override {
    CudaCachedSession* const session = free_.back();
    free_.pop_back();
    session->Clear();
    return {session, [this](CachedSession* s) { free_.push_back(&SlotOf(*s)); }};
  }

  absl::Status Run(std::span<BatchItem> items) override {
    for (const BatchItem& item : items) {
      if (item.guessed || (item.want == WantLogits::kAll && item.tokens.size() > 1)) {
        return absl::UnimplementedError("the engine on the GPU takes no guesses");
      }
    }
    const std::vector<BatchPart> parts = PartsOf(items);
    std::vector<BatchItem*> wanting;  // in the order of their logits
    for (const BatchPart& part : parts) CAIRN_RETURN_IF_ERROR(Queue(part, wanting));
    CAIRN_RETURN_IF_ERROR(kernels::cuda::Synchronize(forward_->stream()));
    for (size_t i = 0; i < wanting.size(); ++i) {
      const std::span<const float> logits = Room(i, 1);
      wanting[i]->logits.assign(logits.begin(), logits.end());
    }
    for (BatchItem& item : items) item.token_layers = std::ssize(item.tokens) * config().layers;
    return absl::OkStatus();
  }

 private:
  // Of a session that NewSession gave.
  static CudaCachedSession& SlotOf(CachedSession& session) {
    return static_cast<CudaCachedSession&>(session);
  }
  // For the logits of the i-th item that wants any, and of those behind it.
  std::span<float> Room(size_t i, size_t count) const {
    const auto vocab = static_cast<size_t>(config().vocab);
    auto* const all = reinterpret_cast<float*>(logits_.bytes().data());
    return {all + i * vocab, count * vocab};
  }
  // A part's step, and the copy of its logits behind it, before the next one's replace them.
  absl::Status Queue(const BatchPart& part, std::vector<BatchItem*>& wanting) {
    std::vector<CudaStepItem> step;
    for (const BatchItem* item : part.items) {
      step.push_back({SlotOf(*item->session).slot(), item->tokens});
    }
    CAIRN_RETURN_IF_ERROR(forward_->Step(step));
    if (part.wanting == 0) return absl::OkStatus();
    CAIRN_RETURN_IF_ERROR(forward_->CopyLogits(Room(wanting.size(), part.wanting)));
    wanting.insert(wanting.end(), part.items.begin(),
                   part.items.begin() + static_cast<std::ptrdiff_t>(part.wanting));
    return absl::OkStatus();
  }

  const std::shared_ptr<const CudaModel> model_;
  const std::function<Digest()> weights_;
  const KvLayout layout_;
  int64_t tokens_max_ = 0;
  std::unique_ptr<store::Gpu> gpu_;
  std::unique_ptr<CudaSessions> slots_;
  PinnedBuffer logits_;  // [sequences_max, vocab]
  std::unique_ptr<CudaForward> forward_;
  std::vector<OwnedStream> streams_;
  std::vector<std::unique_ptr<CudaCachedSession>> sessions_;  // one a slot
  std::vector<CudaCachedSession*> free_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaBatchRunner>> MakeCudaBatchRunner(
    std::shared_ptr<const CudaModel> model, std::function<Digest()> weights,
    const CudaBatchOptions& options) {
  auto runner = std::make_unique<SlotRunner>(std::move(model), std::move(weights));
  const absl::Status opened = runner->Open(options);
  if (absl::IsResourceExhausted(opened)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        options.sequences_max, " sequences of up to ", options.tokens_max, " tokens in steps of ",
        options.step_tokens, " do not fit beside the model: ", opened.message()));
  }
  CAIRN_RETURN_IF_ERROR(opened);
  return runner;
}

absl::StatusOr<std::unique_ptr<CudaBatchRunner>> OpenCudaBatchRunner(
    const std::string& directory, const CudaBatchOptions& options) {
  CAIRN_ASSIGN_OR_RETURN(LoadedCudaModel loaded, LoadCudaModelIn(directory, options.threads));
  return MakeCudaBatchRunner(std::move(loaded.model), std::move(loaded.weights), options);
}

}  // namespace cairn::engine
