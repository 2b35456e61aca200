#include "engine/text/pre_tokenizer.h"

#include <algorithm>

#include "engine/text/json_fields.h"

namespace cairn::engine {
namespace {

constexpr size_t kStagesMax = 16;

// What ByteLevel cuts by when use_regex is set: GPT-2's pattern.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
    {"Isolated", SplitBehavior::kIsolated},
    {"Removed", SplitBehavior::kRemoved},
    {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
    {"MergedWithNext", SplitBehavior::kMergedWithNext},
    {"Contiguous", SplitBehavior::kContiguous},
};

struct Part {
  size_t begin, end;
  bool match;
};

// All of `text` as parts that match and parts between them.
absl::StatusOr<std::vector<Part>> Parts(const Pattern& pattern, bool invert,
                                        std::string_view text) {
  std::vector<Part> parts;
  size_t done = 0;
  CAIRN_RETURN_IF_ERROR(pattern.ForEachMatch(text, [&](size_t begin, size_t end) {
    if (done < begin) parts.push_back({done, begin, invert});
    parts.push_back({begin, end, !invert});
    done = end;
  }));
  if (done < text.size()) parts.push_back({done, text.size(), invert});
  return parts;
}

// Joins parts in place as the behaviour says; `joins(part, before)` of two neighbours.
template <typename Joins>
void Join(std::vector<Part>& parts, Joins joins) {
  std::vector<Part> joined;
  bool before = false;
  for (const Part& part : parts) {
    if (!joined.empty() && joins(part.match, before)) {
      joined.back().end = part.end;
    } else {
      joined.push_back(part);
    }
    before = part.match;
  }
  parts = std::move(joined);
}

void ApplyBehavior(SplitBehavior behavior, std::vector<Part>& parts) {
  const auto one_match = [](bool match, bool before) { return match && !before; };
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kRemoved:
      std::erase_if(parts, [](const Part& part) { return part.match; });
      return;
    case SplitBehavior::kContiguous:
      return Join(parts, [](bool match, bool before) { return match == before; });
    case SplitBehavior::kMergedWithPrevious:
      return Join(parts, one_match);
    case SplitBehavior::kMergedWithNext: {
      // The same, seen from the end.
      const auto flip = [&] {
        std::reverse(parts.begin(), parts.end());
        for (Part& part : parts) part = {~part.end, ~part.begin, part.match};
      };
      flip();
      Join(parts, one_match);
      flip();
      return;
    }
  }
}

}  // namespace

// Reads the file's member into stages.
class PreTokenizerReader {
 public:
  absl::StatusOr<PreTokenizer> Read(const nlohmann::json& json, bool scanner) {
    if (!json.is_null()) CAIRN_RETURN_IF_ERROR(Add(json, "pre_tokenizer", 0));
    if (scanner && IsDeepSeek()) {
      CAIRN_ASSIGN_OR_RETURN(result_.scanner_, DeepSeekScanner::Make());
      result_.stages_.clear();
    }
    return std::move(result_);
  }

 private:
  absl::Status Add(const nlohmann::json& json, const std::string& path, int depth) {
    if (!json.is_object()) return FieldError(path, "must be an object");
    CAIRN_ASSIGN_OR_RETURN(const std::string type, StringField(json, path, "type"));
    if (type == "Split") return AddSplit(json, path);
    if (type == "ByteLevel") return AddByteLevel(json, path);
    if (type != "Sequence" || depth > 0) {
      return FieldError(path, absl::StrCat("the type ", type, " is not supported here"));
    }
    const nlohmann::json* list = FindField(json, "pretokenizers");
    if (list == nullptr || !list->is_array() || list->size() > kStagesMax) {
      return FieldError(Path(path, "pretokenizers"),
                        absl::StrCat("must be an array of at most ", kStagesMax));
    }
    for (size_t i = 0; i < list->size(); ++i) {
      CAIRN_RETURN_IF_ERROR(Add((*list)[i], Path(Path(path, "pretokenizers"), i), depth + 1));
    }
    return absl::OkStatus();
  }

