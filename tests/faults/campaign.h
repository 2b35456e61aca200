// campaign.h: what all fault campaigns share: a command line, one process for each case, one line
// of JSON with counts at the end.
//
//   power_cuts --seeds 1..20000 --seconds 3600
//
// A case is decided by its number alone, so the number that failed is the way to see it again:
// `--seeds 17..17`. Each runs in a child of its own: it begins from the same memory whatever ran
// before (with the same addresses, where the machine lets us ask for them: absl's tables walk in an
// order that depends on them), and if it dies or hangs, that is its own failure.
//
// Threads: one. Errors: a case ends by returning, or by Fail, which never returns.
#ifndef CAIRN_TESTS_FAULTS_CAMPAIGN_H_
#define CAIRN_TESTS_FAULTS_CAMPAIGN_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace cairn::faults {

using Counts = std::map<std::string, uint64_t>;

// Of the case that runs: says what is wrong and ends its process.
[[noreturn]] void Fail(const std::string& what);
// Fail unless.
inline void Expect(bool holds, const std::string& what) {
  if (!holds) Fail(what);
}

class Campaign {
 public:
  // `last` is the default of --seeds 1..last. With `exact`, cases are numbered 1 to `last` and
  // there are no others.
  Campaign(std::string name, uint64_t last, bool exact = false);

  // For the flags of one program.
  CLI::App& app() { return app_; }

  // Runs the cases that the command line asks for. Returns the exit status.
  int Run(int argc, char** argv, const std::function<void(uint64_t seed, Counts& counts)>& one);

  bool verbose() const { return verbose_; }

 private:
  struct Outcome {
    Counts counts;
    std::string failure;  // empty: none
  };
  bool ReadSeeds();
  Outcome RunOne(uint64_t seed, const std::function<void(uint64_t, Counts&)>& one) const;
  int Report(const Counts& counts, uint64_t runs, uint64_t failures) const;

  const std::string name_;
  const uint64_t last_;
  const bool exact_;
  CLI::App app_;
  std::string seeds_text_;
  std::string seeds_file_;
  double seconds_ = 0;
  uint32_t hang_seconds_ = 120;
  bool twice_ = false;
  bool verbose_ = false;
  bool expect_failure_ = false;
  std::vector<std::pair<uint64_t, uint64_t>> ranges_;
};

}  // namespace cairn::faults

#endif  // CAIRN_TESTS_FAULTS_CAMPAIGN_H_
