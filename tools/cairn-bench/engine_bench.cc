// The engine as a whole, with random weights: prefill and decode of `mini`, what sixteen sequences
// together gain, there and with DeepSeek-V4-Flash's widths, and `nano` up to a million tokens.
#include <malloc.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/forward/forward.h"
#include "engine/model/presets.h"
#include "store/base/clock.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/made_model.h"

namespace cairn::bench {
namespace {

constexpr int64_t kPromptTokens = 2048;
constexpr int64_t kChunk = 512;
constexpr int64_t kBatch = 16;
constexpr int64_t kBatchPrompt = 512;
constexpr int64_t kContextMax = 1 << 20;
// Rows of a made context take no longer than this many to prefill.
constexpr int64_t kSeedTokens = kBlockTokens;

// A model and sequences of it.
struct Rig {
  std::unique_ptr<engine::Model> model;
  std::unique_ptr<engine::Forward> forward;
  SeededRandom random{5};

  explicit Rig(std::unique_ptr<engine::Model> loaded)
      : model(std::move(loaded)),
        forward(std::make_unique<engine::Forward>(*model, EngineThreads())) {}

  engine::SessionState NewSession() const {
    return engine::SessionState(model->config, *model->layout);
  }
  int32_t RandomToken() {
    return static_cast<int32_t>(random.Next() % static_cast<uint64_t>(model->config.vocab));
  }
  absl::Status Prefill(engine::SessionState& session, int64_t tokens) {
    std::vector<int32_t> prompt(static_cast<size_t>(tokens));
    for (int32_t& token : prompt) token = RandomToken();
    const std::span<const int32_t> all(prompt);
    for (int64_t at = 0; at < tokens; at += kChunk) {
      const int64_t count = std::min(kChunk, tokens - at);
      engine::StepItem item;
      item.session = &session;
      item.tokens = all.subspan(static_cast<size_t>(at), static_cast<size_t>(count));
      if (at + count == tokens) item.want = engine::WantLogits::kLast;
      CAIRN_RETURN_IF_ERROR(forward->Run({&item, 1}));
    }
    return absl::OkStatus();
  }
  // Seconds a step of one token for each session.
  absl::StatusOr<double> DecodeSeconds(std::span<engine::SessionState> sessions, int64_t steps) {
    std::vector<int32_t> tokens(sessions.size());
    const int64_t start = RealClock().NowNanos();
    for (int64_t step = 0; step < steps; ++step) {
      std::vector<engine::StepItem> items(sessions.size());
      for (size_t i = 0; i < sessions.size(); ++i) {
        tokens[i] = RandomToken();
        items[i].session = &sessions[i];
        items[i].tokens = {&tokens[i], 1};
        items[i].want = engine::WantLogits::kLast;
      }
      CAIRN_RETURN_IF_ERROR(forward->Run(items));
    }
    return static_cast<double>(RealClock().NowNanos() - start) * 1e-9 / static_cast<double>(steps);
  }
};

absl::StatusOr<std::shared_ptr<Rig>> MiniRig(const BenchContext& context,
                                             engine::WeightFormat format) {
  CAIRN_ASSIGN_OR_RETURN(const engine::ModelConfig config, engine::PresetConfig("mini"));
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Model> model,
                         MakeAndLoad(config, format, std::nullopt, context.directory + "/mini"));
  return std::make_shared<Rig>(std::move(model));
}

absl::StatusOr<std::shared_ptr<Rig>> WideRig(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(const engine::ModelConfig config, WideConfig());
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Model> model,
                         MakeAndLoad(config, engine::WeightFormat::kFp8Fp4, std::nullopt,
                                     context.directory + "/wide"));
  return std::make_shared<Rig>(std::move(model));
}

