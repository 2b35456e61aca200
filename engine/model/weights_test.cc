// Binding against the golden set, and against copies of it with one thing wrong: whatever does not
// fit must be named. The copies share the golden set's bytes; only the map of names is changed.
#include "engine/model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "engine/model/test_files.h"

namespace cairn::engine {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kGolden = "tests/golden/nano-plain";

// Tensors of another file, changed. Owns bytes put in place of the file's.
class EditedFile final : public TensorFile {
 public:
  explicit EditedFile(std::shared_ptr<TensorFile> under)
      : under_(std::move(under)), tensors_(under_->tensors()) {}
  const std::map<std::string, TensorView>& tensors() const override { return tensors_; }
  absl::StatusOr<TensorView> Get(const std::string& name) const override {
    return tensors_.at(name);
  }

  TensorView& at(const std::string& name) { return tensors_.at(name); }
  void Remove(const std::string& name) { ASSERT_EQ(tensors_.erase(name), 1u) << name; }
  // A tensor of `size` zero bytes.
  void Put(const std::string& name, DType type, std::vector<int64_t> shape, size_t size) {
    buffers_.push_back(std::make_unique<std::vector<uint8_t>>(size));
    tensors_[name] = {type, std::move(shape), *buffers_.back()};
  }
  // A copy of the tensor's bytes that may be changed.
  std::vector<uint8_t>& Own(const std::string& name) {
    TensorView& view = tensors_.at(name);
    buffers_.push_back(
        std::make_unique<std::vector<uint8_t>>(view.bytes.begin(), view.bytes.end()));
    view.bytes = *buffers_.back();
    return *buffers_.back();
  }

  std::span<const std::unique_ptr<MappedFile>> files() const override { return under_->files(); }

