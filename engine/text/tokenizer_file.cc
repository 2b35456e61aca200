// tokenizer.json, read: every member is taken as the tokenizers library takes it, or refused.
#include <limits>

#include "engine/model/json.h"
#include "engine/text/hf_tokenizer.h"
#include "engine/text/json_fields.h"

namespace cairn::engine {
namespace {

using nlohmann::json;

constexpr int64_t kIdMax = 1 << 20;
constexpr size_t kTokenBytesMax = 64 << 10;

// Byte-level files spell a byte as one printable character: those that print in Latin-1 stand for
// themselves, the others, in order, for U+0100 and on.
class ByteSpelling {
 public:
  ByteSpelling() {
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool prints =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      byte_of_[prints ? byte : next++] = static_cast<char>(byte);
    }
  }

  // nullopt for a text that is not spelled so.
  std::optional<std::string> ToBytes(std::string_view text) const {
    std::string bytes;
    for (size_t at = 0; at < text.size();) {
      const auto it = byte_of_.find(NextCodePoint(text, at));
      if (it == byte_of_.end()) return std::nullopt;
      bytes.push_back(it->second);
    }
    return bytes;
  }

 private:
  absl::flat_hash_map<char32_t, char> byte_of_;
};

absl::StatusOr<int32_t> IdOf(const json& value, const std::string& path) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() > kIdMax) {
    return FieldError(path, absl::StrCat("must be an id from 0 to ", kIdMax));
  }
  return value.get<int32_t>();
}

class Reader {
 public:
  explicit Reader(const json& file) : file_(file) {}

  absl::StatusOr<TokenizerParts> Read(bool scanner) {
    CAIRN_RETURN_IF_ERROR(RefuseOthers());
    const json* pre_tokenizer = FindField(file_, "pre_tokenizer");
    CAIRN_ASSIGN_OR_RETURN(PreTokenizer pre,
                           PreTokenizer::Make(pre_tokenizer ? *pre_tokenizer : json(), scanner));
    const json* model = FindField(file_, "model");
    if (model == nullptr || !model->is_object()) return FieldError("model", "must be an object");
    CAIRN_RETURN_IF_ERROR(CheckModel(*model));
    CAIRN_RETURN_IF_ERROR(ReadVocab(*model));
    CAIRN_ASSIGN_OR_RETURN(Bpe bpe, ReadBpe(*model));
    CAIRN_ASSIGN_OR_RETURN(AddedTokens added, ReadAdded());
    return TokenizerParts{std::move(pre),    std::move(added),  std::move(bpe),
                          std::move(bytes_), std::move(marks_), std::move(special_)};
  }

 private:
  // post_processor is passed over: it adds tokens at the ends, which Encode is not to do, and moves
  // offsets, which nobody asks for.
  absl::Status RefuseOthers() const {
    for (const char* name : {"truncation", "padding"}) {
      if (FindField(file_, name)) return FieldError(name, "is not supported; must be null");
    }
    if (const json* normalizer = FindField(file_, "normalizer")) {
      const json* list = normalizer->is_object() ? FindField(*normalizer, "normalizers") : nullptr;
      if (list == nullptr || !list->is_array() || !list->empty()) {
        return FieldError("normalizer", "is not supported; must be null or an empty Sequence");
      }
    }
    const json* decoder = FindField(file_, "decoder");
    if (decoder == nullptr || !decoder->is_object()) {
      return FieldError("decoder", "must be an object");
    }
    CAIRN_ASSIGN_OR_RETURN(const std::string type, StringField(*decoder, "decoder", "type"));
    if (type != "ByteLevel") return FieldError("decoder.type", "only ByteLevel is supported");
    return absl::OkStatus();
  }

