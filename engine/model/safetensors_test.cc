// The reader against files that are right, and against every way a file can be wrong: it must say
// what and where, and never give out a view that leaves the file. Broken headers are written by
// hand; flips and truncations go over a whole small file, byte by byte.
#include "engine/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/model/test_files.h"
#include "engine/model/tokens_file.h"

namespace cairn::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kHeader =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
    R"("b":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]}})";
const std::string kData = "12345678abcdef";

std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

class Safetensors : public ::testing::Test {
 protected:
  absl::Status OpenBytes(const std::string& bytes) {
    WriteFile(folder_ / "x.safetensors", bytes);
    return TensorFile::Open(folder_ / "x.safetensors").status();
  }

  void ExpectRefused(const std::string& bytes, absl::StatusCode code, const std::string& fragment) {
    const absl::Status status = OpenBytes(bytes);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(fragment));
    EXPECT_THAT(std::string(status.message()), HasSubstr("x.safetensors"));
  }
  void ExpectInvalid(const std::string& header, const std::string& data,
                     const std::string& fragment) {
    ExpectRefused(SafetensorsBytes(header, data), absl::StatusCode::kInvalidArgument, fragment);
  }

  TestFolder folder_;
};

TEST_F(Safetensors, ReadsTypesShapesAndBytes) {
  WriteFile(folder_ / "x.safetensors", SafetensorsBytes(kHeader, kData));
  auto file = TensorFile::Open(folder_ / "x.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 2u);
  const TensorView a = (*file)->Get("a").value();
  EXPECT_EQ(a.dtype, DType::kF32);
  EXPECT_THAT(a.shape, ElementsAre(2));
  EXPECT_EQ(std::string(a.bytes.begin(), a.bytes.end()), "12345678");
  const TensorView b = (*file)->Get("b").value();
  EXPECT_EQ(b.dtype, DType::kBF16);
  EXPECT_THAT(b.shape, ElementsAre(1, 3));
  EXPECT_EQ(std::string(b.bytes.begin(), b.bytes.end()), "abcdef");
  const absl::Status none = (*file)->Get("c").status();
  EXPECT_EQ(none.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.message()), HasSubstr("no tensor c"));
}

TEST_F(Safetensors, EveryTruncationIsNamed) {
  const std::string bytes = SafetensorsBytes(kHeader, kData);
  for (size_t length = 0; length < bytes.size(); ++length) {
    ExpectRefused(bytes.substr(0, length), absl::StatusCode::kDataLoss, "truncated");
  }
}

TEST_F(Safetensors, NoFlippedHeaderByteLeadsOutOfTheFile) {
  const std::string bytes = SafetensorsBytes(kHeader, kData);
  for (size_t at = 0; at < bytes.size() - kData.size(); ++at) {
    for (const int flip : {0x01, 0x12, 0x80}) {
      std::string flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ flip);
      WriteFile(folder_ / "x.safetensors", flipped);
      auto file = TensorFile::Open(folder_ / "x.safetensors");
      if (!file.ok()) continue;  // named by one of the other tests
      size_t sum = 0;            // read every byte: a view outside of the map would fault
      for (const auto& [name, view] : (*file)->tensors()) {
        for (uint8_t byte : view.bytes) sum += byte;
        EXPECT_LE(view.bytes.size(), kData.size());
      }
      EXPECT_GT(sum, 0u);
    }
  }
}

TEST_F(Safetensors, HeaderLengthIsBoundedBeforeItIsBelieved) {
  std::string bytes = SafetensorsBytes(kHeader, kData);
  bytes[6] = 1;  // 2^48
  ExpectRefused(bytes, absl::StatusCode::kInvalidArgument, "not a safetensors file");
}

TEST_F(Safetensors, BadHeadersAreNamed) {
  ExpectInvalid("{", "", "not valid JSON");
  ExpectInvalid("[]", "", "not a JSON object");
  ExpectInvalid(R"({"a":1})", "", "tensor a");
  ExpectInvalid(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", "1234", "no \"dtype\"");
  ExpectInvalid(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", "1234", "no \"shape\"");
  ExpectInvalid(R"({"a":{"dtype":"F32","shape":[1]}})", "1234", "data_offsets");
  ExpectInvalid(R"({"a\u0007":{}})", "", "not printable");
  ExpectInvalid(R"({"":{}})", "", "empty");
  ExpectInvalid(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                "1234", "\"a\" twice");
  ExpectInvalid(R"({"a":)" + std::string(100, '[') + std::string(100, ']') + "}", "", "nested");
}