 private:
  std::shared_ptr<TensorFile> under_;
  std::map<std::string, TensorView> tensors_;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> buffers_;
};

// Opened once: hundreds of cases start from it.
const std::shared_ptr<TensorFile>& Golden() {
  static const auto& file = *new std::shared_ptr<TensorFile>(TensorFile::Open(kGolden).value());
  return file;
}

const ModelConfig& GoldenConfig() {
  static const auto& config = *new ModelConfig(LoadConfig(kGolden).value());
  return config;
}

absl::StatusOr<Weights> BindEdited(const std::function<void(EditedFile&)>& edit) {
  auto file = std::make_shared<EditedFile>(Golden());
  edit(*file);
  return BindWeights(GoldenConfig(), std::move(file));
}

std::string Finding(const std::function<void(EditedFile&)>& edit) {
  const absl::Status status = BindEdited(edit).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

Weights BindGolden(const std::string& path) {
  return BindWeights(LoadConfig(path).value(), TensorFile::Open(path).value()).value();
}

TEST(Weights, BindsTheGoldenSet) {
  for (const char* set : {"tests/golden/nano-plain", "tests/golden/nano-kvq"}) {
    const Weights w = BindGolden(set);
    ASSERT_EQ(w.layers.size(), 5u);
    ASSERT_EQ(w.mtp.size(), 1u);
    const auto is = [&](const TensorView& view, const std::string& name) {
      return view.bytes.data() == w.file->Get(name)->bytes.data();
    };
    // One of every kind, by its official name.
    EXPECT_TRUE(is(w.embed.weight, "embed.weight"));
    EXPECT_TRUE(is(w.head.weight, "head.weight"));
    EXPECT_TRUE(is(w.hc_head.fn, "hc_head_fn"));
    EXPECT_TRUE(is(w.layers[2].hc_attn.base, "layers.2.hc_attn_base"));
    EXPECT_TRUE(is(w.layers[2].hc_ffn.scale, "layers.2.hc_ffn_scale"));
    EXPECT_TRUE(is(w.layers[1].attn.sink, "layers.1.attn.attn_sink"));
    EXPECT_TRUE(is(w.layers[1].attn.wo_a.weight, "layers.1.attn.wo_a.weight"));
    EXPECT_TRUE(is(w.layers[1].attn.compressor.ape, "layers.1.attn.compressor.ape"));
    EXPECT_TRUE(is(w.layers[3].attn.indexer.compressor.wgate.weight,
                   "layers.3.attn.indexer.compressor.wgate.weight"));
    EXPECT_TRUE(is(w.layers[0].ffn.tid2eid, "layers.0.ffn.gate.tid2eid"));
    EXPECT_TRUE(is(w.layers[4].ffn.bias, "layers.4.ffn.gate.bias"));
    EXPECT_TRUE(is(w.layers[4].ffn.experts[3].w2.weight, "layers.4.ffn.experts.3.w2.weight"));
    EXPECT_TRUE(is(w.layers[4].ffn.shared.w3.weight, "layers.4.ffn.shared_experts.w3.weight"));
    EXPECT_TRUE(is(w.mtp[0].block.attn.wkv.weight, "mtp.0.attn.wkv.weight"));
    EXPECT_TRUE(is(w.mtp[0].h_proj.weight, "mtp.0.h_proj.weight"));
    EXPECT_TRUE(is(w.mtp[0].norm, "mtp.0.norm.weight"));
    EXPECT_EQ(w.layers[0].attn.wq_b.out, 256);
    EXPECT_EQ(w.layers[0].attn.wq_b.in, 32);
    EXPECT_TRUE(w.layers[0].ffn.bias.empty());
    EXPECT_TRUE(w.layers[2].ffn.tid2eid.empty());
    EXPECT_TRUE(w.layers[0].attn.compressor.ape.empty());
    EXPECT_TRUE(w.layers[2].attn.indexer.wq_b.weight.empty());
  }
}

TEST(Weights, EveryTensorIsRequired) {
  for (const auto& [name, view] : Golden()->tensors()) {
    EXPECT_THAT(Finding([&, &missing = name](EditedFile& file) { file.Remove(missing); }),
                HasSubstr("1 tensor: " + name + " is missing"));
  }
}

TEST(Weights, EveryShapeAndTypeIsChecked) {
  for (const auto& [name, view] : Golden()->tensors()) {
    EXPECT_THAT(Finding([&, &of = name](EditedFile& file) { file.at(of).shape[0] += 1; }),
                HasSubstr("1 tensor: " + name + " is ["));
    EXPECT_THAT(Finding([&, &of = name](EditedFile& file) { file.at(of).dtype = DType::kU8; }),
                HasSubstr("1 tensor: " + name + " is U8, must be "));
  }
}

TEST(Weights, TheFirstFewFindingsAreNamedAndAllAreCounted) {
  const std::string finding = Finding([](EditedFile& file) {
    file.Remove("embed.weight");
    file.at("norm.weight").shape = {63};
    file.at("head.weight").dtype = DType::kI8;
    file.Put("layers.5.attn_norm.weight", DType::kBF16, {64}, 128);
    file.Put("zzz", DType::kF32, {1}, 4);
    file.Remove("mtp.0.norm.weight");
    file.Remove("mtp.0.enorm.weight");
  });
  EXPECT_THAT(finding, HasSubstr("7 tensors: embed.weight is missing"));
  EXPECT_THAT(finding, HasSubstr("norm.weight is [63], must be [64]"));
  EXPECT_THAT(finding, HasSubstr("head.weight is I8, must be BF16 or F32"));
  EXPECT_THAT(finding, HasSubstr("mtp.0.enorm.weight is missing"));
  EXPECT_THAT(finding, HasSubstr("and 2 more"));
}

TEST(Weights, UnknownTensorsAreNamed) {
  EXPECT_THAT(Finding([](EditedFile& file) {
                file.Put("layers.5.attn_norm.weight", DType::kBF16, {64}, 128);
              }),
              HasSubstr("layers.5.attn_norm.weight is unknown"));
  EXPECT_THAT(
      Finding([](EditedFile& file) { file.Put("layers.0.ffn.gate.bias", DType::kF32, {4}, 16); }),
      HasSubstr("layers.0.ffn.gate.bias is unknown"));
}

TEST(Weights, CopiesUnderMtpAreIgnored) {
  EXPECT_TRUE(BindEdited([](EditedFile& file) {
                file.Put("mtp.0.emb.tok_emb.weight", DType::kBF16, {256, 64}, 32768);
                file.Put("mtp.0.embed.weight", DType::kBF16, {256, 64}, 32768);
                file.Put("mtp.0.head.weight", DType::kBF16, {256, 64}, 32768);
              }).ok());
}

TEST(Weights, ScalesGoWithQuantisedWeightsOnly) {
  const std::string linear = "layers.0.attn.wq_b", expert = "layers.0.ffn.experts.0.w1";
  const auto fp8 = [&](EditedFile& file) {
    file.Put(linear + ".weight", DType::kF8E4M3, {256, 32}, 8192);
  };
  const auto fp4 = [&](EditedFile& file) {
    file.Put(expert + ".weight", DType::kI8, {32, 32}, 1024);
  };
  EXPECT_THAT(Finding(fp8), HasSubstr(linear + ".scale is missing beside its F8_E4M3 weight"));
  EXPECT_THAT(Finding(fp4), HasSubstr(expert + ".scale is missing beside its I8 weight"));
  EXPECT_THAT(Finding([&](EditedFile& file) {
                file.Put(linear + ".scale", DType::kF8E8M0, {2, 1}, 2);
              }),
              HasSubstr(linear + ".scale is there, but its weight is BF16"));
  EXPECT_THAT(Finding([&](EditedFile& file) {
                fp8(file);
                file.Put(linear + ".scale", DType::kF8E8M0, {2, 2}, 4);
              }),
              HasSubstr(linear + ".scale is [2,2], must be [2,1]"));
  EXPECT_THAT(Finding([&](EditedFile& file) {
                fp8(file);
                file.Put(linear + ".scale", DType::kF32, {2, 1}, 8);
              }),
              HasSubstr(linear + ".scale is F32, must be F8_E8M0"));
  EXPECT_THAT(Finding([&](EditedFile& file) {
                file.Put(linear + ".weight", DType::kI8, {256, 16}, 4096);
              }),
              HasSubstr(linear + ".weight is I8, must be BF16, F32 or F8_E4M3"));
  const auto bound = BindEdited([&](EditedFile& file) {
    fp8(file);
    file.Put(linear + ".scale", DType::kF8E8M0, {2, 1}, 2);
    fp4(file);
    file.Put(expert + ".scale", DType::kF8E8M0, {32, 2}, 64);
  });
  ASSERT_TRUE(bound.ok()) << bound.status();
  EXPECT_EQ(bound->layers[0].attn.wq_b.scale.shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(bound->layers[0].ffn.experts[0].w1.in, 64) << "two values a byte";
}

TEST(Weights, AMissingWeightsScaleIsNotAFindingOfItsOwn) {
  EXPECT_THAT(Finding([](EditedFile& file) {
                file.Remove("layers.0.attn.wq_b.weight");
                file.Put("layers.0.attn.wq_b.scale", DType::kF8E8M0, {2, 1}, 2);
              }),
              Not(HasSubstr("unknown")));
}

TEST(Weights, ExpertsOutOfRangeAreFound) {
  for (const int64_t id : {int64_t{4}, int64_t{-1}, int64_t{1} << 40}) {
    EXPECT_THAT(Finding([&](EditedFile& file) {
                  std::memcpy(file.Own("layers.1.ffn.gate.tid2eid").data() + 7 * 8, &id, 8);
                }),
                HasSubstr("layers.1.ffn.gate.tid2eid sends token 3 to an expert outside of 0..3"));
  }
  EXPECT_TRUE(BindEdited([](EditedFile& file) {
                file.Put("layers.1.ffn.gate.tid2eid", DType::kI32, {256, 2}, 2048);
              }).ok());
}

TEST(Weights, AConfigThatCannotBeIsRefusedBeforeItIsWalked) {
  ModelConfig config = LoadConfig(kGolden).value();
  config.layers = int64_t{1} << 40;
  EXPECT_FALSE(BindWeights(config, TensorFile::Open(kGolden).value()).ok());
}

// Made with Python's hashlib from the definition in weights.h.
TEST(Weights, IdentityIsAsDefinedWithAnyNumberOfThreads) {
  const Weights weights = BindGolden(kGolden);
  for (const int threads : {1, 2, 7}) {
    EXPECT_EQ(weights.Identity(threads).ToHex(),
              "efddc87c72ff871b648a2cd58496cfb713a69a3bfdf5ceac540761cedc94b86d");
  }
}

TEST(Weights, IdentityTellsOneBitOneNameAndOneShapeApart) {
  const Digest golden = BindGolden(kGolden).Identity(2);
  EXPECT_EQ(BindEdited([](EditedFile& file) { file.Own("norm.weight"); })->Identity(2), golden);
  EXPECT_NE(BindEdited([](EditedFile& file) { file.Own("norm.weight")[5] ^= 1; })->Identity(2),
            golden);
  EXPECT_NE(BindEdited([](EditedFile& file) {
              std::swap(file.at("mtp.0.enorm.weight"), file.at("mtp.0.hnorm.weight"));
            })->Identity(2),
            golden);
  EXPECT_NE(BindEdited([](EditedFile& file) {
              file.Put("mtp.0.head.weight", DType::kBF16, {1}, 2);
            })->Identity(2),
            golden);
}

TEST(Weights, NumbersThatAreNoneAreFound) {
  EXPECT_TRUE(BindGolden(kGolden).CheckFinite(2).ok());
  const auto expect_found = [](const std::string& name, size_t at, std::vector<uint8_t> bytes,
                               const std::function<void(EditedFile&)>& edit) {
    const auto weights = BindEdited([&](EditedFile& file) {
      edit(file);
      std::copy(bytes.begin(), bytes.end(),
                file.Own(name).begin() + static_cast<std::ptrdiff_t>(at));
    });
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_THAT(std::string(weights->CheckFinite(2).message()), HasSubstr("tensor " + name));
  };
  const auto nothing = [](EditedFile&) {};
  expect_found("hc_head_fn", 12, {0, 0, 0xc0, 0x7f}, nothing);           // NaN
  expect_found("hc_head_fn", 12, {0, 0, 0x80, 0xff}, nothing);           // -infinity
  expect_found("layers.3.attn.wkv.weight", 126, {0x80, 0x7f}, nothing);  // infinity
  const std::string linear = "layers.0.attn.wq_b";
  const auto fp8 = [&](EditedFile& file) {
    file.Put(linear + ".weight", DType::kF8E4M3, {256, 32}, 8192);
    file.Put(linear + ".scale", DType::kF8E8M0, {2, 1}, 2);
  };
  expect_found(linear + ".weight", 8191, {0xff}, fp8);
  expect_found(linear + ".scale", 1, {0xff}, fp8);
}

}  // namespace
}  // namespace cairn::engine