absl::StatusOr<Prepared> PreparePrefill(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Rig> rig,
                         MiniRig(context, engine::WeightFormat::kFp8Fp4));
  Prepared prepared;
  prepared.contenders = {{"prefill", Role::kOurs, [rig]() -> absl::StatusOr<double> {
                            engine::SessionState session = rig->NewSession();
                            const int64_t start = RealClock().NowNanos();
                            CAIRN_RETURN_IF_ERROR(rig->Prefill(session, kPromptTokens));
                            return static_cast<double>(kPromptTokens) * 1e9 /
                                   static_cast<double>(RealClock().NowNanos() - start);
                          }}};
  return prepared;
}

// Tokens a second of `sequences` sequences decoded together, from round to round further.
absl::StatusOr<Contender> Decoder(const std::shared_ptr<Rig>& rig, int64_t sequences, int64_t steps,
                                  Role role) {
  auto sessions = std::make_shared<std::vector<engine::SessionState>>();
  for (int64_t i = 0; i < sequences; ++i) {
    sessions->push_back(rig->NewSession());
    CAIRN_RETURN_IF_ERROR(rig->Prefill(sessions->back(), kBatchPrompt));
  }
  const auto measure = [rig, sessions, steps]() -> absl::StatusOr<double> {
    CAIRN_ASSIGN_OR_RETURN(const double seconds, rig->DecodeSeconds(*sessions, steps));
    return static_cast<double>(sessions->size()) / seconds;
  };
  return Contender{absl::StrCat("sequences together: ", sequences), role, measure};
}

absl::StatusOr<Prepared> PrepareDecode(absl::StatusOr<std::shared_ptr<Rig>> made, int64_t steps) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Rig> rig, std::move(made));
  Prepared prepared;
  for (const auto& [sequences, role] :
       {std::pair(kBatch, Role::kOurs), {int64_t{1}, Role::kLimit}, {int64_t{4}, Role::kRival}}) {
    CAIRN_ASSIGN_OR_RETURN(Contender contender, Decoder(rig, sequences, steps, role));
    prepared.contenders.push_back(std::move(contender));
  }
  return prepared;
}

// ---- long contexts ----

// A sequence of `blocks` blocks: the state after one prefilled block, with made rows for all
// blocks. Decoding does not look at what rows hold, so it takes the time it would after a prefill.
absl::StatusOr<std::unique_ptr<engine::SessionState>> MadeContext(Rig& rig, int64_t blocks) {
  const engine::KvLayout& layout = *rig.model->layout;
  engine::SessionState seed = rig.NewSession();
  CAIRN_RETURN_IF_ERROR(rig.Prefill(seed, kSeedTokens));
  std::vector<uint8_t> checkpoint(static_cast<size_t>(layout.checkpoint_bytes()));
  seed.SaveCheckpoint(checkpoint);
  auto session = std::make_unique<engine::SessionState>(rig.NewSession());
  // A few different rows, so that making them takes little of the time.
  std::vector<float> values(static_cast<size_t>(rig.model->config.head_dim) * 64);
  for (float& v : values) v = static_cast<float>(rig.random.Next() >> 40) * 0x1p-24f - 0.5f;
  for (int64_t block = 0; block < blocks; ++block) {
    session->rows().Write(block);
    for (const engine::LayerSlots& slots : layout.layers()) {
      if (slots.ratio == 0) continue;
      for (int64_t r = 0; r < kBlockTokens / slots.ratio; ++r) {
        const int64_t row = block * (kBlockTokens / slots.ratio) + r;
        const float* from = values.data() + row % 63 * rig.model->config.head_dim;
        session->WriteRow(slots.rows, layout.row_codec(), row, from);
        if (slots.ratio == 4) {
          session->WriteRow(slots.index_rows, layout.index_codec(), row, from);
        }
      }
    }
  }
  session->LoadCheckpoint(blocks, checkpoint);
  return session;
}

