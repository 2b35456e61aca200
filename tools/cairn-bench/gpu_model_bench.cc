// A model of DeepSeek-V4-Flash's shape on the GPU, and a daemon: the time to the first token behind
// 128k tokens, cold and from each tier, and decoding. All 43 layers at true widths, random weights,
// as many routed experts a layer as fit; a token takes 6 of them however many there are. Every
// resumed answer is compared with the cold one, to the bit.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/cairn_engine/cuda_runner.h"
#include "engine/cuda/cuda_model.h"
#include "store/base/limits.h"
#include "tools/cairn-bench/daemon_process.h"
#include "tools/cairn-bench/gpu_benches.h"
#include "tools/cairn-bench/gpu_flash_model.h"

namespace cairn::bench {
namespace {

using engine::PrefixCache;
using engine::SequenceResult;
using engine::SequenceRunner;

constexpr int64_t kPrefixTokens = 131072;
constexpr int64_t kQuestionTokens = 64;
constexpr int64_t kStepTokens = 4096;
constexpr int64_t kDecodeTokens = 64;
constexpr uint64_t kHostBytes = 2ull << 30;
constexpr int64_t kOtherBytes =
    18'000'000'000;  // the other weights, activations, a session, the pool
// What the daemon is to have done meanwhile, by its nature within seconds.
constexpr absl::Duration kPatience = absl::Seconds(60);

class FlashModel {
 public:
  static absl::StatusOr<std::shared_ptr<FlashModel>> Create(const BenchContext& context) {
    CAIRN_RETURN_IF_ERROR(kernels::cuda::DevicePresent());
    auto made = std::make_shared<FlashModel>();
    CAIRN_ASSIGN_OR_RETURN(auto model, RandomFlashModel(kOtherBytes));
    made->experts_ = model->config.experts;
    CAIRN_ASSIGN_OR_RETURN(
        made->runner_,
        engine::MakeCudaRunner(std::move(model), [] { return Digest{}; },
                               {.chunk = kStepTokens, .tokens_max = kPrefixTokens + 1024}));
    std::mt19937 random(3);
    for (int64_t i = 0; i < kPrefixTokens + kQuestionTokens; ++i) {
      made->prompt_.push_back(static_cast<int32_t>(random() % kFlashVocab));
    }
    made->huge_pages_ = context.huge_pages;
    made->with_pool_ = context.directory + "/pool";
    made->without_ = context.directory + "/plain";
    CAIRN_RETURN_IF_ERROR(made->Start(made->with_pool_, made->pool_daemon_));
    CAIRN_RETURN_IF_ERROR(made->Start(made->without_, made->daemon_));
    CAIRN_RETURN_IF_ERROR(made->Store());
    return made;
  }

  int64_t experts() const { return experts_; }

  // All give seconds from the prompt to the first token.
  absl::StatusOr<double> Cold() {
    CAIRN_ASSIGN_OR_RETURN(const SequenceResult result, Run(nullptr, 1));
    cold_logits_ = result.logits;
    return result.first_token_seconds;
  }
  // The same, and blocks are put meanwhile; the daemon has none of this prompt.
  absl::StatusOr<double> ColdAndStored() {
    CAIRN_ASSIGN_OR_RETURN(const auto cache, Attach(without_, /*pin=*/false));
    const int32_t first = prompt_[0];
    prompt_[0] = ++unseen_;
    const absl::StatusOr<SequenceResult> result = Run(cache.get(), 1);
    prompt_[0] = first;
    CAIRN_RETURN_IF_ERROR(result.status());
    if (!cache->Flush(kPatience)) return absl::UnavailableError("not all of it was put");
    return result->first_token_seconds;
  }
  absl::StatusOr<double> FromPool() {
    CAIRN_ASSIGN_OR_RETURN(const SequenceResult result, Resumed(*pool_cache_));
    if (result.resume.gpu_bytes < result.resume.host_bytes) {
      return absl::UnavailableError("not all of it lies in the pool");
    }
    return result.first_token_seconds;
  }
  absl::StatusOr<double> FromHostMemory(bool pin) {
    CAIRN_ASSIGN_OR_RETURN(const auto cache, Attach(without_, pin));
    CAIRN_ASSIGN_OR_RETURN(const SequenceResult result, Resumed(*cache));
    if (result.resume.disk_bytes > 0) return absl::UnavailableError("some of it came from disk");
    return result.first_token_seconds;
  }
  absl::StatusOr<double> FromDisk() {
    CAIRN_RETURN_IF_ERROR(Start(without_, daemon_));  // anew: it has nothing in host memory
    CAIRN_ASSIGN_OR_RETURN(const auto cache, Attach(without_, /*pin=*/true));
    CAIRN_ASSIGN_OR_RETURN(const SequenceResult result, Resumed(*cache));
    if (result.resume.host_bytes > 0) return absl::UnavailableError("some of it was in memory");
    return result.first_token_seconds;
  }
  // Seconds for some tokens behind the prompt.
  absl::StatusOr<double> Decode() {
    CAIRN_ASSIGN_OR_RETURN(const SequenceResult result, Run(pool_cache_.get(), kDecodeTokens + 1));
    return result.decode_seconds;
  }

