#include "tools/cairn-bench/resume_bench.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_format.h"
#include "engine/cairn_engine/run_sequence.h"
#include "engine/model/maker.h"
#include "engine/model/presets.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "tools/cairn-bench/bench.h"
#include "tools/cairn-bench/host_fixture.h"
#include "tools/cairn-bench/slow_cache.h"

namespace cairn::bench {
namespace {

using engine::PrefixCache;
using engine::SequenceResult;

// A hit is never slower than a prefill: by so much, measured.
constexpr double kRatioMax = 1.02;
// What a request asks behind the prefix.
constexpr int64_t kTailTokens = 64;
// Short prefills are measured so often again that these many tokens go by.
constexpr int64_t kRepeatTokens = 32768;
constexpr int64_t kRepeatsMax = 40;
constexpr char kPrefill[] = "prefill";

struct Options {
  std::string preset = "nano";
  std::vector<int64_t> lengths = {128, 512, 2048, 8192, 32768};
  std::vector<double> megabytes = {100, 10, 3, 1};
  int rounds = 3;
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  std::string directory = ".";
  bool json = false;
};

std::vector<Place> Places(const Options& options) {
  std::vector<Place> places = {{"host memory"}, {"host memory, rows alone", 0, true}};
  for (const double megabytes : options.megabytes) {
    places.push_back({absl::StrFormat("disk at %g MB/s", megabytes), megabytes * 1e6});
  }
  for (const double megabytes : options.megabytes) {
    places.push_back({absl::StrFormat("another host at %g MB/s", megabytes), megabytes * 1e6,
                      /*rows_alone=*/false, /*distant=*/true});
  }
  places.push_back({absl::StrFormat("disk at %g MB/s, rows alone", options.megabytes.front()),
                    options.megabytes.front() * 1e6, true});
  return places;
}

absl::StatusOr<std::unique_ptr<engine::Model>> MakeModelOf(const Options& options) {
  CAIRN_ASSIGN_OR_RETURN(engine::ModelConfig config, engine::PresetConfig(options.preset));
  config.max_positions = std::max(config.max_positions, options.lengths.back() + 2 * kTailTokens);
  const std::string folder = options.directory + "/cairn-bench-model";
  CAIRN_RETURN_IF_ERROR(engine::MakeModel({.config = config, .seed = 1}, folder));
  auto model =
      engine::LoadModel(folder, {.numerics = engine::Numerics::kKvq, .threads = options.threads});
  std::filesystem::remove_all(folder);
  return model;
}

// What one length did in one place, over the rounds.
struct Cell {
  std::string way;
  std::vector<double> seconds, ratios;
};

class Comparison {
 public:
  explicit Comparison(Options options) : options_(std::move(options)), places_(Places(options_)) {}

  absl::Status Run() {
    CAIRN_RETURN_IF_ERROR(Prepare());
    // Each place is used once, for the longest prefix, so that what it costs is known.
    for (size_t place = 0; place < places_.size(); ++place) {
      CAIRN_RETURN_IF_ERROR(Resume(place, options_.lengths.size() - 1).status());
    }
    cells_.assign(places_.size(), std::vector<Cell>(options_.lengths.size()));
    prefills_.resize(options_.lengths.size());
    for (int round = 0; round < options_.rounds; ++round) {
      for (size_t length = 0; length < options_.lengths.size(); ++length) {
        CAIRN_ASSIGN_OR_RETURN(const double cold, Prefill(length));
        prefills_[length].push_back(cold);
        for (size_t place = 0; place < places_.size(); ++place) {
          CAIRN_RETURN_IF_ERROR(Measure(place, length, cold));
        }
        const int64_t more = std::min(kRepeatTokens / options_.lengths[length], kRepeatsMax);
        for (int64_t i = 0; i < more; ++i) CAIRN_RETURN_IF_ERROR(MeasurePrefills(length));
      }
    }
    return absl::OkStatus();
  }

  double worst() const {
    double worst = 0;
    for (const auto& row : cells_) {
      for (const Cell& cell : row) worst = std::max(worst, SpreadOf(cell.ratios).median);
    }
    return worst;
  }
  // The shortest length from which on the place is used; 0: none.
  int64_t CrossesAt(size_t place) const {
    int64_t at = 0;
    for (size_t i = options_.lengths.size(); i-- > 0;) {
      if (cells_[place][i].way == kPrefill) break;
      at = options_.lengths[i];
    }
    return at;
  }
  std::string Table() const;
  std::string Json() const;

