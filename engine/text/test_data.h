// test_data.h: what the tests of this folder share: golden files, random text.
//
// Threads: one. Errors: a golden file that cannot be read fails the test and is empty.
#ifndef CAIRN_ENGINE_TEXT_TEST_DATA_H_
#define CAIRN_ENGINE_TEXT_TEST_DATA_H_

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/model/file_io.h"
#include "engine/text/hf_tokenizer.h"
#include "engine/text/utf8.h"
#include "store/base/random.h"

namespace cairn::engine {

inline std::string TestFile(const std::string& name) {
  absl::StatusOr<std::string> text = ReadWholeFile("engine/text/testdata/" + name, 16 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

inline std::unique_ptr<Tokenizer> SmallTokenizer(bool scanner = true) {
  absl::StatusOr<TokenizerParts> parts = ParseTokenizerFile(TestFile("tokenizer.json"), scanner);
  EXPECT_TRUE(parts.ok()) << parts.status();
  return HfTokenizer::Make(std::move(parts).value(), 4096).value();
}

// Characters from all over Unicode, with many from where rules change: spaces, newlines, digits,
// punctuation, kana, marks, unassigned and private ones.
inline std::string RandomText(Random& random, size_t characters) {
  static constexpr char32_t kBlocks[][2] = {
      {0x20, 0x7E},     {0x20, 0x20},      {0x9, 0xD},       {0xA, 0xA},         {0xD, 0xD},
      {0x30, 0x39},     {0x41, 0x5A},      {0x61, 0x7A},     {0x80, 0x24F},      {0x2B0, 0x36F},
      {0x370, 0x5FF},   {0x600, 0x6FF},    {0x900, 0xE7F},   {0x1680, 0x180F},   {0x2000, 0x206F},
      {0x2070, 0x218F}, {0x2190, 0x2BFF},  {0x3000, 0x30FF}, {0x4E00, 0x4EFF},   {0x9FA0, 0x9FFF},
      {0xAC00, 0xACFF}, {0xE000, 0xE00F},  {0xFE00, 0xFFFD}, {0x10000, 0x1FFFF}, {0x20000, 0x2A6FF},
      {0, 0xD7FF},      {0xE000, 0x10FFFF}};
  std::string text;
  const uint64_t kinds = 1 + random.Next() % 6;  // few at a time, so that runs come about
  uint64_t chosen[6];
  for (uint64_t& block : chosen) block = random.Next() % std::size(kBlocks);
  for (size_t i = 0; i < characters; ++i) {
    const auto& [first, last] = kBlocks[chosen[random.Next() % kinds]];
    AppendCodePoint(text, first + static_cast<char32_t>(random.Next() % (last - first + 1)));
  }
  return text;
}

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_TEST_DATA_H_