TEST_F(Safetensors, AKeyIsNamedNeitherAtAnyLengthNorAsItIs) {
  const std::string key = "\x7f" + std::string(5000, 'k');
  const absl::Status status =
      OpenBytes(SafetensorsBytes("{\"" + key + "\":1,\"" + key + "\":1}", ""));
  EXPECT_THAT(std::string(status.message()), HasSubstr("\\x7fkkk"));
  EXPECT_LT(status.message().size(), 300u + folder_.path().size());
}

TEST_F(Safetensors, TokensAreAListOfI32) {
  const auto read = [&](const std::string& dtype, const std::string& shape,
                        const std::string& data) {
    WriteFile(folder_ / "t.safetensors",
              SafetensorsBytes(R"({"tokens":{"dtype":")" + dtype + R"(","shape":)" + shape +
                                   R"(,"data_offsets":[0,)" + std::to_string(data.size()) + "]}}",
                               data));
    return ReadTokensFile(folder_ / "t.safetensors");
  };
  EXPECT_THAT(*read("I32", "[2]", std::string("\1\0\0\0\2\0\0\0", 8)), ElementsAre(1, 2));
  EXPECT_TRUE(read("I32", "[0]", "")->empty());
  EXPECT_TRUE(absl::IsInvalidArgument(read("I32", "[1,1]", "1234").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(read("F32", "[1]", "1234").status()));
  WriteFile(folder_ / "t.safetensors", SafetensorsBytes(kHeader, kData));
  EXPECT_TRUE(absl::IsNotFound(ReadTokensFile(folder_ / "t.safetensors").status()));
}

TEST_F(Safetensors, BadTensorsAreNamed) {
  for (const char* dtype : {"F64", "F16", "BOOL", "F8_E5M2", "U16"}) {
    ExpectInvalid(Entry(dtype, "[1]", "[0,4]"), "1234", std::string("dtype ") + dtype);
  }
  ExpectInvalid(Entry("F32", "[-1]", "[0,4]"), "1234", "not a count");
  ExpectInvalid(Entry("F32", "[1.5]", "[0,4]"), "1234", "not a count");
  ExpectInvalid(Entry("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), "1234", "9 dimensions");
  ExpectInvalid(Entry("F32", "[4294967296,4294967296]", "[0,0]"), "", "over 2^64");
  ExpectInvalid(Entry("F32", "[2]", "[0,4]"), "1234", "need 8 bytes, its offsets give 4");
  ExpectInvalid(Entry("F32", "[1]", "[4,0]"), "1234", "before it begins");
  ExpectInvalid(Entry("F32", "[1]", "[-4,0]"), "1234", "not a pair");
  ExpectInvalid(Entry("F32", "[1]", "[0]"), "1234", "not a pair");
  ExpectInvalid(Entry("F32", "[1]", "[1,5]"), "12345", "leaves a gap");
  ExpectInvalid(Entry("F32", "[1]", "[0,4]"), "12345", "1 bytes after the last tensor");
  ExpectInvalid(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                R"("b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
                "123456", "overlaps");
}

TEST_F(Safetensors, MissingFilesAndFoldersAreNamed) {
  EXPECT_EQ(TensorFile::Open(folder_ / "none").status().code(), absl::StatusCode::kNotFound);
  const absl::Status empty = TensorFile::Open(folder_.path()).status();
  EXPECT_EQ(empty.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(empty.message()), HasSubstr("model.safetensors.index.json"));
}

class Shards : public Safetensors {
 protected:
  absl::StatusOr<std::unique_ptr<TensorFile>> OpenIndex(const std::string& index) {
    WriteFile(folder_ / "1.safetensors", SafetensorsBytes(Entry("U8", "[2]", "[0,2]"), "xy"));
    WriteFile(folder_ / "2.safetensors",
              SafetensorsBytes(R"({"b":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})", "z"));
    WriteFile(folder_ / "model.safetensors.index.json", index);
    return TensorFile::Open(folder_.path());
  }
  void ExpectBadIndex(const std::string& index, const std::string& fragment) {
    const absl::Status status = OpenIndex(index).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(fragment));
  }
};

TEST_F(Shards, AreOneSetOfTensors) {
  auto file = OpenIndex(R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->Get("a")->bytes[1], 'y');
  EXPECT_EQ((*file)->Get("b")->bytes[0], 'z');
}

TEST_F(Shards, BadIndexesAreNamed) {
  ExpectBadIndex("{}", "weight_map");
  ExpectBadIndex(R"({"weight_map":{"a":"../1.safetensors"}})", "not a file name");
  ExpectBadIndex(R"({"weight_map":{"a":7}})", "not a file name");
  ExpectBadIndex(R"({"weight_map":{"a":"3.safetensors"}})", "3.safetensors");
  ExpectBadIndex(R"({"weight_map":{"a":"1.safetensors"},"weight_map":{}})", "twice");
  ExpectBadIndex(R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors","c":"1.safetensors"}})",
                 "tensor c is not in its shard");
}

TEST_F(Shards, ATensorOutsideOfTheIndexOrInTwoShardsIsNamed) {
  WriteFile(folder_ / "3.safetensors", SafetensorsBytes(Entry("U8", "[1]", "[0,1]"), "q"));
  ExpectBadIndex(R"({"weight_map":{"a":"1.safetensors","c":"3.safetensors"}})", "another shard");
  WriteFile(folder_ / "3.safetensors",
            SafetensorsBytes(R"({"c":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},)"
                             R"("d":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})",
                             "z"));
  ExpectBadIndex(R"({"weight_map":{"c":"3.safetensors"}})", "tensor d of a shard is not in");
}

TEST_F(Shards, BesideASingleFileAreAmbiguous) {
  WriteFile(folder_ / "model.safetensors", SafetensorsBytes(kHeader, kData));
  ExpectBadIndex(R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})", "both");
}

TEST_F(Safetensors, WhatIsWrittenIsReadAndAligned) {
  const std::string bytes = "0123456789abcdef";
  const auto view = [&](DType type, std::vector<int64_t> shape, size_t size) {
    return TensorView{
        type, std::move(shape), {reinterpret_cast<const uint8_t*>(bytes.data()), size}};
  };
  const std::vector<NamedTensor> tensors = {{"narrow", view(DType::kU8, {3}, 3)},
                                            {"wide", view(DType::kI64, {1, 2}, 16)},
                                            {"middle", view(DType::kBF16, {5}, 10)},
                                            {"nothing", view(DType::kF32, {0}, 0)}};
  ASSERT_TRUE(WriteTensors(folder_ / "y", tensors).ok());
  auto file = TensorFile::Open(folder_ / "y");
  ASSERT_TRUE(file.ok()) << file.status();
  for (const NamedTensor& tensor : tensors) {
    const TensorView back = (*file)->Get(tensor.name).value();
    EXPECT_EQ(back.dtype, tensor.view.dtype);
    EXPECT_EQ(back.shape, tensor.view.shape);
    EXPECT_TRUE(std::ranges::equal(back.bytes, tensor.view.bytes)) << tensor.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(back.bytes.data()) % DTypeBytes(back.dtype), 0u);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1)
      << "a temporary file was left";
}

TEST_F(Safetensors, WritingRefusesWhatItCouldNotRead) {
  const std::string bytes = "0123";
  const std::span<const uint8_t> four(reinterpret_cast<const uint8_t*>(bytes.data()), 4);
  const TensorView good{DType::kF32, {1}, four};
  for (const std::vector<NamedTensor>& tensors :
       {std::vector<NamedTensor>{{"a", good}, {"a", good}},
        {{"__metadata__", good}},
        {{"", good}},
        {{"a", {DType::kF32, {2}, four}}},
        {{"a", {DType::kF32, {-1}, four}}}}) {
    EXPECT_EQ(WriteTensors(folder_ / "y", tensors).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE(WriteTensors(folder_ / "no/such/folder", {}).ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ / "y"));
}

}  // namespace
}  // namespace cairn::engine