 private:
  std::span<const int32_t> Prompt(size_t length) const {
    return std::span(tokens_).first(static_cast<size_t>(options_.lengths[length] + kTailTokens));
  }

  // A model, a core with the prefixes of all lengths and a checkpoint behind each, and for each
  // place an engine's view of it.
  absl::Status Prepare() {
    CAIRN_ASSIGN_OR_RETURN(model_, MakeModelOf(options_));
    forward_ = std::make_unique<engine::Forward>(*model_, options_.threads);
    tokens_.resize(static_cast<size_t>(options_.lengths.back() + kTailTokens));
    SeededRandom random(2);
    for (int32_t& token : tokens_) {
      token = static_cast<int32_t>(random.Next() % static_cast<uint64_t>(model_->config.vocab));
    }
    // Blocks are smaller than checkpoints.
    const size_t room =
        static_cast<size_t>(options_.lengths.back() / kBlockTokens) +
        options_.lengths.size() *
            static_cast<size_t>(
                model_->layout->checkpoint_bytes() / model_->layout->rows_entry_bytes() + 2);
    CAIRN_ASSIGN_OR_RETURN(
        fixture_,
        HostFixture::Make(model_->layout->Descriptor(model_->weights_identity), 2 * room));
    for (size_t length = 0; length < options_.lengths.size(); ++length) {
      PrefixCache cache(fixture_->OpenLocal(), model_->cached(), RealClock(), {});
      CAIRN_RETURN_IF_ERROR(RunWith(&cache, length).status());
      if (!cache.Flush(absl::Seconds(60))) {
        return absl::ResourceExhaustedError("not all could be put: " +
                                            cache.put_stats().last_error);
      }
    }
    for (const Place& place : places_) {
      auto inner = fixture_->OpenLocal();
      if (!inner.ok()) return inner.status();
      caches_.push_back(
          std::make_unique<PrefixCache>(std::make_unique<SlowCache>(*std::move(inner), place),
                                        model_->cached(), RealClock(), PrefixCache::Options{}));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<SequenceResult> RunWith(PrefixCache* cache, size_t length) {
    return engine::RunSequence(*forward_, cache, RealClock(), Prompt(length), {.new_tokens = 1});
  }

  // All places learn from it what prefilling costs.
  absl::StatusOr<double> Prefill(size_t length) {
    int64_t done = 0;
    int64_t start = RealClock().NowNanos();
    engine::SequenceOptions steps{.new_tokens = 1};
    steps.progress = [&](int64_t now_done, int64_t) {
      const int64_t now = RealClock().NowNanos();
      const double seconds = static_cast<double>(now - start) * 1e-9;
      for (const auto& cache : caches_) cache->ObservePrefill(now_done, now_done - done, seconds);
      start = now;
      done = now_done;
    };
    CAIRN_ASSIGN_OR_RETURN(
        const SequenceResult result,
        engine::RunSequence(*forward_, nullptr, RealClock(), Prompt(length), steps));
    return result.first_token_seconds;
  }

  absl::StatusOr<SequenceResult> Resume(size_t place, size_t length) {
    CAIRN_ASSIGN_OR_RETURN(SequenceResult result, RunWith(caches_[place].get(), length));
    if (!caches_[place]->attached()) {
      return absl::InternalError(places_[place].name + ": the cache was left");
    }
    return result;
  }

  // Where nothing was fetched all that counts is what asking cost: a few per cent, which take
  // several tries with a prefill beside each.
  absl::Status MeasurePrefills(size_t length) {
    for (size_t place = 0; place < places_.size(); ++place) {
      if (cells_[place][length].way != kPrefill) continue;
      CAIRN_ASSIGN_OR_RETURN(const double cold, Prefill(length));
      CAIRN_RETURN_IF_ERROR(Measure(place, length, cold));
    }
    return absl::OkStatus();
  }

  absl::Status Measure(size_t place, size_t length, double cold) {
    CAIRN_ASSIGN_OR_RETURN(const SequenceResult result, Resume(place, length));
    Cell& cell = cells_[place][length];
    cell.way = result.resume.prefix_tokens == 0        ? kPrefill
               : result.resume.replay_token_layers > 0 ? "replay"
                                                       : "checkpoint";
    cell.seconds.push_back(result.first_token_seconds);
    cell.ratios.push_back(result.first_token_seconds / cold);
    return absl::OkStatus();
  }

  const Options options_;
  const std::vector<Place> places_;
  std::unique_ptr<engine::Model> model_;
  std::unique_ptr<engine::Forward> forward_;
  std::unique_ptr<HostFixture> fixture_;
  std::vector<std::unique_ptr<PrefixCache>> caches_;  // by place
  std::vector<int32_t> tokens_;
  std::vector<std::vector<Cell>> cells_;       // by place, by length
  std::vector<std::vector<double>> prefills_;  // by length
};

std::string Comparison::Table() const {
  std::string out = absl::StrFormat("%-30s %8s %-10s %14s %12s  %s\n", "place", "tokens", "way",
                                    "first token", "prefill", "ratio");
  for (size_t place = 0; place < places_.size(); ++place) {
    for (size_t i = 0; i < options_.lengths.size(); ++i) {
      const Cell& cell = cells_[place][i];
      const Spread ratio = SpreadOf(cell.ratios);
      absl::StrAppendFormat(
          &out, "%-30s %8d %-10s %11.1f ms %9.1f ms  %.3f (%.3f to %.3f)\n", places_[place].name,
          options_.lengths[i], cell.way, SpreadOf(cell.seconds).median * 1e3,
          SpreadOf(prefills_[i]).median * 1e3, ratio.median, ratio.low, ratio.high);
    }
    const int64_t at = CrossesAt(place);
    absl::StrAppend(&out, places_[place].name,
                    at == 0 ? ": never used\n" : absl::StrCat(": used from ", at, " tokens on\n"));
  }
  absl::StrAppendFormat(&out, "worst ratio %.3f, at most %.2f allowed: %s\n", worst(), kRatioMax,
                        worst() <= kRatioMax ? "held" : "MISSED");
  return out;
}

std::string Comparison::Json() const {
  nlohmann::json rows = nlohmann::json::array();
  for (size_t place = 0; place < places_.size(); ++place) {
    for (size_t i = 0; i < options_.lengths.size(); ++i) {
      const Cell& cell = cells_[place][i];
      rows.push_back({{"place", places_[place].name},
                      {"tokens", options_.lengths[i]},
                      {"way", cell.way},
                      {"first_token_seconds", cell.seconds},
                      {"prefill_seconds", prefills_[i]},
                      {"ratios", cell.ratios},
                      {"used_from_tokens", CrossesAt(place)}});
    }
  }
  const nlohmann::json root = {
      {"preset", options_.preset}, {"threads", options_.threads}, {"cells", rows},
      {"worst_ratio", worst()},    {"ratio_bound", kRatioMax},    {"held", worst() <= kRatioMax}};
  return root.dump(2) + "\n";
}

}  // namespace

int ResumeBench(int argc, char** argv) {
  CLI::App app("Resuming from slower and slower places beside prefilling.", "cairn-bench resume");
  Options options;
  app.add_option("--preset", options.preset, "the model's shape");
  app.add_option("--lengths", options.lengths, "prefixes in tokens, ascending multiples of 128")
      ->delimiter(',');
  app.add_option("--megabytes", options.megabytes,
                 "bandwidths of the disk and the other host, in MB/s")
      ->delimiter(',');
  app.add_option("--rounds", options.rounds, "of each")->check(CLI::Range(1, 1000));
  app.add_option("--threads", options.threads, "compute threads")->check(CLI::Range(1, 256));
  app.add_option("--dir", options.directory, "a folder for the model's files")
      ->check(CLI::ExistingDirectory);
  app.add_flag("--json", options.json, "print JSON");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const bool sound = !options.lengths.empty() && !options.megabytes.empty() &&
                     std::is_sorted(options.lengths.begin(), options.lengths.end()) &&
                     std::all_of(options.lengths.begin(), options.lengths.end(),
                                 [](int64_t n) { return n > 0 && n % kBlockTokens == 0; });
  if (!sound) {
    std::fputs("cairn-bench resume: --lengths are ascending multiples of 128\n", stderr);
    return 2;
  }
  const bool json = options.json;
  Comparison comparison(std::move(options));
  if (const absl::Status status = comparison.Run(); !status.ok()) {
    std::fprintf(stderr, "cairn-bench resume: %s\n", status.ToString().c_str());
    return 1;
  }
  std::fputs((json ? comparison.Json() : comparison.Table()).c_str(), stdout);
  return comparison.worst() <= kRatioMax ? 0 : 1;
}

}  // namespace cairn::bench