 private:
  absl::Status Start(const std::string& folder, std::unique_ptr<DaemonProcess>& daemon) const {
    daemon.reset();
    std::filesystem::create_directory(folder);
    std::vector<std::string> flags = {
        "--host-bytes", absl::StrCat(kHostBytes), "--disk-bytes", "16GiB", "--policy", "ends"};
    if (huge_pages_) flags.insert(flags.end(), {"--huge-pages", "on"});
    if (folder.ends_with("pool")) flags.insert(flags.end(), {"--gpu-bytes", "1GiB"});
    CAIRN_ASSIGN_OR_RETURN(daemon, DaemonProcess::Start(folder, flags));
    return absl::OkStatus();
  }

  // A new engine as the daemon sees it. `pin`: returns when all of the arena is pinned.
  absl::StatusOr<std::unique_ptr<PrefixCache>> Attach(const std::string& folder, bool pin) const {
    const engine::CachedModel model = runner_->cached_model();
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<cache::CacheApi> api,
                           ConnectToDaemon(folder, {model.Descriptor(), ""},
                                           {.call_timeout = absl::Seconds(10),
                                            .gpu = runner_->gpu(),
                                            .pin = pin,
                                            .pin_patience = kPatience}));
    PrefixCache::Options options;
    options.always_load = true;
    return std::make_unique<PrefixCache>(std::move(api), model, RealClock(), std::move(options));
  }

  absl::StatusOr<SequenceResult> Run(PrefixCache* cache, int64_t new_tokens) {
    return engine::RunSequence(*runner_, cache, RealClock(), prompt_,
                               {.chunk = kStepTokens, .new_tokens = new_tokens});
  }
  // From whatever tier: all of the prefix, and the cold bits.
  absl::StatusOr<SequenceResult> Resumed(PrefixCache& cache) {
    CAIRN_ASSIGN_OR_RETURN(SequenceResult result, Run(&cache, 1));
    if (result.resume.prefix_tokens != kPrefixTokens || result.resume.checksum_failures > 0) {
      return absl::UnavailableError(absl::StrCat("resumed at ", result.resume.prefix_tokens));
    }
    if (result.logits != cold_logits_) {
      return absl::DataLossError("the resumed logits are not the cold ones");
    }
    return result;
  }

  // Once cold; then both daemons have it, and one of them in its pool too.
  absl::Status Store() {
    CAIRN_RETURN_IF_ERROR(Cold().status());
    for (const std::string& folder : {with_pool_, without_}) {
      CAIRN_ASSIGN_OR_RETURN(auto cache, Attach(folder, /*pin=*/false));
      CAIRN_RETURN_IF_ERROR(Run(cache.get(), 1).status());
      if (!cache->Flush(kPatience)) return absl::UnavailableError("not all of it was put");
      if (folder == with_pool_) pool_cache_ = std::move(cache);
    }
    const int64_t end = RealClock().NowNanos() + absl::ToInt64Nanoseconds(kPatience);
    while (!FromPool().ok()) {
      if (RealClock().NowNanos() > end) return FromPool().status();
    }
    return absl::OkStatus();
  }

  int64_t experts_ = 0;
  bool huge_pages_ = false;
  std::unique_ptr<SequenceRunner> runner_;
  std::vector<int32_t> prompt_;
  std::vector<float> cold_logits_;
  int32_t unseen_ = 0;
  std::string with_pool_, without_;  // the daemons' folders
  std::unique_ptr<DaemonProcess> pool_daemon_, daemon_;
  std::unique_ptr<PrefixCache> pool_cache_;
};

absl::StatusOr<Prepared> PrepareModel(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<FlashModel> model, FlashModel::Create(context));
  Prepared prepared;
  prepared.contenders = {
      {absl::StrCat("from the daemon's pool, ", model->experts(), " experts a layer"), Role::kOurs,
       [model] { return model->FromPool(); }},
      {"from its arena, pinned", Role::kRival, [model] { return model->FromHostMemory(true); }},
      {"from its arena, by the CPU", Role::kRival,
       [model] { return model->FromHostMemory(false); }},
      {"from its disk", Role::kRival, [model] { return model->FromDisk(); }},
      {"cold: prefilling all", Role::kRival, [model] { return model->Cold(); }},
      {"cold, and stored", Role::kRival, [model] { return model->ColdAndStored(); }},
      {absl::StrCat("decoding ", kDecodeTokens, " more"), Role::kRival,
       [model] { return model->Decode(); }}};
  return prepared;
}

}  // namespace

void AddGpuModelBenches(std::vector<Bench>& benches) {
  benches.push_back(
      {.name = "gpu-model",
       .what = "a Flash-shaped model: first token behind 128k tokens and a question of 64",
       .unit = "s",
       .higher_is_better = false,
       .prepare = PrepareModel});
}

}  // namespace cairn::bench
