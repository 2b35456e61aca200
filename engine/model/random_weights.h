// random_weights.h: random tensors that are the same on every machine: integer arithmetic, then one
// rounding a value. Each tensor has its own stream, from the seed and its name, so neither the
// order of making nor the sharding matters.
//
// Threads: pure functions. Private to engine/model.
#ifndef CAIRN_ENGINE_MODEL_RANDOM_WEIGHTS_H_
#define CAIRN_ENGINE_MODEL_RANDOM_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/maker.h"
#include "engine/model/schema.h"

namespace cairn::engine {

class NormalStream {
 public:
  NormalStream(uint64_t seed, const std::string& name);
  uint64_t NextWord();
  // Mean 0, deviation 1, within +-6: the sum of twelve uniform 16-bit numbers.
  float Next();

 private:
  uint64_t state_;
};

struct MadeTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
};

// The type a slot's tensor gets in this format.
DType MadeType(TensorRole role, WeightFormat format);

// One tensor, or a weight and its scale.
std::vector<MadeTensor> MakeTensor(const TensorSlot& slot, const ModelConfig& config,
                                   WeightFormat format, uint64_t seed);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_RANDOM_WEIGHTS_H_
