#include "engine/cuda/cuda_test_models.h"

#include <algorithm>
#include <map>
#include <random>
#include <utility>

#include "engine/model/maker.h"
#include "engine/model/presets.h"
#include "engine/model/test_files.h"

namespace cairn::engine {

ModelConfig CudaTestConfig(const std::vector<int64_t>& ratios, int64_t hash_layers) {
  ModelConfig c = PresetConfig("nano").value();
  c.vocab = kTestVocab;
  c.dim = 256;
  c.heads = 4;
  c.head_dim = 512;
  c.q_lora = 128;
  c.o_lora = 64;
  c.o_groups = 2;
  c.index_heads = 4;
  c.index_dim = 128;
  c.index_topk = 16;
  c.experts = 6;
  c.expert_dim = 128;
  c.max_positions = 4096;
  SetLayers(c, static_cast<int64_t>(ratios.size()), 0);
  c.compress_ratios = ratios;
  c.hash_layers = hash_layers;
  return c;
}

const CudaTestModel& CudaTestModelOf(const std::vector<int64_t>& ratios, int64_t hash_layers) {
  static auto* all = new std::map<std::pair<std::vector<int64_t>, int64_t>, CudaTestModel>;
  const auto it = all->find({ratios, hash_layers});
  if (it != all->end()) return it->second;
  const TestFolder folder;  // the weights stay mapped when the files are gone
  const ModelConfig config = CudaTestConfig(ratios, hash_layers);
  const absl::Status made =
      MakeModel({.config = config, .format = WeightFormat::kFp8Fp4, .seed = 5}, folder / "m");
  EXPECT_TRUE(made.ok()) << made;
  auto file = TensorFile::Open(folder / "m");
  EXPECT_TRUE(file.ok()) << file.status();
  auto weights = BindWeights(config, *std::move(file));
  EXPECT_TRUE(weights.ok()) << weights.status();
  auto cpu = PackModel(*weights, {.numerics = Numerics::kFull, .threads = 2});
  EXPECT_TRUE(cpu.ok()) << cpu.status();
  auto gpu = LoadCudaModel(*weights);
  EXPECT_TRUE(gpu.ok()) << gpu.status();
  return all
      ->emplace(std::pair(ratios, hash_layers),
                CudaTestModel{*std::move(weights), *std::move(cpu), *std::move(gpu)})
      .first->second;
}

std::vector<int32_t> CudaTestTokens(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % kTestVocab);
  return tokens;
}

CudaTestEngine::CudaTestEngine(const CudaModel& model, int64_t slots, int64_t span_tokens) {
  auto made = CudaSessions::Create(
      model.config, {.slots = slots, .tokens_max = 1024, .span_tokens_max = span_tokens});
  EXPECT_TRUE(made.ok()) << made.status();
  sessions = *std::move(made);
  auto engine = CudaForward::Create(model, *sessions, 1200, slots);
  EXPECT_TRUE(engine.ok()) << engine.status();
  forward = *std::move(engine);
}

std::vector<float> CudaTestEngine::Run(int64_t slot, std::span<const int32_t> tokens,
                                       size_t chunk) {
  while (!tokens.empty()) {
    const size_t count = std::min(chunk, tokens.size());
    const CudaStepItem item{slot, tokens.first(count)};
    const absl::Status status = forward->Step({&item, 1});
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) return {};
    tokens = tokens.subspan(count);
  }
  return Logits();
}

std::vector<float> CudaTestEngine::Logits() {
  auto logits = forward->Logits();
  EXPECT_TRUE(logits.ok()) << logits.status();
  return logits.ok() ? *std::move(logits) : std::vector<float>();
}

}  // namespace cairn::engine
