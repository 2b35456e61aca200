#include "engine/cairn_engine/cuda_runner.h"

#include <optional>
#include <utility>
#include <vector>

#include "engine/cuda/cuda_cached_session.h"
#include "engine/cuda/cuda_forward.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

constexpr int64_t kSlot = 0;

class CudaRunner final : public SequenceRunner {
 public:
  CudaRunner(std::shared_ptr<const CudaModel> model, std::function<Digest()> weights)
      : model_(std::move(model)),
        weights_(std::move(weights)),
        layout_(CudaKvLayout(model_->config)) {}

  absl::Status Open(const CudaRunnerOptions& options) {
    CAIRN_ASSIGN_OR_RETURN(gpu_, store::OpenGpu());
    constexpr auto kBlock = static_cast<int64_t>(kBlockTokens);
    CAIRN_ASSIGN_OR_RETURN(
        sessions_, CudaSessions::Create(
                       config(), {.slots = 1,
                                  .tokens_max = (options.tokens_max + kBlock - 1) / kBlock * kBlock,
                                  .span_tokens_max = options.chunk}));
    CAIRN_ASSIGN_OR_RETURN(forward_, CudaForward::Create(*model_, *sessions_, options.chunk, 1));
    session_.emplace(layout_, *sessions_, kSlot, forward_->stream(), gpu_.get());
    return absl::OkStatus();
  }

  const ModelConfig& config() const override { return model_->config; }
  CachedModel cached_model() const override {
    return {.config = config(), .layout = layout_, .weights = weights_(), .replays = false};
  }
  store::Gpu* gpu() const override { return gpu_.get(); }
  absl::Status PrepareForCache() override { return session_->Prepare(); }
  CachedSession& session() override { return *session_; }
  void StartOver() override { session_->Clear(); }
  absl::StatusOr<int64_t> Prefill(std::span<const int32_t> tokens, bool) override {
    const CudaStepItem item{kSlot, tokens};
    CAIRN_RETURN_IF_ERROR(forward_->Step({&item, 1}));
    CAIRN_RETURN_IF_ERROR(kernels::cuda::Synchronize(forward_->stream()));
    return std::ssize(tokens);
  }
  // The device has it already.
  absl::Status Decode(int32_t) override { return forward_->DecodeNext(); }
  absl::StatusOr<NextToken> Next() override {
    CAIRN_ASSIGN_OR_RETURN(std::vector<float> logits, forward_->Logits());
    CAIRN_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, forward_->NextTokens());
    return NextToken{tokens[0], std::move(logits)};
  }

 private:
  const std::shared_ptr<const CudaModel> model_;
  const std::function<Digest()> weights_;
  const KvLayout layout_;
  std::unique_ptr<store::Gpu> gpu_;
  std::unique_ptr<CudaSessions> sessions_;
  std::unique_ptr<CudaForward> forward_;
  std::optional<CudaCachedSession> session_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SequenceRunner>> MakeCudaRunner(
    std::shared_ptr<const CudaModel> model, std::function<Digest()> weights,
    const CudaRunnerOptions& options) {
  auto runner = std::make_unique<CudaRunner>(std::move(model), std::move(weights));
  CAIRN_RETURN_IF_ERROR(runner->Open(options));
  return runner;
}

absl::StatusOr<LoadedCudaModel> LoadCudaModelIn(const std::string& directory, int threads) {
  CAIRN_RETURN_IF_ERROR(kernels::cuda::DevicePresent());
  CAIRN_ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(directory));
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<TensorFile> file, TensorFile::Open(directory));
  CAIRN_ASSIGN_OR_RETURN(Weights bound, BindWeights(config, std::move(file)));
  const auto weights = std::make_shared<const Weights>(std::move(bound));
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<CudaModel> model, LoadCudaModel(*weights));
  return LoadedCudaModel{std::move(model),
                         [weights, threads] { return weights->Identity(threads); }};
}

absl::StatusOr<std::unique_ptr<SequenceRunner>> OpenCudaRunner(const std::string& directory,
                                                               const CudaRunnerOptions& options) {
  CAIRN_ASSIGN_OR_RETURN(LoadedCudaModel loaded, LoadCudaModelIn(directory, options.threads));
  return MakeCudaRunner(std::move(loaded.model), std::move(loaded.weights), options);
}

}  // namespace cairn::engine
