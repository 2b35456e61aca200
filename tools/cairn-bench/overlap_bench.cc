// A prefix of another host and a step behind it: the first token when the layers are computed while
// those behind them arrive, beside loading first and computing then. The network's bandwidth is
// chosen so that loading takes about as long as computing, where overlapping can gain the most.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/cairn_engine/run_sequence.h"
#include "engine/model/presets.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/host_fixture.h"
#include "tools/cairn-bench/made_model.h"
#include "tools/cairn-bench/slow_cache.h"

namespace cairn::bench {
namespace {

using engine::PrefixCache;

constexpr int64_t kPrefixTokens = 4096;
constexpr int64_t kStepTokens = kBlockTokens - 1;  // behind it: one step, and nothing to put
constexpr uint64_t kNever = UINT64_MAX;

struct Rig {
  std::unique_ptr<engine::Model> model;
  std::unique_ptr<engine::Forward> forward;
  std::unique_ptr<HostFixture> fixture;
  std::unique_ptr<PrefixCache> mapped, apart, overlapped;
  std::vector<int32_t> tokens;
  uint64_t bytes = 0;
  double bytes_per_second = 0;

  // To the first token, in ms.
  absl::StatusOr<double> FirstToken(PrefixCache& cache) const {
    CAIRN_ASSIGN_OR_RETURN(const engine::SequenceResult result,
                           engine::RunSequence(*forward, &cache, RealClock(), tokens,
                                               {.chunk = kStepTokens, .new_tokens = 1}));
    if (result.resume.prefix_tokens != kPrefixTokens) {
      return absl::InternalError("the prefix was not restored");
    }
    if (result.resume.arriving != (&cache == overlapped.get())) {
      return absl::InternalError("the prefix did not come as it was to");
    }
    return result.first_token_seconds * 1e3;
  }
  absl::StatusOr<std::unique_ptr<PrefixCache>> Open(Place place, uint64_t overlap_bytes_min) const {
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<cache::CacheApi> inner, fixture->OpenLocal());
    return std::make_unique<PrefixCache>(
        std::make_unique<SlowCache>(std::move(inner), std::move(place)), model->cached(),
        RealClock(),
        PrefixCache::Options{.always_load = true, .overlap_bytes_min = overlap_bytes_min});
  }
};

absl::StatusOr<std::shared_ptr<Rig>> MakeRig(const BenchContext& context) {
  auto rig = std::make_shared<Rig>();
  CAIRN_ASSIGN_OR_RETURN(const engine::ModelConfig config, engine::PresetConfig("mini"));
  CAIRN_ASSIGN_OR_RETURN(rig->model,
                         MakeAndLoad(config, engine::WeightFormat::kBf16, engine::Numerics::kKvq,
                                     context.directory + "/overlap"));
  rig->forward = std::make_unique<engine::Forward>(*rig->model, EngineThreads());
  SeededRandom random(2);
  rig->tokens.resize(kPrefixTokens + kStepTokens);
  for (int32_t& token : rig->tokens) {
    token = static_cast<int32_t>(random.Next() % static_cast<uint64_t>(config.vocab));
  }
  const engine::KvLayout& layout = *rig->model->layout;
  const auto blocks = static_cast<size_t>(kPrefixTokens / kBlockTokens);
  const auto checkpoints =
      4 * static_cast<size_t>(layout.checkpoint_bytes() / layout.rows_entry_bytes() + 1);
  CAIRN_ASSIGN_OR_RETURN(rig->fixture,
                         HostFixture::Make(layout.Descriptor(rig->model->weights_identity),
                                           2 * (blocks + checkpoints)));
  {
    PrefixCache cache(rig->fixture->OpenLocal(), rig->model->cached(), RealClock(), {});
    // One token more, so that its last whole block is the prefix's.
    CAIRN_RETURN_IF_ERROR(engine::RunSequence(*rig->forward, &cache, RealClock(),
                                              std::span(rig->tokens).first(kPrefixTokens + 1),
                                              {.new_tokens = 1})
                              .status());
    if (!cache.Flush(absl::Seconds(60))) return absl::ResourceExhaustedError("not all was put");
  }
  rig->bytes = blocks * static_cast<uint64_t>(layout.rows_entry_bytes()) +
               static_cast<uint64_t>(layout.checkpoint_bytes());
  CAIRN_ASSIGN_OR_RETURN(rig->mapped, rig->Open({"host memory"}, kNever));
  std::vector<double> computing;
  for (int i = 0; i < 3; ++i) {
    CAIRN_ASSIGN_OR_RETURN(const double ms, rig->FirstToken(*rig->mapped));
    computing.push_back(ms);
  }
  rig->bytes_per_second = static_cast<double>(rig->bytes) / (SpreadOf(computing).median * 1e-3);
  const Place place{
      .name = "another host", .bytes_per_second = rig->bytes_per_second, .distant = true};
  CAIRN_ASSIGN_OR_RETURN(rig->apart, rig->Open(place, kNever));
  CAIRN_ASSIGN_OR_RETURN(rig->overlapped, rig->Open(place, 0));
  return rig;
}

absl::StatusOr<Prepared> PrepareOverlap(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Rig> rig, MakeRig(context));
  Prepared prepared;
  prepared.contenders = {
      {absl::StrFormat("the longer of both: %.1f MB at %.1f MB/s, or the step",
                       static_cast<double>(rig->bytes) * 1e-6, rig->bytes_per_second * 1e-6),
       Role::kLimit,
       [rig]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(const double step, rig->FirstToken(*rig->mapped));
         return std::max(step, static_cast<double>(rig->bytes) / rig->bytes_per_second * 1e3);
       }},
      {"computing beside loading", Role::kOurs,
       [rig] { return rig->FirstToken(*rig->overlapped); }},
      {"loading, then computing", Role::kRival, [rig] { return rig->FirstToken(*rig->apart); }}};
  return prepared;
}

}  // namespace

void AddOverlapBenches(std::vector<Bench>& benches) {
  benches.push_back({.name = "resume-overlap",
                     .what = "first token behind 4,096 tokens of another host, mini",
                     .unit = "ms",
                     .higher_is_better = false,
                     .ratio_bound = 1.25,
                     .prepare = PrepareOverlap});
}

}  // namespace cairn::bench
