// cairn-bench: ours beside the limit and the rivals, in one run.
// Exit status: 0 all bounds held, 1 one was missed or could not be measured, 2 usage.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "tools/cairn-bench/bare_call.h"
#include "tools/cairn-bench/bench.h"
#include "tools/cairn-bench/resume_bench.h"
#include "tools/cairn-bench/wire_server.h"

namespace {

using cairn::bench::Bench;
using cairn::bench::BenchResult;

bool Wanted(const Bench& bench, const std::vector<std::string>& only) {
  return only.empty() || std::find(only.begin(), only.end(), bench.name) != only.end();
}

}  // namespace

int main(int argc, char** argv) {
  // This program again, as the other side of a comparison.
  if (argc == 3 && argv[1] == std::string(cairn::bench::kBareServe)) {
    return cairn::bench::BareServe(argv[2]);
  }
  if (argc == 3 && argv[1] == std::string(cairn::bench::kWireServe)) {
    return cairn::bench::WireServe(argv[2]);
  }
  if (argc > 1 && argv[1] == std::string(cairn::bench::kResumeCommand)) {
    return cairn::bench::ResumeBench(argc - 1, argv + 1);
  }
  CLI::App app(
      "Measures the limit, ours and the rivals in turn and prints medians and ratios. "
      "`cairn-bench resume --help`: the ways to resume, over lengths and bandwidths.");
  std::vector<std::string> only;
  int rounds = 5;
  bool json = false, list = false;
  cairn::bench::BenchContext context{.directory = "."};
  app.add_option("names", only, "comparisons to run (default: all; --list shows them)");
  app.add_option("--rounds", rounds, "rounds of each comparison")->check(CLI::Range(1, 1000));
  app.add_option("--dir", context.directory, "a folder on the disk to measure")
      ->check(CLI::ExistingDirectory);
  app.add_flag("--huge-pages", context.huge_pages, "gpu-model: cairnd --huge-pages on");
  app.add_flag("--json", json, "print JSON");
  app.add_flag("--list", list, "list the comparisons and end");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const std::vector<Bench> benches = cairn::bench::AllBenches();
  if (list) {
    for (const Bench& bench : benches) {
      std::printf("%-20s %s\n", bench.name.c_str(), bench.what.c_str());
    }
    return 0;
  }
  for (const std::string& name : only) {
    if (std::none_of(benches.begin(), benches.end(),
                     [&](const Bench& bench) { return bench.name == name; })) {
      std::fprintf(stderr, "cairn-bench: no comparison is called %s; --list shows them\n",
                   name.c_str());
      return 2;
    }
  }
  const std::string scratch =
      context.directory + "/cairn-bench-" + std::to_string(static_cast<long>(::getpid()));
  context.directory = scratch;
  std::vector<BenchResult> results;
  for (const Bench& bench : benches) {
    if (!Wanted(bench, only)) continue;
    std::filesystem::create_directory(scratch);
    results.push_back(cairn::bench::RunBench(bench, context, rounds));
    std::filesystem::remove_all(scratch);
  }
  std::fputs((json ? cairn::bench::ToJson(results) : cairn::bench::ToTable(results)).c_str(),
             stdout);
  const bool held = std::all_of(results.begin(), results.end(), [](const BenchResult& r) {
    return r.error.empty() && r.held.value_or(true);
  });
  return held ? 0 : 1;
}
