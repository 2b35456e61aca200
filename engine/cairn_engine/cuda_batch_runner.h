// cuda_batch_runner.h: a model on the GPU and slots for the sequences that run there at once, for
// the scheduler. Those that decode are one step, by a captured graph; one that prefills is a step
// of its own (serve/batch_parts.h).
//
// All memory is taken when it is made: a slot for each sequence, as long as the longest may be. A
// session has its slot until it is given back, and a stream of its own for entries of the cache: it
// is restored on another thread while steps of others run.
//
// Threads:   serve/batch_runner.h.
// Ownership: owns the GPU's memory; what was fetched by gpu() must be gone before it.
// Units:     tokens, bytes.
// Errors:    INVALID_ARGUMENT or NOT_FOUND naming the file, field or tensor; RESOURCE_EXHAUSTED: it
//            does not fit; UNAVAILABLE: no GPU, or the program was built without CUDA. Of Run:
//            cuda/cuda_forward.h; UNIMPLEMENTED for guesses.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_CUDA_BATCH_RUNNER_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_CUDA_BATCH_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/serve/batch_runner.h"
#include "store/device/gpu_memory.h"

namespace cairn::engine {

struct CudaModel;

struct CudaBatchOptions {
  int64_t sequences_max = 16;  // at once
  int64_t tokens_max = 32768;  // of one, prompt and answer; slots are of whole blocks
  int64_t step_tokens = 1024;  // of a step; at least sequences_max
  int threads = 1;             // that read the weights where cached_model needs all
};

class CudaBatchRunner : public BatchRunner {
 public:
  // May read all weights.
  virtual CachedModel cached_model() const = 0;
  // By which the GPU reads memory of a daemon's, for RemoteCacheOptions.
  virtual store::Gpu* gpu() const = 0;
  // Takes what restores and stores go through, which the first ones would wait for.
  virtual absl::Status PrepareForCache() = 0;
  // Of all slots: what the scheduler may admit.
  virtual int64_t kv_bytes() const = 0;
};

// The model in `directory`, of released formats.
absl::StatusOr<std::unique_ptr<CudaBatchRunner>> OpenCudaBatchRunner(
    const std::string& directory, const CudaBatchOptions& options);
// Of a model that is on the GPU already. `weights`: asked for where cached_model is. Only where
// there is CUDA.
absl::StatusOr<std::unique_ptr<CudaBatchRunner>> MakeCudaBatchRunner(
    std::shared_ptr<const CudaModel> model, std::function<Digest()> weights,
    const CudaBatchOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_CUDA_BATCH_RUNNER_H_