absl::StatusOr<std::shared_ptr<Rig>> NanoRig(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(engine::ModelConfig config, engine::PresetConfig("nano"));
  config.max_positions = std::max(config.max_positions, kContextMax + 1024);
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<engine::Model> model,
                         MakeAndLoad(config, engine::WeightFormat::kBf16, engine::Numerics::kKvq,
                                     context.directory + "/nano"));
  return std::make_shared<Rig>(std::move(model));
}

absl::StatusOr<Prepared> PrepareContext(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Rig> rig, NanoRig(context));
  Prepared prepared;
  for (int64_t tokens = 1024; tokens <= kContextMax; tokens *= 4) {
    CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<engine::SessionState> session,
                           MadeContext(*rig, tokens / kBlockTokens));
    const Role role = tokens == kContextMax ? Role::kOurs : Role::kRival;
    prepared.contenders.push_back(
        {absl::StrCat("tokens: ", tokens), role, [rig, session]() -> absl::StatusOr<double> {
           CAIRN_ASSIGN_OR_RETURN(const double seconds, rig->DecodeSeconds({session.get(), 1}, 20));
           return seconds * 1e6;
         }});
  }
  return prepared;
}

// Bytes of all allocations, with what the allocator adds to them.
int64_t AllocatedBytes() {
  const struct mallinfo2 info = ::mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
}

absl::StatusOr<Prepared> PrepareContextMemory(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Rig> rig, NanoRig(context));
  const double layout_bytes = static_cast<double>(rig->model->layout->rows_entry_bytes()) /
                              static_cast<double>(kBlockTokens);
  const auto measure = [rig]() -> absl::StatusOr<double> {
    const int64_t before = AllocatedBytes();
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<engine::SessionState> session,
                           MadeContext(*rig, kContextMax / kBlockTokens));
    CAIRN_RETURN_IF_ERROR(rig->DecodeSeconds({session.get(), 1}, 1).status());
    return static_cast<double>(AllocatedBytes() - before) / static_cast<double>(kContextMax);
  };
  Prepared prepared;
  prepared.contenders = {{"allocated", Role::kOurs, measure},
                         {"the layout's rows", Role::kLimit,
                          [=]() -> absl::StatusOr<double> { return layout_bytes; }}};
  return prepared;
}

}  // namespace

void AddEngineBenches(std::vector<Bench>& benches) {
  benches.push_back({.name = "engine-prefill",
                     .what = "mini, FP8 and FP4: 2048 tokens in steps of 512",
                     .unit = "tokens/s",
                     .prepare = PreparePrefill});
  struct Decode {
    const char* name;
    const char* weights;
    engine::WeightFormat format;
  };
  for (const Decode& decode :
       {Decode{"engine-decode", "FP8 and FP4", engine::WeightFormat::kFp8Fp4},
        Decode{"engine-decode-bf16", "BF16", engine::WeightFormat::kBf16}}) {
    benches.push_back({.name = decode.name,
                       .what = absl::StrCat("mini, ", decode.weights,
                                            ": sequences of 512 tokens, a token each a step"),
                       .unit = "tokens/s",
                       .ratio_bound = 5,
                       .prepare = [format = decode.format](const BenchContext& context) {
                         return PrepareDecode(MiniRig(context, format), 200);
                       }});
  }
  benches.push_back(
      {.name = "engine-decode-wide",
       .what = "Flash's widths in 4 layers of 16 experts, FP8 and FP4: sequences of "
               "512 tokens, a token each a step",
       .unit = "tokens/s",
       .ratio_bound = 5,
       .prepare = [](const BenchContext& context) { return PrepareDecode(WideRig(context), 10); }});
  benches.push_back({.name = "engine-context",
                     .what = "nano: one more token after that many",
                     .unit = "us",
                     .higher_is_better = false,
                     .prepare = PrepareContext});
  benches.push_back({.name = "engine-context-memory",
                     .what = "nano at 1,048,576 tokens: memory a token",
                     .unit = "B",
                     .higher_is_better = false,
                     .ratio_bound = 1.05,
                     .prepare = PrepareContextMemory});
}

}  // namespace cairn::bench
