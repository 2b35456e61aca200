// resume_rig.h: the engine and the cache together, in one process: small models over a real core
// with real tiers in memory, and a CacheApi between them that a test can make misbehave.
//
// Threads: the test's. Errors: as expectations.
#ifndef CAIRN_TESTS_RESUME_RESUME_RIG_H_
#define CAIRN_TESTS_RESUME_RESUME_RIG_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cache/core/core_rig.h"
#include "cache/core/local_cache.h"
#include "engine/cairn_engine/run_sequence.h"
#include "engine/model/maker.h"
#include "engine/model/presets.h"
#include "engine/resume/prefix_cache.h"

namespace cairn::engine {

// A model with everything there is; `seed` decides its weights.
inline std::unique_ptr<Model> MakeSmallModel(uint64_t seed, Numerics numerics) {
  const std::string folder = testing::TempDir() + "cairn_resume_model." + std::to_string(getpid());
  absl::StatusOr<ModelConfig> config = PresetConfig("nano");
  EXPECT_TRUE(config.ok()) << config.status();
  config->max_positions = 4096;
  EXPECT_TRUE(
      MakeModel({.config = *config, .format = WeightFormat::kBf16, .seed = seed}, folder).ok());
  auto loaded = LoadModel(folder, {.numerics = numerics, .threads = 1});
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return std::move(loaded).value();
}

// One for all cases; made once.
inline const Model& SmallModel() {
  static const std::unique_ptr<Model> model = MakeSmallModel(5, Numerics::kKvq);
  return *model;
}

inline std::vector<int32_t> Prompt(size_t length, uint32_t seed = 1) {
  std::vector<int32_t> tokens(length);
  uint32_t state = seed * 2654435761u + 1;
  for (int32_t& token : tokens) {
    state = state * 1664525u + 1013904223u;
    token = static_cast<int32_t>(state >> 24);
  }
  return tokens;
}

// A daemon's core with room for a few hundred nano entries.
struct Daemon {
  explicit Daemon(const std::string& policy = "full") {
    cache::CoreRig::Sizes sizes;
    sizes.host_units = 4096;
    sizes.disk_bytes = 64 << 20;
    sizes.segment_bytes = 4 << 20;
    sizes.options.policy = *cache::CheckpointPolicy::Parse(policy);
    rig = std::make_unique<cache::CoreRig>(sizes);
  }
  absl::StatusOr<std::unique_ptr<cache::CacheApi>> Connect(
      const Model& model = SmallModel()) const {
    return cache::OpenLocalCache(*rig->core,
                                 {model.layout->Descriptor(model.weights_identity), ""});
  }
  std::unique_ptr<cache::CoreRig> rig;
};

inline SequenceResult RunCold(const std::vector<int32_t>& prompt,
                              const Model& model = SmallModel()) {
  Forward forward(model, 1);
  auto result = RunSequence(forward, nullptr, RealClock(), prompt, {.chunk = 200, .new_tokens = 4});
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

struct Engine {
  explicit Engine(absl::StatusOr<std::unique_ptr<cache::CacheApi>> api,
                  const Model& model = SmallModel())
      : forward(model, 1), cache(std::move(api), model.cached(), RealClock(), Options()) {}
  PrefixCache::Options Options() {
    PrefixCache::Options options;
    options.wait = absl::Seconds(5);
    options.say = [this](const std::string& line) { said.push_back(line); };
    return options;
  }
  SequenceResult Run(const std::vector<int32_t>& prompt) {
    auto result =
        RunSequence(forward, &cache, RealClock(), prompt, {.chunk = 200, .new_tokens = 4});
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(cache.Flush(absl::Seconds(20)));
    return *std::move(result);
  }
  std::vector<std::string> said;
  Forward forward;
  PrefixCache cache;
};

// Forwards to a real one; a test overrides what it spoils.
class Wrapped : public cache::CacheApi {
 public:
  explicit Wrapped(std::unique_ptr<cache::CacheApi> inner) : inner_(std::move(inner)) {}
  const cache::Registration& registration() const override { return inner_->registration(); }
  absl::StatusOr<cache::MatchResult> Match(std::span<const Digest> chain,
                                           const cache::MatchOptions& options) override {
    if (absl::Status s = Call("match"); !s.ok()) return s;
    auto result =
        inner_->Match(chain, {.lease_host = options.lease_host && !fail_on.contains("fetch")});
    if (result.ok() && on_match) on_match(*result);
    if (result.ok() && result->leased != nullptr && on_fetch) on_fetch(*result->leased);
    return result;
  }
  absl::StatusOr<std::unique_ptr<cache::FetchedPrefix>> Fetch(
      const cache::FetchRequest& request) override {
    if (absl::Status s = Call("fetch"); !s.ok()) return s;
    if (on_fetch_deadline) on_fetch_deadline(request.deadline);
    if (fail_late) return fail_late(request.deadline);
    auto result = inner_->Fetch(request);
    if (result.ok() && on_fetch) on_fetch(**result);
    return result;
  }
  absl::StatusOr<std::vector<cache::ReserveResult>> Reserve(
      std::span<const cache::ReserveItem> items, absl::Duration wait) override {
    if (absl::Status s = Call("reserve"); !s.ok()) return s;
    return inner_->Reserve(items, wait);
  }
  absl::StatusOr<std::unique_ptr<cache::StagingBuffer>> Stage(uint64_t bytes) override {
    if (absl::Status s = Call("stage"); !s.ok()) return s;
    return inner_->Stage(bytes);
  }
  absl::StatusOr<std::vector<absl::Status>> Commit(std::span<const cache::CommitItem> items,
                                                   bool durable) override {
    if (absl::Status s = Call("commit"); !s.ok()) return s;
    if (on_commit_call) on_commit_call(items.size());
    std::vector<cache::CommitItem> sent(items.begin(), items.end());
    if (on_commit) {
      for (cache::CommitItem& item : sent) on_commit(item);
    }
    return inner_->Commit(sent, durable);
  }
  absl::Status Abort(std::span<const uint64_t> reservations) override {
    if (absl::Status s = Call("abort"); !s.ok()) return s;
    return inner_->Abort(reservations);
  }
  absl::StatusOr<std::vector<cache::NamedCount>> Stats() override { return inner_->Stats(); }

  std::set<std::string> fail_on;  // the calls that find the daemon gone
  absl::Status fail_with = absl::UnavailableError("the daemon is gone");
  std::function<void(cache::MatchResult&)> on_match;
  std::function<void(cache::FetchedPrefix&)> on_fetch;
  std::function<void(absl::Duration)> on_fetch_deadline;
  std::function<absl::Status(absl::Duration)> fail_late;  // a fetch with this deadline
  std::function<void(cache::CommitItem&)> on_commit;
  std::function<void(size_t items)> on_commit_call;

 private:
  absl::Status Call(const std::string& name) {
    return fail_on.contains(name) ? fail_with : absl::OkStatus();
  }
  std::unique_ptr<cache::CacheApi> inner_;
};

inline std::unique_ptr<Wrapped> Wrap(const Daemon& daemon) {
  auto inner = daemon.Connect();
  EXPECT_TRUE(inner.ok()) << inner.status();
  return std::make_unique<Wrapped>(std::move(*inner));
}

// The bytes of a fetched entry, to be spoiled.
inline std::span<uint8_t> Writable(std::span<const uint8_t> payload) {
  return {const_cast<uint8_t*>(payload.data()), payload.size()};
}

}  // namespace cairn::engine

#endif  // CAIRN_TESTS_RESUME_RESUME_RIG_H_
