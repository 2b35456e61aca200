// cuda_test_models.h: made models that are small but have every kind of layer, on the CPU and on
// the GPU, and sequences run through the latter.
//
// Threads: one test, one thread. For tests only.
#ifndef CAIRN_ENGINE_CUDA_CUDA_TEST_MODELS_H_
#define CAIRN_ENGINE_CUDA_CUDA_TEST_MODELS_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/cuda/cuda_forward.h"
#include "engine/forward/forward.h"

namespace cairn::engine {

inline constexpr int64_t kTestVocab = 64;

// Layers of such ratios, the first `hash_layers` of which route by token.
ModelConfig CudaTestConfig(const std::vector<int64_t>& ratios, int64_t hash_layers);

struct CudaTestModel {
  Weights weights;
  std::unique_ptr<Model> cpu;
  std::unique_ptr<CudaModel> gpu;
};
// Lives to the process's end.
const CudaTestModel& CudaTestModelOf(const std::vector<int64_t>& ratios, int64_t hash_layers);
// Of all kinds.
inline const CudaTestModel& AllKinds() { return CudaTestModelOf({0, 4, 128, 4, 128}, 2); }

std::vector<int32_t> CudaTestTokens(int64_t n, uint32_t seed);

class CudaEngineTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const absl::Status present = kernels::cuda::DevicePresent(); !present.ok()) {
      GTEST_SKIP() << present.message();
    }
  }
};

// Slots for a few sequences of up to 1024 tokens.
struct CudaTestEngine {
  std::unique_ptr<CudaSessions> sessions;
  std::unique_ptr<CudaForward> forward;

  explicit CudaTestEngine(const CudaModel& model, int64_t slots = 3, int64_t span_tokens = 600);

  // Logits of the last token of `tokens`, given `chunk` at a time.
  std::vector<float> Run(int64_t slot, std::span<const int32_t> tokens, size_t chunk);
  std::vector<float> Logits();
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_CUDA_TEST_MODELS_H_
