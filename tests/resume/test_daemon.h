// test_daemon.h: what the tests of engine and cache together share: a small model, a daemon's core
// in this process, and a session with it that a test can spoil.
//
// Threads: the core and sessions any, as cache_api.h; a Wrapped's hooks are set before it is used.
// Ownership: SmallModel lives to the process's end.
#ifndef CAIRN_TESTS_RESUME_TEST_DAEMON_H_
#define CAIRN_TESTS_RESUME_TEST_DAEMON_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cache/core/core_rig.h"
#include "cache/core/local_cache.h"
#include "engine/forward/model.h"
#include "engine/model/maker.h"
#include "engine/model/presets.h"

namespace cairn::engine {

using cache::CacheApi;

// One model for all cases; made once.
inline const Model& SmallModel() {
  static const std::unique_ptr<Model> model = [] {
    const std::string folder =
        testing::TempDir() + "cairn_resume_model." + std::to_string(getpid());
    absl::StatusOr<ModelConfig> config = PresetConfig("nano");
    EXPECT_TRUE(config.ok()) << config.status();
    config->max_positions = 4096;
    EXPECT_TRUE(
        MakeModel({.config = *config, .format = WeightFormat::kBf16, .seed = 5}, folder).ok());
    auto loaded = LoadModel(folder, {.numerics = Numerics::kKvq, .threads = 1});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    return std::move(loaded).value();
  }();
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
  absl::StatusOr<std::unique_ptr<CacheApi>> Connect() const {
    return cache::OpenLocalCache(
        *rig->core, {SmallModel().layout->Descriptor(SmallModel().weights_identity), ""});
  }
  std::unique_ptr<cache::CoreRig> rig;
};

// Forwards to a real one; a test overrides what it spoils.
class Wrapped : public CacheApi {
 public:
  explicit Wrapped(std::unique_ptr<CacheApi> inner) : inner_(std::move(inner)) {}
  const cache::Registration& registration() const override { return inner_->registration(); }
  absl::StatusOr<cache::MatchResult> Match(std::span<const Digest> chain,
                                           const cache::MatchOptions& options) override {
    if (absl::Status s = Call("match"); !s.ok()) return s;
    auto result = inner_->Match(chain, {.lease_host = options.lease_host && fail_on != "fetch"});
    if (result.ok() && on_match) on_match(*result);
    if (result.ok() && result->leased != nullptr && on_fetch) on_fetch(*result->leased);
    return result;
  }
  absl::StatusOr<std::unique_ptr<cache::FetchedPrefix>> Fetch(
      const cache::FetchRequest& request) override {
    if (absl::Status s = Call("fetch"); !s.ok()) return s;
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
    return inner_->Commit(items, durable);
  }
  absl::Status Abort(std::span<const uint64_t> reservations) override {
    return inner_->Abort(reservations);
  }
  absl::StatusOr<std::vector<cache::NamedCount>> Stats() override { return inner_->Stats(); }

  std::string fail_on;  // the call that finds the daemon gone
  absl::Status fail_with = absl::UnavailableError("the daemon is gone");
  std::function<void(cache::MatchResult&)> on_match;
  std::function<void(cache::FetchedPrefix&)> on_fetch;

 private:
  absl::Status Call(const std::string& name) {
    return name == fail_on ? fail_with : absl::OkStatus();
  }
  std::unique_ptr<CacheApi> inner_;
};

inline std::unique_ptr<Wrapped> Wrap(const Daemon& daemon) {
  auto inner = daemon.Connect();
  EXPECT_TRUE(inner.ok()) << inner.status();
  return std::make_unique<Wrapped>(std::move(*inner));
}

}  // namespace cairn::engine

#endif  // CAIRN_TESTS_RESUME_TEST_DAEMON_H_
