// cairn-replay: what each eviction policy would have hit of a trace.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cache/policy/eviction_policy.h"
#include "store/base/exit_codes.h"
#include "store/base/random.h"
#include "tools/cairn-replay/block_replay.h"
#include "tools/cairn-replay/byte_replay.h"
#include "tools/cairn-replay/store_replay.h"
#include "tools/cairn-replay/trace.h"

namespace cairn::replay {
namespace {

constexpr const char* kOracle = "oracle";

struct Arguments {
  std::string trace;
  std::vector<uint64_t> capacities = {500, 1000, 2000, 5000, 10000, 20000, 50000};
  std::vector<std::string> policies;
  std::vector<std::string> layouts;
  std::vector<std::string> checkpoints = {"full", "every:2048", "ends", "zero"};
  std::vector<uint64_t> capacities_bytes;
  uint64_t seed = 1;
  bool store = false;
  bool json = false;
};

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "cairn-replay: %s\n", std::string(status.message()).c_str());
  return kExitUsage;
}

absl::StatusOr<uint64_t> HitsOf(const Trace& trace, const std::string& policy, uint64_t capacity,
                                uint64_t seed) {
  std::fprintf(stderr, "cairn-replay: %s, %" PRIu64 " blocks\n", policy.c_str(), capacity);
  if (policy == kOracle) return OracleBlocks(trace, capacity);
  SeededRandom random(seed);
  auto made = cache::MakePolicy(policy, {.entries_expected = capacity, .random = &random});
  if (!made.ok()) return made.status();
  const Evictable evictable =
      policy == cache::kDefaultPolicy ? Evictable::kLeaves : Evictable::kAny;
  return ReplayBlocks(trace, capacity, evictable, **made);
}

int RunBlocks(const Arguments& arguments, const Trace& trace) {
  nlohmann::json rows = nlohmann::json::array();
  if (!arguments.json) {
    std::printf("%10s", "blocks");
    for (const std::string& policy : arguments.policies) std::printf(" %8s", policy.c_str());
    std::printf("\n");
  }
  for (const uint64_t capacity : arguments.capacities) {
    if (!arguments.json) std::printf("%10" PRIu64, capacity);
    for (const std::string& policy : arguments.policies) {
      const auto hits = HitsOf(trace, policy, capacity, arguments.seed);
      if (!hits.ok()) return Fail(hits.status());
      const double rate = static_cast<double>(*hits) / static_cast<double>(trace.blocks_requested);
      rows.push_back({{"capacity_blocks", capacity},
                      {"policy", policy},
                      {"hit_blocks", *hits},
                      {"requested_blocks", trace.blocks_requested},
                      {"hit_rate", rate}});
      if (!arguments.json) std::printf(" %8.4f", rate);
    }
    if (!arguments.json) std::printf("\n");
  }
  if (arguments.json) std::printf("%s\n", rows.dump(2).c_str());
  return kExitOk;
}

int RunBytes(const Arguments& arguments, const Trace& trace) {
  nlohmann::json rows = nlohmann::json::array();
  if (!arguments.json) {
    std::printf("%-6s %-16s %16s %-8s %14s %18s %10s\n", "layout", "checkpoints", "bytes", "policy",
                "hit_tokens", "recomputed_tokens", "hit_share");
  }
  for (const std::string& layout_name : arguments.layouts) {
    for (const std::string& checkpoints : arguments.checkpoints) {
      const auto layout = ReplayLayout::Make(layout_name, checkpoints);
      if (!layout.ok()) return Fail(layout.status());
      for (const uint64_t capacity : arguments.capacities_bytes) {
        for (const std::string& policy : arguments.policies) {
          if (policy == kOracle) continue;  // knows blocks of one size only
          std::fprintf(stderr, "cairn-replay: %s, %s, %s\n", layout_name.c_str(),
                       checkpoints.c_str(), policy.c_str());
          SeededRandom random(arguments.seed);
          const auto made = cache::MakePolicy(
              policy,
              {.entries_expected = capacity / layout->block_rows_bytes + 1, .random = &random});
          if (!made.ok()) return Fail(made.status());
          const TokenCounts counts = ReplayBytes(trace, *layout, capacity, **made);
          rows.push_back({{"layout", layout_name},
                          {"checkpoints", checkpoints},
                          {"capacity_bytes", capacity},
                          {"policy", policy},
                          {"hit_tokens", counts.hit},
                          {"recomputed_tokens", counts.recomputed}});
          if (!arguments.json) {
            std::printf("%-6s %-16s %16" PRIu64 " %-8s %14" PRIu64 " %18" PRIu64 " %10.4f\n",
                        layout_name.c_str(), checkpoints.c_str(), capacity, policy.c_str(),
                        counts.hit, counts.recomputed,
                        static_cast<double>(counts.hit) /
                            static_cast<double>(counts.hit + counts.recomputed));
          }
        }
      }
    }
  }
  if (arguments.json) std::printf("%s\n", rows.dump(2).c_str());
  return kExitOk;
}

