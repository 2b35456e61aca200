// Experts that do not all fit into memory: what decoding and prefilling cost beside having all of
// them there, and how fast they are read and packed, beside fio.
//
// The model's experts have a fifth of the size of DeepSeek-V4-Flash's, in the released format.
// Random weights route evenly, which is the worst that a cache can meet.
#include <algorithm>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/forward/expert_files.h"
#include "engine/forward/forward.h"
#include "engine/model/maker.h"
#include "engine/model/presets.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/fio.h"

namespace cairn::bench {
namespace {

constexpr int64_t kDecodeTokens = 16;
constexpr int64_t kPromptTokens = 256;

int Threads() { return static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u)); }

absl::StatusOr<std::string> MakeModel(const BenchContext& context) {
  engine::MakeOptions options;
  CAIRN_ASSIGN_OR_RETURN(options.config, engine::PresetConfig("small"));
  options.config.dim = 2048;
  options.config.expert_dim = 768;
  options.config.experts = 32;
  engine::SetLayers(options.config, 6, 0);
  options.format = engine::WeightFormat::kFp8Fp4;
  options.seed = 1;
  options.threads = Threads();
  const std::string folder = context.directory + "/experts";
  CAIRN_RETURN_IF_ERROR(engine::MakeModel(options, folder));
  return folder;
}

absl::StatusOr<std::unique_ptr<engine::ExpertFiles>> FilesOf(const std::string& folder) {
  CAIRN_ASSIGN_OR_RETURN(const engine::ModelConfig config, engine::LoadConfig(folder));
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<engine::TensorFile> file,
                         engine::TensorFile::Open(folder));
  CAIRN_ASSIGN_OR_RETURN(const engine::Weights weights,
                         engine::BindWeights(config, std::move(file)));
  return engine::ExpertFiles::Open(nullptr, weights, engine::Numerics::kFull);
}

// The model with memory for `share` of its experts, and one sequence.
struct Rig {
  std::unique_ptr<engine::Model> model;
  std::unique_ptr<engine::Forward> forward;
  SeededRandom random{5};

  static absl::StatusOr<std::shared_ptr<Rig>> Open(const std::string& folder, double share) {
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<engine::ExpertFiles> files, FilesOf(folder));
    const auto experts = static_cast<double>(files->layers() * files->experts());
    const uint64_t bytes = engine::kExpertReaders * files->room_bytes() +
                           static_cast<uint64_t>(experts * share) * files->packed_bytes();
    auto rig = std::make_shared<Rig>();
    CAIRN_ASSIGN_OR_RETURN(
        rig->model, engine::LoadModel(folder, {.threads = Threads(), .expert_bytes = bytes}));
    rig->forward = std::make_unique<engine::Forward>(*rig->model, Threads());
    return rig;
  }

  // Tokens a second of `steps` steps of `tokens` tokens each.
  absl::StatusOr<double> Run(int64_t steps, int64_t tokens) {
    engine::SessionState session(model->config, *model->layout);
    const int64_t start = RealClock().NowNanos();
    for (int64_t step = 0; step < steps; ++step) {
      std::vector<int32_t> ids(static_cast<size_t>(tokens));
      for (int32_t& id : ids) {
        id = static_cast<int32_t>(random.Next() % static_cast<uint64_t>(model->config.vocab));
      }
      engine::StepItem item;
      item.session = &session;
      item.tokens = ids;
      item.want = engine::WantLogits::kLast;
      CAIRN_RETURN_IF_ERROR(forward->Run({&item, 1}));
    }
    return static_cast<double>(steps * tokens) * 1e9 /
           static_cast<double>(RealClock().NowNanos() - start);
  }
};

absl::StatusOr<Prepared> PrepareSteps(const BenchContext& context, int64_t steps, int64_t tokens) {
  CAIRN_ASSIGN_OR_RETURN(const std::string folder, MakeModel(context));
  Prepared prepared;
  for (const auto& [name, role, share] :
       {std::tuple("memory for half of the experts", Role::kOurs, 0.5),
        std::tuple("for all", Role::kLimit, 1.0), std::tuple("for a tenth", Role::kRival, 0.1)}) {
    CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Rig> rig, Rig::Open(folder, share));
    prepared.contenders.push_back(
        {name, role, [rig, steps, tokens] { return rig->Run(steps, tokens); }});
  }
  return prepared;
}

// GB/s at which all experts come by, of which none was there.
absl::StatusOr<double> ReadAll(engine::ExpertFiles& files) {
  engine::ExpertCache cache(
      {.layers = files.layers(),
       .experts = files.experts(),
       .places = 2 * engine::kExpertReaders,
       .readers = engine::kExpertReaders},
      [&files](int64_t layer, int64_t expert, engine::ReadRoom& room, engine::ExpertOp& into) {
        return files.Load(layer, expert, room, into);
      });
  std::vector<int32_t> all;
  for (int32_t e = 0; e < files.experts(); ++e) all.push_back(e);
  const int64_t start = RealClock().NowNanos();
  for (int64_t layer = 0; layer < files.layers(); ++layer) {
    engine::ExpertCache::Use use(cache, layer, all);
    for (size_t i = 0; i < all.size(); ++i) CAIRN_RETURN_IF_ERROR(use.Next().status());
  }
  return static_cast<double>(cache.stats().read_bytes) /
         static_cast<double>(RealClock().NowNanos() - start);
}

absl::StatusOr<Prepared> PrepareRead(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(const std::string folder, MakeModel(context));
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<engine::ExpertFiles> files, FilesOf(folder));
  Prepared prepared;
  CAIRN_RETURN_IF_ERROR(AddFio(
      {.direction = "read",
       .arguments = absl::StrCat("--readonly --rw=randread --norandommap --time_based --runtime=1 "
                                 "--iodepth=16 --bs=512k --filename=",
                                 folder, "/model.safetensors"),
       .ways = {"", "--fixedbufs"}},
      prepared));
  prepared.contenders.push_back(
      {"read and packed", Role::kOurs, [files] { return ReadAll(*files); }});
  return prepared;
}

}  // namespace

void AddExpertBenches(std::vector<Bench>& benches) {
  const char* const model = "192 experts of 2.5 MB (FP4), 4 a token and layer, evenly routed";
  benches.push_back({.name = "expert-read",
                     .what = absl::StrCat(model, ": from disk to packed"),
                     .unit = "GB/s",
                     .prepare = PrepareRead});
  benches.push_back({.name = "expert-decode",
                     .what = absl::StrCat(model, ": one sequence, a token a step"),
                     .unit = "tokens/s",
                     .prepare = [](const BenchContext& context) {
                       return PrepareSteps(context, kDecodeTokens, 1);
                     }});
  benches.push_back({.name = "expert-prefill",
                     .what = absl::StrCat(model, ": two steps of 256 tokens, which take all"),
                     .unit = "tokens/s",
                     .prepare = [](const BenchContext& context) {
                       return PrepareSteps(context, 2, kPromptTokens);
                     }});
}

}  // namespace cairn::bench
