// cuda_runner.h: a model and one sequence on the GPU, for RunSequence.
//
// Threads: one. Errors: INVALID_ARGUMENT or NOT_FOUND naming the file, field or tensor;
// RESOURCE_EXHAUSTED: it does not fit; UNAVAILABLE: no GPU, or the program was built without CUDA.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_CUDA_RUNNER_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_CUDA_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/cairn_engine/run_sequence.h"

namespace cairn::engine {

struct CudaModel;

struct CudaRunnerOptions {
  int64_t chunk = 256;        // as SequenceOptions: no step is longer
  int64_t tokens_max = 4096;  // of a sequence, prompt and answer
  int threads = 1;            // that read the weights where cached_model needs all
};

struct LoadedCudaModel {
  std::shared_ptr<const CudaModel> model;
  std::function<Digest()> weights;  // their identity, for which all are read
};
// The model in `directory`, of released formats. Only where there is CUDA.
absl::StatusOr<LoadedCudaModel> LoadCudaModelIn(const std::string& directory, int threads);

// One sequence of it.
absl::StatusOr<std::unique_ptr<SequenceRunner>> OpenCudaRunner(const std::string& directory,
                                                               const CudaRunnerOptions& options);
// Of a model that is on the GPU already. `weights`: asked for where cached_model is. Only where
// there is CUDA.
absl::StatusOr<std::unique_ptr<SequenceRunner>> MakeCudaRunner(
    std::shared_ptr<const CudaModel> model, std::function<Digest()> weights,
    const CudaRunnerOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_CUDA_RUNNER_H_