int RunStore(const Arguments& arguments, const Trace& trace) {
  nlohmann::json rows = nlohmann::json::array();
  if (!arguments.json) {
    std::printf("%10s %-8s %9s %20s %16s\n", "blocks", "policy", "hit_rate", "write_amplification",
                "used_share_max");
  }
  for (const uint64_t capacity : arguments.capacities) {
    for (const std::string& policy : arguments.policies) {
      if (policy == kOracle) continue;
      std::fprintf(stderr, "cairn-replay: store, %s, %" PRIu64 " blocks\n", policy.c_str(),
                   capacity);
      const auto result = ReplayStore(trace, capacity, policy, arguments.seed);
      if (!result.ok()) return Fail(result.status());
      const double used =
          static_cast<double>(result->used_bytes_max) / static_cast<double>(result->capacity_bytes);
      rows.push_back({{"capacity_blocks", capacity},
                      {"policy", policy},
                      {"hit_rate", result->hit_rate()},
                      {"write_amplification", result->write_amplification()},
                      {"put_bytes", result->put_bytes},
                      {"moved_bytes", result->moved_bytes},
                      {"used_bytes_max", result->used_bytes_max},
                      {"capacity_bytes", result->capacity_bytes}});
      if (!arguments.json) {
        std::printf("%10" PRIu64 " %-8s %9.4f %20.3f %16.3f\n", capacity, policy.c_str(),
                    result->hit_rate(), result->write_amplification(), used);
      }
    }
  }
  if (arguments.json) std::printf("%s\n", rows.dump(2).c_str());
  return kExitOk;
}

absl::Status Check(Arguments& arguments) {
  std::vector<std::string> known = cache::PolicyNames();
  known.push_back(kOracle);
  if (arguments.store && arguments.policies.empty()) arguments.policies = cache::PolicyNames();
  if (arguments.policies.empty()) arguments.policies = known;
  for (std::string& policy : arguments.policies) {
    if (policy == "ours") policy = cache::kDefaultPolicy;
    if (std::find(known.begin(), known.end(), policy) == known.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--policy ", policy, " is not known; use ours, ", absl::StrJoin(known, ", ")));
    }
  }
  for (const auto* capacities : {&arguments.capacities, &arguments.capacities_bytes}) {
    for (const uint64_t capacity : *capacities) {
      if (capacity == 0) return absl::InvalidArgumentError("a capacity must be at least 1");
    }
  }
  if (arguments.layouts.empty() != arguments.capacities_bytes.empty()) {
    return absl::InvalidArgumentError("--layout and --capacity-bytes go together");
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Replays a trace in Mooncake's format through the daemon's eviction policies.");
  app.add_option("trace", arguments.trace, "one JSON object a line")->required();
  app.add_option("--capacity", arguments.capacities, "blocks of the trace, e.g. 500,1000,5000")
      ->delimiter(',');
  app.add_option("--policy", arguments.policies, "ours, fifo, lru, lfu, s3fifo, oracle")
      ->delimiter(',');
  app.add_option("--layout", arguments.layouts, "flash, pro: entries in bytes")->delimiter(',');
  app.add_option("--checkpoints", arguments.checkpoints,
                 "zero, or full, every:N and ends joined by +")
      ->delimiter(',');
  app.add_option("--capacity-bytes", arguments.capacities_bytes, "with --layout")->delimiter(',');
  app.add_flag("--store", arguments.store,
               "through the daemon's core and tiers, on files in memory; no oracle");
  app.add_option("--seed", arguments.seed, "of the policy's randomness");
  app.add_flag("--json", arguments.json, "one array of objects");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  const absl::Status checked = Check(arguments);
  if (!checked.ok()) return Fail(checked);
  const auto trace = ReadTrace(arguments.trace);
  if (!trace.ok()) return Fail(trace.status());
  if (arguments.store) return RunStore(arguments, *trace);
  return arguments.layouts.empty() ? RunBlocks(arguments, *trace) : RunBytes(arguments, *trace);
}

}  // namespace
}  // namespace cairn::replay

int main(int argc, char** argv) { return cairn::replay::Main(argc, argv); }
