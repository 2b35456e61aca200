// A made model must load, be the same wherever and however it was made, and have weights that let
// every term of the architecture show: no zero biases, sinks or bases, norms that are not one.
#include "engine/model/maker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/model/presets.h"
#include "engine/model/random_weights.h"
#include "engine/model/test_files.h"
#include "engine/model/weights.h"
#include "kernels/cpu/formats.h"

namespace cairn::engine {
namespace {

using ::testing::HasSubstr;

MakeOptions Options(const std::string& preset, WeightFormat format, uint64_t seed) {
  return {.config = PresetConfig(preset).value(), .format = format, .seed = seed, .threads = 2};
}

// The demo's shape made small in number, so that the test is quick.
MakeOptions QuickMini(uint64_t seed) {
  MakeOptions options = Options("mini", WeightFormat::kFp8Fp4, seed);
  SetLayers(options.config, 4, 1);
  options.config.experts = 3;
  return options;
}

Weights Load(const std::string& folder) {
  return BindWeights(LoadConfig(folder).value(), TensorFile::Open(folder).value()).value();
}

std::string MakeAndIdentify(const MakeOptions& options) {
  TestFolder folder;
  EXPECT_TRUE(MakeModel(options, folder / "m").ok());
  return Load(folder / "m").Identity(2).ToHex();
}

TEST(Maker, WhatItMakesLoadsWithFiniteWeights) {
  for (const MakeOptions& options : {Options("nano", WeightFormat::kBf16, 3), QuickMini(3)}) {
    TestFolder folder;
    ASSERT_TRUE(MakeModel(options, folder / "m").ok());
    EXPECT_EQ(LoadConfig(folder / "m")->Canonical(), options.config.Canonical());
    const Weights weights = Load(folder / "m");
    EXPECT_TRUE(weights.CheckFinite(2).ok());
  }
}

TEST(Maker, QuantisesAsReleased) {
  TestFolder folder;
  ASSERT_TRUE(MakeModel(QuickMini(1), folder / "m").ok());
  const Weights w = Load(folder / "m");
  EXPECT_EQ(w.layers[0].attn.wq_a.weight.dtype, DType::kF8E4M3);
  EXPECT_EQ(w.layers[0].ffn.experts[0].w1.weight.dtype, DType::kI8);
  EXPECT_EQ(w.layers[0].ffn.shared.w1.weight.dtype, DType::kF8E4M3);
  EXPECT_EQ(w.layers[2].attn.indexer.wq_b.weight.dtype, DType::kF8E4M3);
  EXPECT_EQ(w.layers[2].attn.compressor.wkv.weight.dtype, DType::kBF16);
  EXPECT_EQ(w.layers[0].ffn.gate.weight.dtype, DType::kBF16);
  EXPECT_EQ(w.layers[0].ffn.tid2eid.dtype, DType::kI64);
  EXPECT_EQ(w.mtp[0].e_proj.weight.dtype, DType::kF8E4M3);
  EXPECT_EQ(w.head.weight.dtype, DType::kBF16);
}

// These pin the generator: a change of any bit, on any machine, fails here.
TEST(Maker, SameSeedSameBytesEverywhere) {
  EXPECT_EQ(MakeAndIdentify(Options("nano", WeightFormat::kBf16, 1)),
            "4c1942e0b3d1aa1c03c5abcd6bb2766a410fdf4868d3802818255b05137d52ac");
  EXPECT_EQ(MakeAndIdentify(QuickMini(1)),
            "40430f2ed9a8d45be247c4663bd7dbb078c252adbf5c7954e247923e6d88ce2b");
}

TEST(Maker, AnotherSeedOtherWeights) {
  EXPECT_NE(MakeAndIdentify(Options("nano", WeightFormat::kBf16, 1)),
            MakeAndIdentify(Options("nano", WeightFormat::kBf16, 2)));
}

TEST(Maker, ShardsAndThreadsChangeNothing) {
  MakeOptions options = Options("nano", WeightFormat::kBf16, 5);
  const std::string single = MakeAndIdentify(options);
  options.threads = 5;
  for (const uint64_t shard_bytes : {30'000u, 700'000u}) {
    options.shard_bytes = shard_bytes;
    TestFolder folder;
    ASSERT_TRUE(MakeModel(options, folder / "m").ok());
    EXPECT_TRUE(std::filesystem::exists(folder / "m/model.safetensors.index.json"));
    EXPECT_FALSE(std::filesystem::exists(folder / "m/model.safetensors"));
    EXPECT_EQ(Load(folder / "m").Identity(1).ToHex(), single);
    for (const auto& file : std::filesystem::directory_iterator(folder / "m")) {
      if (file.path().extension() != ".safetensors") continue;
      EXPECT_LT(file.file_size(), shard_bytes + 40'000) << "data, header, one tensor too large";
    }
  }
}

TEST(Maker, WillNotWriteOverAModel) {
  TestFolder folder;
  const MakeOptions options = Options("nano", WeightFormat::kBf16, 1);
  ASSERT_TRUE(MakeModel(options, folder / "m").ok());
  const absl::Status again = MakeModel(options, folder / "m");
  EXPECT_EQ(again.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(again.message()), HasSubstr("holds a model already"));
}

TEST(Maker, RefusesWhatCannotBe) {
  TestFolder folder;
  MakeOptions options = Options("nano", WeightFormat::kFp8Fp4, 1);
  EXPECT_THAT(std::string(MakeModel(options, folder / "m").message()),
              HasSubstr("layers.0.attn.wq_a has 64"));
  options = Options("nano", WeightFormat::kBf16, 1);
  options.config.heads = 0;
  EXPECT_EQ(MakeModel(options, folder / "m").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(folder / "m")) << "nothing is made of what is refused";
  WriteFile(folder / "file", "");
  EXPECT_FALSE(MakeModel(Options("nano", WeightFormat::kBf16, 1), folder / "file/m").ok());
}

TEST(Maker, EveryTermShows) {
  TestFolder folder;
  ASSERT_TRUE(MakeModel(Options("nano", WeightFormat::kBf16, 1), folder / "m").ok());
  const Weights weights = Load(folder / "m");
  for (const auto& [name, view] : weights.file->tensors()) {
    const TensorView& tensor = view;
    EXPECT_TRUE(
        std::ranges::any_of(tensor.bytes, [&](uint8_t byte) { return byte != tensor.bytes[0]; }))
        << name << " is constant";
  }
  EXPECT_EQ(weights.layers[0].ffn.tid2eid.shape, (std::vector<int64_t>{256, 2}));
  std::vector<int64_t> ids(512);
  std::memcpy(ids.data(), weights.layers[0].ffn.tid2eid.bytes.data(), 4096);
  for (size_t token = 0; token < 256; ++token) EXPECT_NE(ids[2 * token], ids[2 * token + 1]);
}

TEST(RandomWeights, TheNormalIsOne) {
  NormalStream stream(1, "x");
  double sum = 0.0, squares = 0.0, fourths = 0.0;
  constexpr int kCount = 200'000;
  for (int i = 0; i < kCount; ++i) {
    const double z = stream.Next();
    EXPECT_LE(std::fabs(z), 6.0);
    sum += z;
    squares += z * z;
    fourths += z * z * z * z;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 0.01);
  EXPECT_NEAR(squares / kCount, 1.0, 0.02);
  EXPECT_NEAR(fourths / kCount, 2.9, 0.1);  // the sum of twelve: 3 - 1.2 / 12
}

// Dequantised, a tensor must lie within the format's step of the BF16 one made from the same
// stream.
TEST(RandomWeights, QuantisedIsCloseToUnquantised) {
  const ModelConfig config = PresetConfig("mini").value();
  for (const TensorRole role : {TensorRole::kLinear, TensorRole::kExpert}) {
    LinearWeight linear;
    const TensorSlot slot{.name = "t", .role = role, .shape = {200, 256}, .linear = &linear};
    const auto exact = MakeTensor(slot, config, WeightFormat::kBf16, 9);
    const auto made = MakeTensor(slot, config, WeightFormat::kFp8Fp4, 9);
    ASSERT_EQ(made.size(), 2u);
    const bool fp4 = role == TensorRole::kExpert;
    for (size_t i = 0; i < 200 * 256; ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, exact[0].bytes.data() + 2 * i, 2);
      const float value = kernels::Bf16ToF32(bits);
      const size_t row = i / 256, column = i % 256;
      const float scale = kernels::E8m0ToF32(
          made[1].bytes[fp4 ? row * 8 + column / 32 : row / 128 * 2 + column / 128]);
      const float got =
          scale * (fp4 ? kernels::E2m1ToF32((made[0].bytes[i / 2] >> (i % 2 * 4)) & 15)
                       : kernels::E4m3ToF32(made[0].bytes[i]));
      // Half a step of the largest binade of FP4 (4..6); half of 1/8 of the value, or of the
      // subnormal step, of FP8.
      const float step = fp4 ? scale : std::max(std::fabs(value) / 16, scale / 512);
      ASSERT_NEAR(got, value, step * 1.01f + std::fabs(value) / 256) << i;
    }
  }
}

TEST(Presets, AreConsistentAndKeepTheirPattern) {
  for (const char* name : {"nano", "mini", "small"}) {
    EXPECT_TRUE(CheckConfig(PresetConfig(name).value(), name).ok());
  }
  EXPECT_THAT(std::string(PresetConfig("huge").status().message()),
              HasSubstr("nano, mini and small"));
  const ModelConfig mini = PresetConfig("mini").value();
  EXPECT_EQ(mini.compress_ratios, (std::vector<int64_t>{0, 0, 4, 128, 4, 128, 4, 128, 0}));
  EXPECT_EQ(mini.head_dim, 512);
  EXPECT_EQ(mini.window, 128);
  ModelConfig flash = mini;
  SetLayers(flash, 43, 1);
  EXPECT_EQ(flash.ratio(42), 4);
  EXPECT_EQ(flash.ratio(41), 128);
  SetLayers(flash, 1, 0);
  EXPECT_EQ(flash.compress_ratios, (std::vector<int64_t>{0}));
  EXPECT_EQ(flash.hash_layers, 1);
  EXPECT_EQ(PresetConfig("nano")->Canonical(), LoadConfig("tests/golden/nano-plain")->Canonical());
}

}  // namespace
}  // namespace cairn::engine
