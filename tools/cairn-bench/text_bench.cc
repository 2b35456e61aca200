// Text to tokens on one core: DeepSeek's cutting, by its own scanner and by PCRE2 alone. The text
// is this tree's sources, its licence, and the chat cases (Chinese), with the tests' tokenizer.
#include <algorithm>
#include <filesystem>
#include <memory>

#include "engine/model/file_io.h"
#include "engine/text/hf_tokenizer.h"
#include "store/base/clock.h"
#include "tools/cairn-bench/benches.h"

namespace cairn::bench {
namespace {

constexpr char kTokenizerFile[] = "engine/text/testdata/tokenizer.json";
constexpr uint64_t kFileBytesMax = 16 << 20;
constexpr size_t kBytesAMeasure = 16 << 20;

absl::StatusOr<std::string> TreeText() {
  std::vector<std::string> paths = {"LICENSE"};
  for (const auto& entry : std::filesystem::recursive_directory_iterator("engine")) {
    const std::string suffix = entry.path().extension();
    if (suffix == ".cc" || suffix == ".h" || suffix == ".md" || suffix == ".txt") {
      paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  std::string text;
  for (const std::string& path : paths) {
    CAIRN_ASSIGN_OR_RETURN(const std::string file, engine::ReadWholeFile(path, kFileBytesMax));
    text += file;
  }
  return text;
}

absl::StatusOr<Contender> Encoder(const char* name, Role role, bool scanner,
                                  std::shared_ptr<const std::string> text) {
  CAIRN_ASSIGN_OR_RETURN(const std::string file,
                         engine::ReadWholeFile(kTokenizerFile, kFileBytesMax));
  CAIRN_ASSIGN_OR_RETURN(engine::TokenizerParts parts, engine::ParseTokenizerFile(file, scanner));
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Tokenizer> made,
                         engine::HfTokenizer::Make(std::move(parts), 1 << 20));
  const std::shared_ptr<const engine::Tokenizer> tokenizer = std::move(made);
  const auto measure = [tokenizer, text]() -> absl::StatusOr<double> {
    const int64_t start = RealClock().NowNanos();
    size_t bytes = 0;
    for (; bytes < kBytesAMeasure; bytes += text->size()) {
      CAIRN_RETURN_IF_ERROR(tokenizer->Encode(*text).status());
    }
    return static_cast<double>(bytes) * 1e3 / static_cast<double>(RealClock().NowNanos() - start);
  };
  return Contender{name, role, measure};
}

absl::StatusOr<Prepared> PrepareTokenize(const BenchContext&) {
  Prepared prepared;
  if (!engine::FileExists(kTokenizerFile)) {
    return absl::FailedPreconditionError("is measured on this tree: run it from the tree's root");
  }
  CAIRN_ASSIGN_OR_RETURN(std::string tree, TreeText());
  const auto text = std::make_shared<const std::string>(std::move(tree));
  CAIRN_ASSIGN_OR_RETURN(Contender ours, Encoder("scanner", Role::kOurs, true, text));
  CAIRN_ASSIGN_OR_RETURN(Contender pcre, Encoder("PCRE2 alone", Role::kRival, false, text));
  prepared.contenders = {std::move(ours), std::move(pcre)};
  return prepared;
}

}  // namespace

void AddTextBenches(std::vector<Bench>& benches) {
  benches.push_back({.name = "tokenize",
                     .what = "text to DeepSeek's tokens on one core",
                     .unit = "MB/s",
                     .figure_bound = 10,
                     .prepare = PrepareTokenize});
}

}  // namespace cairn::bench
