#include "tools/cairn-bench/fio.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace cairn::bench {
namespace {

constexpr int kTrials = 3;

// fio allocates its buffers; this has the C library ask for huge pages, which need no reservation.
constexpr char kHugePages[] = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 ";

// Runs fio as a child and returns its bandwidth, GB/s.
absl::StatusOr<double> RunFio(const std::string& environment, const std::string& arguments,
                              const std::string& direction) {
  const std::string command = environment +
                              "fio --name=limit --output-format=json --direct=1 "
                              "--ioengine=io_uring --registerfiles " +
                              arguments + " 2>/dev/null";
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return absl::UnavailableError("fio does not start");
  std::string text;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) text.append(buffer, n);
  ::pclose(pipe);
  const size_t begin = text.find('{');
  const nlohmann::json report =
      nlohmann::json::parse(begin == std::string::npos ? "" : text.substr(begin), nullptr, false);
  if (report.is_discarded() || !report.contains("jobs")) {
    return absl::UnavailableError("fio gave no report: " + text.substr(0, 200));
  }
  const double bytes_a_second = report["jobs"][0][direction].value("bw_bytes", 0.0);
  if (bytes_a_second <= 0) return absl::UnavailableError("fio moved no bytes");
  return bytes_a_second / 1e9;
}

struct Way {
  std::string environment, arguments, name;
  std::vector<double> figures = {};
};

}  // namespace

absl::Status AddFio(const FioJob& job, Prepared& prepared) {
  if (::system("fio --version >/dev/null 2>&1") != 0) {
    prepared.left_out.push_back("fio: not installed");
    return absl::OkStatus();
  }
  std::vector<Way> ways;
  for (const std::string& way : job.ways) {
    ways.push_back({"", job.arguments + " " + way, way});
    ways.push_back({kHugePages, job.arguments + " " + way, way + " huge pages"});
  }
  for (int trial = 0; trial < kTrials; ++trial) {
    for (Way& way : ways) {
      CAIRN_ASSIGN_OR_RETURN(const double figure,
                             RunFio(way.environment, way.arguments, job.direction));
      way.figures.push_back(figure);
    }
  }
  const Way& best = *std::max_element(ways.begin(), ways.end(), [](const Way& a, const Way& b) {
    return SpreadOf(a.figures).median < SpreadOf(b.figures).median;
  });
  prepared.contenders.push_back(
      {"fio, the best of " + std::to_string(ways.size()) + ": " + best.name, Role::kLimit,
       [best, direction = job.direction] {
         return RunFio(best.environment, best.arguments, direction);
       }});
  return absl::OkStatus();
}

}  // namespace cairn::bench
