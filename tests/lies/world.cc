#include "tests/lies/world.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "cache/core/local_cache.h"
#include "engine/model/maker.h"
#include "engine/model/presets.h"

namespace cairn::lies {
namespace {

using engine::PrefixCache;
using engine::SequenceResult;
using faults::Expect;

constexpr size_t kPromptTokens = 300;
// Not how fast anything is, but that nothing waits for a deadline that is not its own: those of
// these runs are together under two seconds, and the one of a fetch is 30.
constexpr double kSecondsMax = 10;

double SecondsSince(int64_t start) {
  return static_cast<double>(RealClock().NowNanos() - start) * 1e-9;
}

// An engine with a cache, and what it computed as its layers saw it.
class Engine {
 public:
  Engine(const Subject& subject, absl::StatusOr<std::unique_ptr<cache::CacheApi>> api,
         absl::Duration wait)
      : subject_(subject),
        forward_(*subject.model, 1),
        cache_(std::move(api), subject.model->cached(), RealClock(), Options(wait)) {
    forward_.set_layer_probe([this](int64_t layer, int64_t rows, const float*) {
      if (layer == 0) computed_ += rows;
    });
  }

  SequenceResult Run() {
    computed_ = 0;
    auto run = RunSequence(forward_, &cache_, RealClock(), subject_.prompt, subject_.sequence);
    Expect(run.ok(), absl::StrCat("the engine failed: ", run.status().ToString()));
    cache_.Flush(absl::Seconds(5));
    Check(*run);
    return *std::move(run);
  }
  bool attached() const { return cache_.attached(); }

 private:
  PrefixCache::Options Options(absl::Duration wait) {
    PrefixCache::Options options;
    options.wait = wait;
    options.overlap_bytes_min = 0;  // harm may come while the first layers are computed
    options.say = [this](const std::string&) { ++said_; };
    return options;
  }
  void Check(const SequenceResult& run) const {
    Expect(run.output == subject_.cold.output, "a wrong token");
    Expect(run.logits == subject_.cold.logits, "logits that are not the cold run's");
    const int64_t prompt = std::ssize(subject_.prompt);
    Expect(run.recomputed_tokens + run.resume.prefix_tokens == prompt,
           absl::StrCat(run.recomputed_tokens, " recomputed and ", run.resume.prefix_tokens,
                        " restored of ", prompt));
    // What was found to be taken back is computed again, and counted as a failed check.
    const int64_t counted = run.recomputed_tokens + std::ssize(run.output) - 1;
    Expect(computed_ == counted || (run.resume.checksum_failures > 0 && computed_ > counted),
           absl::StrCat(computed_, " tokens computed, ", counted, " counted"));
    Expect(said_ == (cache_.attached() ? 0 : 1),
           absl::StrCat("said ", said_, " times that the cache is not used"));
    const double seconds =
        run.resume.match_seconds + run.resume.fetch_seconds + run.resume.wait_seconds;
    Expect(seconds < kSecondsMax, absl::StrCat("the cache took ", seconds, " s"));
  }

  const Subject& subject_;
  engine::Forward forward_;
  int64_t computed_ = 0;
  int said_ = 0;
  PrefixCache cache_;
};

}  // namespace

Subject Subject::Make() {
  Subject subject;
  absl::StatusOr<engine::ModelConfig> config = engine::PresetConfig("nano");
  Expect(config.ok(), "no preset");
  config->max_positions = 512;
  engine::SetLayers(*config, 3, 1);  // one of each kind, and MTP
  const std::string folder = absl::StrCat("/tmp/cairn-lies-model.", ::getpid());
  Expect(engine::MakeModel({.config = *config, .seed = 5}, folder).ok(), "no model");
  auto model = engine::LoadModel(folder, {.numerics = engine::Numerics::kKvq, .threads = 1});
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  Expect(model.ok(), "the model does not load");
  subject.model = std::move(*model);
  SeededRandom random(1);
  for (size_t i = 0; i < kPromptTokens; ++i) {
    subject.prompt.push_back(static_cast<int32_t>(random.Next() % 256));
  }
  engine::Forward forward(*subject.model, 1);
  auto cold = RunSequence(forward, nullptr, RealClock(), subject.prompt, subject.sequence);
  Expect(cold.ok(), "no cold run");
  subject.cold = std::move(*cold);
  subject.spec = {subject.model->layout->Descriptor(subject.model->weights_identity), ""};
  return subject;
}

World::World(const Subject& subject, bool from_disk) : subject_(subject), from_disk_(from_disk) {
  cache::CoreRig::Sizes sizes;
  sizes.host_units = 1024;
  sizes.options.policy.full = true;
  rig_ = std::make_unique<cache::CoreRig>(sizes);
  Engine(subject_, cache::OpenLocalCache(*rig_->core, subject_.spec), absl::ZeroDuration()).Run();
  Restart();
}

void World::AwaitQuiet() {
  Expect(cache::Eventually([&] { return cache::ClientsAreGone(*rig_, *server_); }),
         "the attacked session does not end, or a call of its");
  for (const char* held : {"open_leases", "open_reservations"}) {
    Expect(rig_->Stat(held) == 0, absl::StrCat(rig_->Stat(held), " ", held, " after its session"));
  }
}

void World::Reset() {
  AwaitQuiet();
  Restart();
}

void World::Restart() {
  server_.reset();
  {
    const auto session = cache::OpenLocalCache(*rig_->core, subject_.spec);
    const std::vector<Digest> chain =
        cache::DigestChain((*session)->registration().root, subject_.prompt);
    uint64_t kept = 0;
    const auto evicted = rig_->core->Evict({.prefix = chain[1]}, &kept);
    Expect(evicted.ok() && kept == 0, "the second block cannot be evicted");
  }
  if (from_disk_) rig_->DropFromHost();
  auto started = cache::StartServer(*rig_->core, rig_->clock, folder_, "127.0.0.1:0");
  Expect(started.ok(), absl::StrCat("no daemon: ", started.status().ToString()));
  server_ = std::move(*started);
}

bool World::Attack(const std::string& target, const cache::RemoteCacheOptions& options,
                   const std::function<void()>& release, faults::Counts& counts) {
  const int64_t start = RealClock().NowNanos();
  Engine engine(subject_, cache::ConnectCache(target, subject_.spec, options),
                absl::Milliseconds(200));
  const SequenceResult first = engine.Run();
  const double seconds = SecondsSince(start);
  Expect(seconds < kSecondsMax, absl::StrCat("the attacked run took ", seconds, " s"));
  release();
  engine.Run();
  counts["runs"] += 2;
  counts["hits"] += first.resume.prefix_tokens > 0 ? 1 : 0;
  counts["detached"] += engine.attached() ? 0 : 1;
  counts["checksum_failures"] += first.resume.checksum_failures;
  counts["recomputed_tokens"] += static_cast<uint64_t>(first.recomputed_tokens);
  return first.resume.prefix_tokens > 0;
}

void World::CheckHonest(faults::Counts& counts) {
  AwaitQuiet();
  const SequenceResult run =
      Engine(subject_, cache::OpenLocalCache(*rig_->core, subject_.spec), absl::ZeroDuration())
          .Run();
  ++counts["honest_runs"];
  Expect(run.resume.prefix_tokens >= kBlockTokens, "the store lost what was put before");
  Expect(run.resume.checksum_failures == 0, "the store holds damage");
}

}  // namespace cairn::lies
