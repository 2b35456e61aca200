// test_models.h: models for the tests of forward/: the golden ones, and made ones that are small
// but have everything: several heads, hash and biased layers, CSA with far more visible rows than
// it takes, HCA, MTP. And sequences run through them.
//
// Threads: one test, one thread. Ownership: what is returned by reference lives to the process's
// end. For tests only; paths are relative to the source directory, where tests run.
#ifndef CAIRN_ENGINE_FORWARD_TEST_MODELS_H_
#define CAIRN_ENGINE_FORWARD_TEST_MODELS_H_

#include <cstdint>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "engine/forward/forward.h"
#include "engine/model/maker.h"

namespace cairn::engine {

// Weights of tests/golden/`name`.
const Weights& GoldenWeights(const std::string& name);
// A tensor of tests/golden/`name`/golden.safetensors, as F32 or as I32.
std::vector<float> GoldenValues(const std::string& name, const std::string& tensor);
std::vector<int32_t> GoldenTokens(const std::string& name);

// The made models, from one seed. The FP8 one is as narrow as full numerics allow, whose groups are
// 128 inputs; the other is narrower.
const Weights& MadeWeights(WeightFormat format);

std::unique_ptr<Model> Pack(const Weights& weights, Numerics numerics,
                            RopeRows rope_rows = RopeRows::kBf16);

// The numerics of the tests' models, with the weights they are made for.
struct Mode {
  const char* name;
  WeightFormat format;
  Numerics numerics;
  RopeRows rope_rows;
};
inline constexpr Mode kModes[] = {
    {"plain", WeightFormat::kBf16, Numerics::kPlain, RopeRows::kBf16},
    {"kvq", WeightFormat::kBf16, Numerics::kKvq, RopeRows::kBf16},
    {"kvq_f32_rope", WeightFormat::kBf16, Numerics::kKvq, RopeRows::kF32},
    {"full", WeightFormat::kFp8Fp4, Numerics::kFull, RopeRows::kBf16},
    {"full_amx", WeightFormat::kFp8Fp4, Numerics::kFullAmx, RopeRows::kBf16},
    {"full_amx_bf16", WeightFormat::kBf16, Numerics::kFullAmx, RopeRows::kBf16},
};
const Model& ModelOf(const Mode& mode);
inline void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }

// Random token ids of the small model's vocabulary.
std::vector<int32_t> RandomTokens(int64_t n, uint32_t seed);

// Logits of every token and, of the MTP block, of every position from mtp_from on whose next token
// is known.
struct Outcome {
  std::vector<float> logits;
  std::vector<float> mtp;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// Runs `tokens`, which follow what the session holds, `chunk` at a time.
void Continue(Forward& forward, SessionState& session, std::span<const int32_t> tokens,
              int64_t chunk, Outcome& outcome, int64_t mtp_from = 0);
Outcome RunFresh(const Model& model, std::span<const int32_t> tokens, int64_t chunk,
                 int threads = 1);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_TEST_MODELS_H_
