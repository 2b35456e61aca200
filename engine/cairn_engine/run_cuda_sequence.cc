#include "engine/cairn_engine/run_cuda_sequence.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "engine/cuda/cuda_forward.h"

namespace cairn::engine {
namespace {

class CudaSequence {
 public:
  CudaSequence(CudaForward& forward, CudaSessions& sessions, SequenceResult& result)
      : forward_(forward), sessions_(sessions), result_(result) {}

  absl::Status Prefill(std::span<const int32_t> prompt, const SequenceOptions& options) {
    const size_t chunk = static_cast<size_t>(sessions_.options().span_tokens_max);
    for (size_t done = 0; done < prompt.size();) {
      const size_t count = std::min(chunk, prompt.size() - done);
      const CudaStepItem item{0, prompt.subspan(done, count)};
      CAIRN_RETURN_IF_ERROR(forward_.Step({&item, 1}));
      done += count;
      if (options.progress) {
        // As far as the device is, not as far as it has been asked.
        CAIRN_RETURN_IF_ERROR(kernels::cuda::Synchronize(forward_.stream()));
        options.progress(static_cast<int64_t>(done), static_cast<int64_t>(prompt.size()));
      }
    }
    return Take();
  }

  absl::Status Decode(const SequenceOptions& options) {
    while (std::ssize(result_.output) < options.new_tokens &&
           result_.output.back() != options.stop_token) {
      CAIRN_RETURN_IF_ERROR(forward_.DecodeNext());
      CAIRN_RETURN_IF_ERROR(Take());
    }
    return absl::OkStatus();
  }

 private:
  // The last step's token, and what it was chosen from.
  absl::Status Take() {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<float> logits, forward_.Logits());
    CAIRN_ASSIGN_OR_RETURN(const std::vector<int32_t> next, forward_.NextTokens());
    result_.logits.insert(result_.logits.end(), logits.begin(), logits.end());
    result_.output.push_back(next[0]);
    return absl::OkStatus();
  }

  CudaForward& forward_;
  CudaSessions& sessions_;
  SequenceResult& result_;
};

double Seconds(Clock& clock, int64_t start) {
  return static_cast<double>(clock.NowNanos() - start) * 1e-9;
}

}  // namespace

absl::StatusOr<SequenceResult> RunCudaSequence(const std::string& directory, Clock& clock,
                                               std::span<const int32_t> prompt,
                                               const SequenceOptions& options) {
  CAIRN_RETURN_IF_ERROR(kernels::cuda::DevicePresent());
  CAIRN_ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(directory));
  CAIRN_RETURN_IF_ERROR(CheckPrompt(config, prompt, options.new_tokens));
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<TensorFile> file, TensorFile::Open(directory));
  CAIRN_ASSIGN_OR_RETURN(const Weights weights, BindWeights(config, std::move(file)));
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<CudaModel> model, LoadCudaModel(weights));
  const int64_t tokens = std::ssize(prompt) + options.new_tokens;
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<CudaSessions> sessions,
                         CudaSessions::Create(config, {.slots = 1,
                                                       .tokens_max = (tokens + 127) / 128 * 128,
                                                       .span_tokens_max = options.chunk}));
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<CudaForward> forward,
                         CudaForward::Create(*model, *sessions, options.chunk, 1));

  SequenceResult result;
  result.recomputed_tokens = std::ssize(prompt);
  CudaSequence sequence(*forward, *sessions, result);
  const int64_t start = clock.NowNanos();
  CAIRN_RETURN_IF_ERROR(sequence.Prefill(prompt, options));
  result.prefill_seconds = result.first_token_seconds = Seconds(clock, start);
  const int64_t decoding = clock.NowNanos();
  CAIRN_RETURN_IF_ERROR(sequence.Decode(options));
  result.decode_seconds = Seconds(clock, decoding);
  return result;
}

}  // namespace cairn::engine