  absl::Status AddSplit(const nlohmann::json& json, const std::string& path) {
    PreTokenizer::Stage stage;
    CAIRN_ASSIGN_OR_RETURN(const std::string behavior, StringField(json, path, "behavior"));
    const auto* known = std::find_if(std::begin(kBehaviors), std::end(kBehaviors),
                                     [&](const auto& b) { return b.first == behavior; });
    if (known == std::end(kBehaviors)) {
      return FieldError(Path(path, "behavior"), absl::StrCat(behavior, " is not known"));
    }
    stage.behavior = known->second;
    CAIRN_ASSIGN_OR_RETURN(stage.invert, BoolField(json, path, "invert", false));
    const nlohmann::json* pattern = FindField(json, "pattern");
    const std::string where = Path(path, "pattern");
    if (pattern == nullptr || !pattern->is_object()) return FieldError(where, "must be an object");
    const bool regex = pattern->contains("Regex");
    CAIRN_ASSIGN_OR_RETURN(const std::string text,
                           StringField(*pattern, where, regex ? "Regex" : "String"));
    CAIRN_RETURN_IF_ERROR(
        SetPattern(stage, regex ? Pattern::Compile(text) : Pattern::Literal(text), where));
    plain_ = plain_ && regex && behavior == "Isolated" && !stage.invert;
    patterns_.push_back(text);
    result_.stages_.push_back(std::move(stage));
    return absl::OkStatus();
  }

  absl::Status AddByteLevel(const nlohmann::json& json, const std::string& path) {
    PreTokenizer::Stage stage;
    CAIRN_ASSIGN_OR_RETURN(stage.prefix_space, BoolField(json, path, "add_prefix_space", true));
    CAIRN_ASSIGN_OR_RETURN(const bool use_regex, BoolField(json, path, "use_regex", true));
    if (use_regex) {
      CAIRN_RETURN_IF_ERROR(SetPattern(stage, Pattern::Compile(kByteLevelPattern), path));
    }
    if (!use_regex && !stage.prefix_space) return absl::OkStatus();  // cuts nothing
    plain_ = false;
    result_.stages_.push_back(std::move(stage));
    return absl::OkStatus();
  }

  static absl::Status SetPattern(PreTokenizer::Stage& stage, absl::StatusOr<Pattern> pattern,
                                 const std::string& path) {
    if (!pattern.ok()) return FieldError(path, std::string(pattern.status().message()));
    stage.pattern = std::move(pattern).value();
    return absl::OkStatus();
  }

  bool IsDeepSeek() const {
    return plain_ && std::equal(patterns_.begin(), patterns_.end(), kDeepSeekPatterns.begin(),
                                kDeepSeekPatterns.end());
  }

  PreTokenizer result_;
  std::vector<std::string> patterns_;
  bool plain_ = true;  // nothing but Splits by regex, isolated
};

absl::StatusOr<PreTokenizer> PreTokenizer::Make(const nlohmann::json& json, bool scanner) {
  return PreTokenizerReader().Read(json, scanner);
}

absl::Status PreTokenizer::Cut(std::string_view text,
                               absl::FunctionRef<void(std::string_view)> emit) const {
  if (!scanner_) return CutFrom(0, text, emit);
  scanner_->Scan(text, emit);
  return absl::OkStatus();
}

absl::Status PreTokenizer::CutFrom(size_t stage, std::string_view piece,
                                   absl::FunctionRef<void(std::string_view)> emit) const {
  if (piece.empty()) return absl::OkStatus();
  if (stage == stages_.size()) {
    emit(piece);
    return absl::OkStatus();
  }
  const Stage& s = stages_[stage];
  std::string prefixed;
  if (s.prefix_space && piece.front() != ' ') {
    prefixed.append(1, ' ').append(piece);
    piece = prefixed;
  }
  if (!s.pattern) return CutFrom(stage + 1, piece, emit);
  CAIRN_ASSIGN_OR_RETURN(std::vector<Part> parts, Parts(*s.pattern, s.invert, piece));
  ApplyBehavior(s.behavior, parts);
  for (const Part& part : parts) {
    CAIRN_RETURN_IF_ERROR(
        CutFrom(stage + 1, piece.substr(part.begin, part.end - part.begin), emit));
  }
  return absl::OkStatus();
}

}  // namespace cairn::engine
