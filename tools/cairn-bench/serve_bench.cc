// What a cache costs a server that finds nothing in it: the same load with and without.
//
// Every prompt is new, so all of it is looked up, computed, put and written to disk for nothing.
#include <poll.h>

#include <filesystem>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "engine/model/presets.h"
#include "engine/serve/scheduler.h"
#include "engine/serve/task_pool.h"
#include "engine/text/byte_tokenizer.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/daemon_process.h"
#include "tools/cairn-bench/made_model.h"

namespace cairn::bench {
namespace {

constexpr int kAtOnce = 8;
constexpr int64_t kAnswerTokens = 32;
constexpr absl::Duration kFlushMax = absl::Seconds(60);

struct Load {
  // So many that the end, when fewer and fewer are left, is a small part.
  int requests;
  size_t prompt_tokens;
  engine::WeightFormat weights;
};
constexpr Load kMiniLoad{24, 640, engine::WeightFormat::kBf16};
constexpr Load kWideLoad{16, 384, engine::WeightFormat::kFp8Fp4};

struct ServeFixture {
  Load load = {};
  std::unique_ptr<DaemonProcess> daemon;
  std::unique_ptr<engine::Model> model;
  std::unique_ptr<engine::Tokenizer> tokenizer;
  std::unique_ptr<engine::Forward> forward;
  // For all rounds: a server attaches once, and takes its staging memory beside the first requests.
  std::unique_ptr<engine::CacheSlots> slots;
  SeededRandom random{1};
  std::string folder = {};
};

absl::Status Finish(engine::Generation& generation) {
  for (;;) {
    if (const std::optional<engine::Output> more = generation.Take()) {
      if (more->finish.has_value()) return more->status;
      continue;
    }
    pollfd ready{.fd = generation.ready_fd(), .events = POLLIN, .revents = 0};
    ::poll(&ready, 1, -1);
  }
}

// Submits all, and returns when all are answered.
absl::Status AnswerAll(ServeFixture& fixture, engine::Scheduler& scheduler) {
  std::vector<std::shared_ptr<engine::Generation>> all;
  for (int i = 0; i < fixture.load.requests; ++i) {
    engine::GenerationRequest request;
    request.max_tokens = kAnswerTokens;
    for (size_t t = 0; t < fixture.load.prompt_tokens; ++t) {
      const auto vocab = static_cast<uint64_t>(fixture.model->config.vocab);
      request.prompt.push_back(static_cast<int32_t>(fixture.random.Next() % vocab));
    }
    CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<engine::Generation> one,
                           scheduler.Submit(std::move(request)));
    all.push_back(std::move(one));
  }
  absl::Status status;
  for (const auto& generation : all) status.Update(Finish(*generation));
  return status;
}

// Tokens of prompts and answers a second, until the last one is answered and all is put.
absl::StatusOr<double> MeasureServe(ServeFixture& fixture, bool cached) {
  engine::Metrics metrics;
  engine::CacheSlots* const slots = cached ? fixture.slots.get() : nullptr;
  const uint64_t put_before = cached ? slots->put_stats().put_entries : 0;
  auto tasks = std::make_unique<engine::TaskPool>(cached ? kAtOnce : 0);
  const std::unique_ptr<engine::BatchRunner> runner = engine::CpuBatchRunner(*fixture.forward);
  engine::Scheduler scheduler(*runner, *fixture.tokenizer, slots,
                              [&tasks](std::function<void()> task) { tasks->Add(std::move(task)); },
                              RealClock(), metrics, {.sequences_max = kAtOnce});
  std::thread steps([&] { scheduler.Run(); });
  const int64_t start = RealClock().NowNanos();
  absl::Status status = AnswerAll(fixture, scheduler);
  scheduler.Drain(absl::InfiniteDuration());
  if (cached) slots->Flush(kFlushMax);
  const double seconds = static_cast<double>(RealClock().NowNanos() - start) * 1e-9;
  scheduler.Stop();
  steps.join();
  tasks.reset();
  if (cached &&
      (slots->put_stats().put_entries == put_before || slots->put_stats().dropped_entries > 0)) {
    status.Update(absl::DataLossError("not all was put"));
  }
  if (metrics.cached_tokens > 0) status.Update(absl::DataLossError("something was found"));
  CAIRN_RETURN_IF_ERROR(status);
  return static_cast<double>(metrics.prompt_tokens + metrics.answer_tokens) / seconds;
}

absl::StatusOr<Prepared> PrepareServe(const BenchContext& context,
                                      const absl::StatusOr<engine::ModelConfig>& config,
                                      const Load& load) {
  CAIRN_RETURN_IF_ERROR(config.status());
  const auto fixture = std::make_shared<ServeFixture>();
  fixture->load = load;
  fixture->folder = context.directory + "/serve";
  std::filesystem::create_directory(fixture->folder);
  CAIRN_ASSIGN_OR_RETURN(
      fixture->model, MakeAndLoad(*config, load.weights, std::nullopt, fixture->folder + "/model"));
  fixture->tokenizer = std::make_unique<engine::ByteTokenizer>(fixture->model->config.vocab);
  fixture->forward = std::make_unique<engine::Forward>(*fixture->model, EngineThreads());
  CAIRN_ASSIGN_OR_RETURN(
      fixture->daemon,
      DaemonProcess::Start(fixture->folder, {"--host-bytes", "256MiB", "--disk-bytes", "1GiB"}));
  const cache::NamespaceSpec spec{
      fixture->model->layout->Descriptor(fixture->model->weights_identity), ""};
  CAIRN_RETURN_IF_ERROR(ConnectToDaemon(fixture->folder, spec).status());
  fixture->slots = std::make_unique<engine::CacheSlots>(
      [folder = fixture->folder, spec] {
        return cache::ConnectCache("unix:" + folder + "/s", spec);
      },
      fixture->model->cached(), RealClock(), engine::CacheSlots::Options());
  if (!fixture->slots->attached()) return absl::UnavailableError("the daemon is not there");
  return Prepared{
      {{"without a cache", Role::kLimit, [fixture] { return MeasureServe(*fixture, false); }},
       {"with one in which nothing is found", Role::kOurs,
        [fixture] { return MeasureServe(*fixture, true); }}},
      {}};
}

}  // namespace

void AddServeBenches(std::vector<Bench>& benches) {
  const auto add = [&](const char* name, const char* model, const Load& load, auto config) {
    benches.push_back({.name = name,
                       .what = absl::StrCat("the server's throughput, ", model, ", ", load.requests,
                                            " new prompts of ", load.prompt_tokens, " tokens, ",
                                            kAtOnce, " at once"),
                       .unit = "tokens/s",
                       .higher_is_better = true,
                       .ratio_bound = 0.99,
                       .prepare = [config, load](const BenchContext& context) {
                         return PrepareServe(context, config(), load);
                       }});
  };
  add("serve-nothing-cached", "mini", kMiniLoad, [] { return engine::PresetConfig("mini"); });
  add("serve-nothing-cached-wide", "Flash's widths in 4 layers of 16 experts", kWideLoad,
      WideConfig);
}

}  // namespace cairn::bench
