#include "engine/forward/test_models.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <utility>

#include "engine/model/presets.h"
#include "engine/model/test_files.h"

namespace cairn::engine {
namespace {

constexpr char kGolden[] = "tests/golden/";

Weights Bind(const std::string& folder) {
  absl::StatusOr<ModelConfig> config = LoadConfig(folder);
  EXPECT_TRUE(config.ok()) << config.status();
  absl::StatusOr<std::unique_ptr<TensorFile>> file = TensorFile::Open(folder);
  EXPECT_TRUE(file.ok()) << file.status();
  absl::StatusOr<Weights> weights = BindWeights(*config, *std::move(file));
  EXPECT_TRUE(weights.ok()) << weights.status();
  return *std::move(weights);
}

TensorView GoldenTensor(const std::string& name, const std::string& tensor) {
  static auto* files = new std::map<std::string, std::unique_ptr<TensorFile>>;
  std::unique_ptr<TensorFile>& file = (*files)[name];
  if (file == nullptr) {
    auto opened = TensorFile::Open(kGolden + name + "/golden.safetensors");
    EXPECT_TRUE(opened.ok()) << opened.status();
    file = *std::move(opened);
  }
  const absl::StatusOr<TensorView> view = file->Get(tensor);
  EXPECT_TRUE(view.ok()) << view.status();
  return *view;
}

template <typename T>
std::vector<T> Copy(const TensorView& view) {
  std::vector<T> values(view.bytes.size() / sizeof(T));
  std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

ModelConfig SmallConfig(WeightFormat format) {
  ModelConfig c = PresetConfig("nano").value();
  c.vocab = 64;
  c.heads = 4;
  c.index_heads = 4;
  c.swiglu_limit = 1.0;  // so low that it is reached
  c.max_positions = 1024;
  if (format == WeightFormat::kFp8Fp4) c.dim = c.q_lora = c.expert_dim = 128;
  if (format == WeightFormat::kFp8Fp4) c.o_lora = 64;  // by two groups
  SetLayers(c, 4, 1);
  return c;
}

}  // namespace

const Weights& GoldenWeights(const std::string& name) {
  static auto* all = new std::map<std::string, Weights>;
  const auto it = all->find(name);
  if (it != all->end()) return it->second;
  return all->emplace(name, Bind(kGolden + name)).first->second;
}

std::vector<float> GoldenValues(const std::string& name, const std::string& tensor) {
  return Copy<float>(GoldenTensor(name, tensor));
}

std::vector<int32_t> GoldenTokens(const std::string& name) {
  return Copy<int32_t>(GoldenTensor(name, "tokens"));
}

const Weights& MadeWeights(WeightFormat format) {
  static auto* all = new std::map<WeightFormat, Weights>;
  const auto it = all->find(format);
  if (it != all->end()) return it->second;
  const TestFolder folder;  // the weights stay mapped when the files are gone
  const absl::Status made =
      MakeModel({.config = SmallConfig(format), .format = format, .seed = 11}, folder / "m");
  EXPECT_TRUE(made.ok()) << made;
  return all->emplace(format, Bind(folder / "m")).first->second;
}

std::unique_ptr<Model> Pack(const Weights& weights, Numerics numerics, RopeRows rope_rows) {
  auto model = PackModel(weights, {.numerics = numerics, .threads = 1, .rope_rows = rope_rows});
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

const Model& ModelOf(const Mode& mode) {
  static auto* all = new std::map<std::string, std::unique_ptr<Model>>;
  std::unique_ptr<Model>& model = (*all)[mode.name];
  if (model == nullptr) model = Pack(MadeWeights(mode.format), mode.numerics, mode.rope_rows);
  return *model;
}

std::vector<int32_t> RandomTokens(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 64);
  return tokens;
}

void Continue(Forward& forward, SessionState& session, std::span<const int32_t> tokens,
              int64_t chunk, Outcome& outcome, int64_t mtp_from) {
  while (!tokens.empty()) {
    const size_t count = std::min(tokens.size(), static_cast<size_t>(chunk));
    StepItem item;
    item.session = &session;
    item.tokens = tokens.first(count);
    item.want = WantLogits::kAll;
    item.mtp_from = mtp_from;
    item.on_mtp = [&](int64_t, std::span<const float> logits) {
      outcome.mtp.insert(outcome.mtp.end(), logits.begin(), logits.end());
    };
    const absl::Status status = forward.Run({&item, 1});
    ASSERT_TRUE(status.ok()) << status;
    outcome.logits.insert(outcome.logits.end(), item.logits.begin(), item.logits.end());
    tokens = tokens.subspan(count);
  }
}

Outcome RunFresh(const Model& model, std::span<const int32_t> tokens, int64_t chunk, int threads) {
  Forward forward(model, threads);
  SessionState session(model.config, *model.layout);
  Outcome outcome;
  Continue(forward, session, tokens, chunk, outcome);
  return outcome;
}

}  // namespace cairn::engine