  static absl::Status CheckModel(const json& model) {
    CAIRN_ASSIGN_OR_RETURN(const std::string type, StringField(model, "model", "type"));
    if (type != "BPE") return FieldError("model.type", "only BPE is supported");
    CAIRN_ASSIGN_OR_RETURN(const bool byte_fallback,
                           BoolField(model, "model", "byte_fallback", false));
    if (byte_fallback) {
      return FieldError(
          "model.byte_fallback",
          "is not supported: only byte-level BPE is, which has a token for every byte");
    }
    if (FindField(model, "dropout")) return FieldError("model.dropout", "is not supported");
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const json* field = FindField(model, name);
      if (field && *field != "") return FieldError(Path("model", name), "is not supported");
    }
    return absl::OkStatus();
  }

  void SetBytes(int32_t id, std::string bytes) {
    const size_t index = static_cast<size_t>(id);
    if (bytes_.size() <= index) bytes_.resize(index + 1);
    bytes_[index] = std::move(bytes);
  }

  absl::Status ReadVocab(const json& model) {
    const json* vocab = FindField(model, "vocab");
    if (vocab == nullptr || !vocab->is_object() || vocab->size() > static_cast<size_t>(kIdMax)) {
      return FieldError("model.vocab", "must be an object of tokens and ids");
    }
    absl::flat_hash_set<int32_t> seen;
    for (const auto& [token, value] : vocab->items()) {
      const std::string path = absl::StrCat("model.vocab[\"", token.substr(0, 64), "\"]");
      CAIRN_ASSIGN_OR_RETURN(const int32_t id, IdOf(value, path));
      if (!seen.insert(id).second)
        return FieldError(path, absl::StrCat("the id ", id, " is taken"));
      if (token.empty() || token.size() > kTokenBytesMax) return FieldError(path, "bad length");
      vocab_[token] = id;
      // A token that is not spelled in bytes (a mark) is its own text.
      SetBytes(id, spelling_.ToBytes(token).value_or(token));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Bpe> ReadBpe(const json& model) {
    std::array<int32_t, 256> byte_ids;
    byte_ids.fill(-1);
    absl::flat_hash_map<std::string, int32_t> words;
    CAIRN_ASSIGN_OR_RETURN(const bool ignore_merges,
                           BoolField(model, "model", "ignore_merges", false));
    for (const auto& [token, id] : vocab_) {
      const std::optional<std::string> bytes = spelling_.ToBytes(token);
      if (!bytes) continue;
      if (bytes->size() == 1) byte_ids[static_cast<uint8_t>((*bytes)[0])] = id;
      if (ignore_merges) words[*bytes] = id;
    }
    for (size_t byte = 0; byte < byte_ids.size(); ++byte) {
      if (byte_ids[byte] >= 0) continue;
      return FieldError("model.vocab", absl::StrCat("has no token for the byte ", byte,
                                                    ", so it is not byte-level"));
    }
    Bpe bpe(byte_ids, std::move(words));
    const json* merges = FindField(model, "merges");
    if (merges == nullptr || !merges->is_array()) {
      return FieldError("model.merges", "must be an array");
    }
    for (size_t i = 0; i < merges->size(); ++i) {
      CAIRN_RETURN_IF_ERROR(AddMerge((*merges)[i], Path("model.merges", i), bpe));
    }
    return bpe;
  }

  // "a b" or ["a", "b"].
  absl::Status AddMerge(const json& merge, const std::string& path, Bpe& bpe) const {
    std::string left, right;
    if (merge.is_string()) {
      const std::string& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        return FieldError(path, "must be two tokens with one space between");
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else {
      return FieldError(path, "must be \"a b\" or [\"a\", \"b\"]");
    }
    int32_t ids[3];
    const std::string texts[] = {left, right, left + right};
    for (size_t i = 0; i < 3; ++i) {
      const auto it = vocab_.find(texts[i]);
      if (it == vocab_.end()) {
        return FieldError(path,
                          absl::StrCat("\"", texts[i].substr(0, 64), "\" is not in the vocab"));
      }
      ids[i] = it->second;
    }
    bpe.AddMerge(ids[0], ids[1], ids[2]);
    return absl::OkStatus();
  }

  absl::StatusOr<AddedTokens> ReadAdded() {
    std::vector<AddedToken> tokens;
    const json* list = FindField(file_, "added_tokens");
    if (list != nullptr && !list->is_array()) return FieldError("added_tokens", "must be an array");
    for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
      const json& item = (*list)[i];
      const std::string path = Path("added_tokens", i);
      if (!item.is_object()) return FieldError(path, "must be an object");
      AddedToken token;
      CAIRN_ASSIGN_OR_RETURN(token.id, IdOf(item.value("id", json()), Path(path, "id")));
      CAIRN_ASSIGN_OR_RETURN(token.content, StringField(item, path, "content"));
      CAIRN_ASSIGN_OR_RETURN(token.single_word, BoolField(item, path, "single_word", false));
      CAIRN_ASSIGN_OR_RETURN(token.lstrip, BoolField(item, path, "lstrip", false));
      CAIRN_ASSIGN_OR_RETURN(token.rstrip, BoolField(item, path, "rstrip", false));
      CAIRN_ASSIGN_OR_RETURN(const bool special, BoolField(item, path, "special", false));
      CAIRN_ASSIGN_OR_RETURN(token.normalized, BoolField(item, path, "normalized", !special));
      const auto known = vocab_.find(token.content);
      if (known != vocab_.end() && known->second != token.id) {
        return FieldError(Path(path, "id"), absl::StrCat("is ", token.id, ", but the vocab has ",
                                                         known->second, " for this text"));
      }
      if (!marks_.try_emplace(token.content, token.id).second) {
        return FieldError(Path(path, "content"), "is there twice");
      }
      if (special) special_.insert(token.id);
      SetBytes(token.id, token.content);
      tokens.push_back(std::move(token));
    }
    return AddedTokens::Make(std::move(tokens));
  }

  const json& file_;
  const ByteSpelling spelling_;
  absl::flat_hash_map<std::string, int32_t> vocab_, marks_;
  absl::flat_hash_set<int32_t> special_;
  std::vector<std::string> bytes_;
};

}  // namespace

absl::StatusOr<TokenizerParts> ParseTokenizerFile(std::string_view text, bool scanner) {
  CAIRN_ASSIGN_OR_RETURN(const json file, ParseJsonObject(text, "tokenizer file"));
  return Reader(file).Read(scanner);
}

}  // namespace cairn::engine
