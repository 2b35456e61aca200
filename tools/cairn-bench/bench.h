// bench.h: comparisons of what we do with what the machine can do and with what others do.
//
// A comparison has contenders: one limit (what the hardware or the bare transport gives), ours, and
// rivals. They are measured in turn, round after round, so that a machine whose speed drifts drifts
// for all of them; the ratio is made within each round, and its median and range are reported.
//
// Threads:   one.
// Ownership: contenders own their fixtures (shared_ptr in the closure); they are dropped before the
//            next comparison is prepared.
// Units:     of the figure, in Bench::unit ("GB/s" is 1e9 bytes a second; "us").
// Errors:    a contender that cannot run here (a rival that is not installed) is left out by
//            prepare and said in `left_out`; a measurement that fails ends its comparison.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_BENCH_H_
#define CAIRN_TOOLS_CAIRN_BENCH_BENCH_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "store/base/status.h"

namespace cairn::bench {

enum class Role : uint8_t { kLimit, kOurs, kRival };

struct Contender {
  std::string name;
  Role role = Role::kOurs;
  // One measurement, about a second long; the figure in the bench's unit.
  std::function<absl::StatusOr<double>()> measure;
};

struct Prepared {
  std::vector<Contender> contenders;  // exactly one limit unless the bench has a fixed bound
  std::vector<std::string> left_out;  // "redis-server: not installed"
};

// Where and how large. Every bench scales to `scratch_bytes_max`.
struct BenchContext {
  std::string directory = {};  // on the file system to measure; emptied afterwards
  uint64_t scratch_bytes_max = 4ull << 30;
  bool huge_pages = false;  // gpu-model: cairnd --huge-pages on
};

struct Bench {
  std::string name = {};  // "host-hit"
  std::string what = {};  // one line, with the sizes
  std::string unit;
  bool higher_is_better = true;
  // Of ours over the limit's figure: at least this (higher is better) or at most this. 0: none.
  double ratio_bound = 0;
  // Without a limit to stand beside: a bound on our figure itself. 0: none.
  double figure_bound = 0;
  std::function<absl::StatusOr<Prepared>(const BenchContext&)> prepare = {};
};

// Every comparison of this program, in the order of the report.
std::vector<Bench> AllBenches();

struct Spread {
  double median = 0, low = 0, high = 0;
};
Spread SpreadOf(std::vector<double> figures);

struct ContenderResult {
  std::string name = {};
  Role role = Role::kOurs;
  std::vector<double> figures = {};         // one a round
  std::optional<Spread> ours_to_this = {};  // ratio ours / this, made round by round; none for ours
};

struct BenchResult {
  std::string name = {}, what = {}, unit = {};
  bool higher_is_better = true;
  double ratio_bound = 0, figure_bound = 0;
  std::vector<ContenderResult> contenders = {};
  std::vector<std::string> left_out = {};
  std::string error = {};         // empty: measured
  std::optional<bool> held = {};  // whether the bound was held by the median; none without a bound
};

BenchResult RunBench(const Bench& bench, const BenchContext& context, int rounds);

// For people, and for programs (one JSON object, with the machine it ran on).
std::string ToTable(const std::vector<BenchResult>& results);
std::string ToJson(const std::vector<BenchResult>& results);

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_BENCH_H_
