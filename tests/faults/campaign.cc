#include "tests/faults/campaign.h"

#include <sys/personality.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "store/base/clock.h"
#include "store/base/exit_codes.h"

namespace cairn::faults {
namespace {

constexpr uint64_t kFailuresShown = 10;
constexpr int kFailed = kExitFailure;

// Where a child tells of itself; -1 in the parent.
int report_pipe = -1;

void Tell(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t written = ::write(report_pipe, text.data() + at, text.size() - at);
    if (written <= 0) std::_Exit(kFailed);
    at += static_cast<size_t>(written);
  }
}

std::string ReadAll(int pipe) {
  std::string all;
  char buffer[4096];
  while (true) {
    const ssize_t got = ::read(pipe, buffer, sizeof(buffer));
    if (got <= 0) return all;
    all.append(buffer, static_cast<size_t>(got));
  }
}

bool ParseNumber(std::string_view text, uint64_t& number) {
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && stop == text.data() + text.size();
}

// "A..B", or "A" alone.
bool ParseRange(std::string_view text, std::pair<uint64_t, uint64_t>& range) {
  const size_t dots = text.find("..");
  if (!ParseNumber(text.substr(0, dots), range.first)) return false;
  if (dots == std::string_view::npos) {
    range.second = range.first;
    return true;
  }
  return ParseNumber(text.substr(dots + 2), range.second) && range.first <= range.second;
}

// Starts the program again with the same addresses as every other run. False where that is not
// allowed: then a case is still decided by its number, but for the order in which tables are
// walked.
bool FixAddresses(char** argv) {
  const int now = ::personality(0xffffffff);
  if (now < 0) return false;
  if ((now & ADDR_NO_RANDOMIZE) != 0) return true;
  if (::personality(static_cast<unsigned long>(now) | ADDR_NO_RANDOMIZE) < 0) return false;
  ::execv("/proc/self/exe", argv);
  return false;
}

}  // namespace

void Fail(const std::string& what) {
  if (report_pipe < 0) {
    std::fprintf(stderr, "%s\n", what.c_str());
  } else {
    Tell("failed " + what);
  }
  std::_Exit(kFailed);
}

Campaign::Campaign(std::string name, uint64_t last, bool exact)
    : name_(std::move(name)), last_(last), exact_(exact), app_(name_) {
  app_.add_option("--seeds", seeds_text_,
                  "cases to run: A..B (default 1.." + std::to_string(last) + ")");
  app_.add_option("--seeds-file", seeds_file_,
                  "more of them: one A or A..B a line, # begins a comment");
  app_.add_option("--seconds", seconds_, "stop after this time; 0: never");
  app_.add_option("--hang-seconds", hang_seconds_, "a case that takes longer has failed");
  app_.add_flag("--twice", twice_, "run each case twice: both must count the same");
  app_.add_flag("--expect-failure", expect_failure_, "stop at the first failure, which is success");
  app_.add_flag("--verbose", verbose_, "tell what happens");
}

bool Campaign::ReadSeeds() {
  std::pair<uint64_t, uint64_t> range;
  if (!seeds_text_.empty()) {
    if (!ParseRange(seeds_text_, range)) return false;
    ranges_.push_back(range);
  }
  if (!seeds_file_.empty()) {
    std::ifstream file(seeds_file_);
    if (!file) return false;
    for (std::string line; std::getline(file, line);) {
      line = line.substr(0, line.find('#'));
      line.erase(line.find_last_not_of(" \t") + 1);
      if (line.empty()) continue;
      if (!ParseRange(line, range)) return false;
      ranges_.push_back(range);
    }
  } else if (seeds_text_.empty()) {
    ranges_.emplace_back(1, last_);
  }
  for (auto& [first, last] : ranges_) {
    if (exact_) last = std::min(last, last_);
  }
  return true;
}

