// kill_campaign: kills a real cairnd at every named point and at random moments, and looks whether
// it kept its promises (store/PROMISES.md). Progress and trouble on stderr; the last line on stdout
// is JSON with the counts, for tools/verify.sh and tests/campaign.sh.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "store/base/clock.h"
#include "store/base/exit_codes.h"
#include "store/base/random.h"
#include "tests/crash/trial.h"

namespace cairn::crash {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;

struct Flags {
  std::string daemon;
  std::string work;
  uint64_t seed = 0;
  uint64_t kills = 0;
  uint64_t seconds = 0;
  // Of one round, beside every point once.
  uint64_t random = 50, deep = 20, idle = 3, catalog = 5;
  std::string trial;
  uint64_t trial_seed = 0;
};

std::string NameOf(const Trial& trial) {
  switch (trial.kind) {
    case TrialKind::kPoint:
      return std::string(kFaultPoints[static_cast<size_t>(trial.point)].text);
    case TrialKind::kRandom:
      return "random";
    case TrialKind::kDouble:
      return "double";
    case TrialKind::kIdle:
      return "idle";
    case TrialKind::kCatalog:
      return "catalog";
  }
  return "";
}

std::optional<Trial> TrialNamed(const std::string& name, uint64_t seed) {
  std::vector<Trial> all;
  for (const FaultPointInfo& info : kFaultPoints) all.push_back({TrialKind::kPoint, info.point});
  for (const TrialKind kind :
       {TrialKind::kRandom, TrialKind::kDouble, TrialKind::kIdle, TrialKind::kCatalog}) {
    all.push_back({.kind = kind});
  }
  for (Trial& trial : all) {
    trial.seed = seed;
    if (NameOf(trial) == name) return trial;
  }
  return std::nullopt;
}

class Campaign {
 public:
  explicit Campaign(const Flags& flags)
      : flags_(flags),
        random_(flags.seed),
        prepared_{flags.daemon, flags.work + "/prepared"},
        place_{flags.daemon, flags.work + "/trial"} {}

  int Run() {
    std::fprintf(stderr, "kill_campaign: seed %llu, %zu points, work in %s\n",
                 static_cast<unsigned long long>(flags_.seed), kFaultPoints.size(),
                 flags_.work.c_str());
    began_ = RealClock().NowNanos();
    if (const absl::Status made = PrepareStore(prepared_, flags_.seed, oracle_); !made.ok()) {
      std::fprintf(stderr, "kill_campaign: no store to start from: %s; log in %s\n",
                   made.ToString().c_str(), prepared_.log().c_str());
      return kExitFailure;
    }
    if (!flags_.trial.empty()) {
      RunOne(*TrialNamed(flags_.trial, flags_.trial_seed));
    } else {
      do RunRound();
      while (total_.kills < flags_.kills && !OutOfTime());
    }
    Report();
    if (failed_ != 0) return kExitFailure;
    std::error_code ignored;
    std::filesystem::remove_all(flags_.work, ignored);
    return kExitOk;
  }

 private:
  std::vector<Trial> OneRound() {
    std::vector<Trial> trials;
    for (const FaultPointInfo& info : kFaultPoints) {
      trials.push_back({TrialKind::kPoint, info.point});
    }
    const auto add = [&trials](TrialKind kind, uint64_t count) {
      for (uint64_t i = 0; i < count; ++i) trials.push_back({.kind = kind});
    };
    add(TrialKind::kRandom, flags_.random);
    add(TrialKind::kDouble, flags_.deep);
    add(TrialKind::kIdle, flags_.idle);
    add(TrialKind::kCatalog, flags_.catalog);
    for (Trial& trial : trials) trial.seed = random_.Next() >> 16;  // short enough to type
    // So that a round that is cut short has some of each.
    for (size_t i = trials.size(); i > 1; --i) {
      std::swap(trials[i - 1], trials[random_.Next() % i]);
    }
    return trials;
  }

  void RunRound() {
    for (const Trial& trial : OneRound()) {
      if (OutOfTime()) return;
      RunOne(trial);
    }
  }

  void RunOne(const Trial& trial) {
    const absl::StatusOr<TrialResult> result = RunTrial(trial, prepared_, place_, oracle_);
    ++trials_;
    if (!result.ok()) {
      Fail(trial, result.status());
    } else {
      Add(trial, *result);
    }
    const int64_t now = RealClock().NowNanos();
    if (now - said_ < 5 * kNanosPerSecond) return;
    said_ = now;
    std::fprintf(stderr, "kill_campaign: %lld s, %llu trials, %llu kills, %llu broken\n",
                 static_cast<long long>((now - began_) / kNanosPerSecond),
                 static_cast<unsigned long long>(trials_),
                 static_cast<unsigned long long>(total_.kills),
                 static_cast<unsigned long long>(failed_));
  }

