#include "engine/cairn_engine/prompts_file.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "engine/model/json.h"

namespace cairn::engine {
namespace {

absl::StatusOr<std::vector<int32_t>> TokenIds(const nlohmann::json& ids, const std::string& where) {
  std::vector<int32_t> tokens;
  tokens.reserve(ids.size());
  for (const nlohmann::json& id : ids) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": prompt[", tokens.size(), "] must be a token id"));
    }
    tokens.push_back(id.get<int32_t>());
  }
  return tokens;
}

absl::StatusOr<std::vector<int32_t>> TokensOf(const std::string& line, const std::string& where,
                                              const Tokenizer& tokenizer) {
  std::string text = line;
  if (line.front() == '{') {
    CAIRN_ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(line, where));
    const auto prompt = object.find("prompt");
    if (prompt != object.end() && prompt->is_array()) return TokenIds(*prompt, where);
    if (prompt == object.end() || !prompt->is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": \"prompt\" must be a text or an array of token ids"));
    }
    text = prompt->get<std::string>();
  }
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer.Encode(text);
  if (tokens.ok()) return tokens;
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": ", std::string(tokens.status().message())));
}

}  // namespace

absl::StatusOr<std::vector<FilePrompt>> ReadPromptsFile(const std::string& path,
                                                        const Tokenizer& tokenizer) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot read the prompts file ", path));
  std::vector<FilePrompt> prompts;
  std::string line;
  for (size_t number = 1; std::getline(in, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    const std::string where = absl::StrCat(path, " line ", number);
    CAIRN_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, TokensOf(line, where, tokenizer));
    prompts.push_back({number, std::move(tokens)});
  }
  if (prompts.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("no prompt in the prompts file ", path));
  }
  return prompts;
}

}  // namespace cairn::engine
