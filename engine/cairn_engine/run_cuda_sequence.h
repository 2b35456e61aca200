// run_cuda_sequence.h: one sequence on the GPU, cold: prefilled in chunks, decoded greedily. No
// cache is attached to it yet.
//
// Threads: any. Errors: those of LoadCudaModel and CudaForward; UNAVAILABLE where the program was
// built without CUDA.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_RUN_CUDA_SEQUENCE_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_RUN_CUDA_SEQUENCE_H_

#include <cstdint>
#include <span>
#include <string>

#include "engine/cairn_engine/run_sequence.h"

namespace cairn::engine {

// The model in `directory`, of released formats. Rows stay on the GPU; nothing is restored or put.
absl::StatusOr<SequenceResult> RunCudaSequence(const std::string& directory, Clock& clock,
                                               std::span<const int32_t> prompt,
                                               const SequenceOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_RUN_CUDA_SEQUENCE_H_