  void Fail(const Trial& trial, const absl::Status& status) {
    const std::string kept = absl::StrCat(flags_.work, "/broken-", ++failed_);
    std::error_code ignored;
    std::filesystem::rename(place_.work, kept, ignored);
    std::fprintf(stderr,
                 "kill_campaign: BROKEN at %s: %s\n  kept in %s; again: kill_campaign --daemon %s "
                 "--seed %llu --trial %s --trial-seed %llu\n",
                 NameOf(trial).c_str(), status.ToString().c_str(), kept.c_str(),
                 flags_.daemon.c_str(), static_cast<unsigned long long>(flags_.seed),
                 NameOf(trial).c_str(), static_cast<unsigned long long>(trial.seed));
  }

  void Add(const Trial& trial, const TrialResult& result) {
    total_.kills += result.kills;
    total_.kills_at_start += result.kills_at_start;
    total_.operations += result.operations;
    total_.bytes_verified += result.bytes_verified + result.audit.bytes;
    total_.audit.certain += result.audit.certain;
    total_.audit.missing += result.audit.missing;
    total_.audit.entries += result.audit.entries;
    total_.sealed_before += result.sealed_before;
    total_.sealed_after += result.sealed_after;
    if (trial.kind == TrialKind::kPoint) killed_at_.insert(trial.point);
    if (result.first_hit_nanos != 0) first_hits_.push_back(result.first_hit_nanos);
  }

  bool OutOfTime() const {
    const auto limit = static_cast<int64_t>(flags_.seconds) * kNanosPerSecond;
    return limit != 0 && RealClock().NowNanos() - began_ >= limit;
  }

  void Report() {
    std::sort(first_hits_.begin(), first_hits_.end());
    const auto millis = [this](size_t per_cent) {
      return first_hits_.empty()
                 ? 0
                 : first_hits_[(first_hits_.size() - 1) * per_cent / 100] / 1'000'000;
    };
    const nlohmann::ordered_json line = {{"attack", "kills"},
                                         {"seed", flags_.seed},
                                         {"trials", trials_},
                                         {"failed", failed_},
                                         {"counts",
                                          {{"kills", total_.kills},
                                           {"kills at start", total_.kills_at_start},
                                           {"points killed at", killed_at_.size()},
                                           {"points", kFaultPoints.size()},
                                           {"operations", total_.operations},
                                           {"acknowledged entries", total_.audit.certain},
                                           {"of these evicted", total_.audit.missing},
                                           {"entries compared", total_.audit.entries},
                                           {"bytes compared", total_.bytes_verified},
                                           {"sealed entries before kill", total_.sealed_before},
                                           {"served again", total_.sealed_after},
                                           {"first hit p50 ms", millis(50)},
                                           {"first hit max ms", millis(100)}}},
                                         {"result", failed_ == 0 ? "pass" : "fail"}};
    std::printf("%s\n", line.dump().c_str());
  }

  const Flags flags_;
  SeededRandom random_;
  const DaemonPlace prepared_;
  const DaemonPlace place_;
  Oracle oracle_;  // of the prepared store
  TrialResult total_;
  std::set<FaultPoint> killed_at_;
  std::vector<int64_t> first_hits_;
  uint64_t trials_ = 0;
  uint64_t failed_ = 0;
  int64_t began_ = 0;
  int64_t said_ = 0;
};

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app(
      "kill_campaign: kills cairnd at named points and at random, and checks its promises");
  app.add_option("--daemon", flags.daemon, "cairnd built with fault points")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--work", flags.work,
                 "folder to work in, made anew [a new one for temporary files]");
  auto* seed = app.add_option("--seed", flags.seed, "[drawn]");
  app.add_option("--kills", flags.kills,
                 "rounds until so many; a round is every point once and more");
  app.add_option("--seconds", flags.seconds, "no new trial after so long");
  app.add_option("--random", flags.random, "kills at random moments in a round")
      ->capture_default_str();
  app.add_option("--double", flags.deep, "kills at several starts in a row")->capture_default_str();
  app.add_option("--idle", flags.idle, "kills of a full store at rest")->capture_default_str();
  app.add_option("--catalog", flags.catalog, "kills after which the catalog is deleted")
      ->capture_default_str();
  app.add_option("--trial", flags.trial,
                 "one trial only: a point's name, random, double, idle, catalog")
      ->check([](const std::string& name) {
        return TrialNamed(name, 0).has_value() ? "" : "no such trial: " + name;
      });
  app.add_option("--trial-seed", flags.trial_seed, "its seed");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (seed->count() == 0) flags.seed = SystemRandom().Next() >> 32;
  if (flags.work.empty()) {
    flags.work = (std::filesystem::temp_directory_path() / absl::StrCat("cairn-kills.", ::getpid()))
                     .string();
  }
  return Campaign(flags).Run();
}

}  // namespace
}  // namespace cairn::crash

int main(int argc, char** argv) { return cairn::crash::Main(argc, argv); }
