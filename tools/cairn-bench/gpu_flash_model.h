// gpu_flash_model.h: a model of DeepSeek-V4-Flash's shape in GPU memory: all 43 layers at true
// widths, random weights, as many routed experts a layer as fit (up to 256, in steps of 32); a
// token takes 6 of them however many there are.
//
// Threads: one. Units: bytes. Errors: UNAVAILABLE: no GPU; RESOURCE_EXHAUSTED: too little memory.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_FLASH_MODEL_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_FLASH_MODEL_H_

#include <cstdint>
#include <memory>

#include "engine/cuda/cuda_model.h"

namespace cairn::bench {

constexpr int64_t kFlashVocab = 129280;

// Leaves other_bytes of GPU memory to all but the experts.
absl::StatusOr<std::unique_ptr<engine::CudaModel>> RandomFlashModel(int64_t other_bytes);

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_FLASH_MODEL_H_