Campaign::Outcome Campaign::RunOne(uint64_t seed,
                                   const std::function<void(uint64_t, Counts&)>& one) const {
  int ends[2];
  if (::pipe(ends) != 0) return {{}, "no pipe to a child"};
  const pid_t child = ::fork();
  if (child < 0) return {{}, "no child"};
  if (child == 0) {
    ::close(ends[0]);
    report_pipe = ends[1];
    ::alarm(hang_seconds_);
    Counts counts;
    one(seed, counts);
    std::string text;
    for (const auto& [name, count] : counts) {
      text += name + " " + std::to_string(count) + "\n";
    }
    Tell("counted\n" + text);
    std::exit(kExitOk);  // not _Exit: a leak is looked for on the way out
  }
  ::close(ends[1]);
  std::string text = ReadAll(ends[0]);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  Outcome outcome;
  if (text.starts_with("failed ")) {
    outcome.failure = text.substr(7);
  } else if (WIFSIGNALED(status)) {
    outcome.failure = WTERMSIG(status) == SIGALRM
                          ? "did not end within " + std::to_string(hang_seconds_) + " s"
                          : "died of signal " + std::to_string(WTERMSIG(status));
  } else if (WEXITSTATUS(status) != kExitOk) {
    outcome.failure = "ended with status " + std::to_string(WEXITSTATUS(status));
  } else {
    std::istringstream lines(text.substr(text.find('\n') + 1));
    std::string name;
    for (uint64_t count = 0; lines >> name >> count;) outcome.counts[name] = count;
  }
  return outcome;
}

int Campaign::Run(int argc, char** argv,
                  const std::function<void(uint64_t seed, Counts& counts)>& one) {
  CLI11_PARSE(app_, argc, argv);
  if (!ReadSeeds()) {
    std::fprintf(stderr, "%s: --seeds is A..B, --seeds-file holds such lines\n", name_.c_str());
    return kExitUsage;
  }
  const bool exact_replay = FixAddresses(argv);
  if (!exact_replay) {
    std::fprintf(stderr,
                 "%s: addresses differ from run to run here, and so may the order in which "
                 "tables are walked\n",
                 name_.c_str());
  }
  const int64_t start = RealClock().NowNanos();
  const auto over = [&] {
    return seconds_ > 0 && static_cast<double>(RealClock().NowNanos() - start) / 1e9 > seconds_;
  };
  Counts sum;
  uint64_t runs = 0;
  uint64_t failures = 0;
  for (const auto& [first, last] : ranges_) {
    for (uint64_t seed = first; seed <= last && !over(); ++seed) {
      Outcome outcome = RunOne(seed, one);
      if (twice_ && outcome.failure.empty() && RunOne(seed, one).counts != outcome.counts) {
        outcome.failure = "a second run of the same case went another way";
      }
      ++runs;
      for (const auto& [name, count] : outcome.counts) sum[name] += count;
      if (outcome.failure.empty()) continue;
      if (++failures <= kFailuresShown) {
        std::fprintf(stderr, "%s: case %lu failed: %s\n  again: %s --seeds %lu..%lu --verbose\n",
                     name_.c_str(), seed, outcome.failure.c_str(), name_.c_str(), seed, seed);
      }
      if (expect_failure_) return Report(sum, runs, failures);
    }
  }
  return Report(sum, runs, failures);
}

int Campaign::Report(const Counts& counts, uint64_t runs, uint64_t failures) const {
  const bool passed = (failures > 0) == expect_failure_ && runs > 0;
  nlohmann::ordered_json line;  // as tests/attacks.txt wants it
  line["attack"] = name_;
  line["seed"] = seeds_file_.empty() || !seeds_text_.empty()
                     ? absl::StrCat(ranges_.back().first, "..", ranges_.back().second)
                     : seeds_file_;
  line["trials"] = runs;
  line["failed"] = failures;
  line["counts"] = counts;
  line["result"] = passed ? "pass" : "fail";
  std::printf("%s\n", line.dump().c_str());
  return passed ? kExitOk : kFailed;
}

}  // namespace cairn::faults
