#include <utility>

#include "engine/serve/batch_runner.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

class CpuRunner final : public BatchRunner {
 public:
  explicit CpuRunner(Forward& forward) : forward_(forward) {}

  const ModelConfig& config() const override { return model().config; }
  int64_t tokens_max() const override { return config().max_positions; }
  int64_t SequenceBytes(int64_t tokens) const override {
    return engine::SequenceBytes(config(), *model().layout, tokens);
  }
  ExpertStats expert_stats() const override { return model().experts->stats(); }

  BatchSession NewSession() override {
    return {std::make_unique<SessionState>(config(), *model().layout).release(),
            [](CachedSession* session) { delete session; }};
  }
  absl::Status Run(std::span<BatchItem> items) override {
    std::vector<StepItem> steps(items.size());
    for (size_t i = 0; i < items.size(); ++i) {
      steps[i].session = &StateOf(*items[i].session);
      steps[i].tokens = items[i].tokens;
      steps[i].guessed = items[i].guessed;
      steps[i].want = items[i].want;
    }
    const absl::Status status = forward_.Run(steps);
    for (size_t i = 0; i < items.size(); ++i) {
      items[i].logits = std::move(steps[i].logits);
      items[i].token_layers = steps[i].token_layers;
    }
    return status;
  }

  bool drafts() const override { return model().mtp != nullptr; }
  absl::Status Draft(std::span<BatchDraft> drafts) override {
    std::vector<DraftItem> items;
    for (const BatchDraft& draft : drafts) {
      items.push_back({&StateOf(*draft.session), draft.token, {}});
    }
    CAIRN_RETURN_IF_ERROR(forward_.Draft(items));
    for (size_t i = 0; i < items.size(); ++i) drafts[i].logits = std::move(items[i].logits);
    return absl::OkStatus();
  }
  void TakeBack(CachedSession& session) override { StateOf(session).TakeBack(); }

 private:
  const Model& model() const { return forward_.model(); }
  // Of a session that NewSession made.
  static SessionState& StateOf(CachedSession& session) {
    return static_cast<SessionState&>(session);
  }

  Forward& forward_;
};

}  // namespace

std::unique_ptr<BatchRunner> CpuBatchRunner(Forward& forward) {
  return std::make_unique<CpuRunner>(forward);
}

int64_t SequenceBytes(const ModelConfig& config, const KvLayout& layout, int64_t tokens) {
  const int64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
  int64_t bytes = blocks * layout.rows_entry_bytes() + layout.checkpoint_bytes();
  // Open groups: kv and score of every token, F32; of ratio 4 both halves, and the indexer's.
  // Twice, with the overlap and the streams: what a guess can be undone with.
  bytes += config.hc * config.dim * static_cast<int64_t>(sizeof(float));
  for (const LayerSlots& slots : layout.layers()) {
    const int64_t width =
        slots.ratio == 4 ? 2 * (config.head_dim + config.index_dim) : config.head_dim;
    bytes += 2 * slots.ratio * width * 2 * static_cast<int64_t>(sizeof(float));
    bytes += slots.overlap.bytes() + slots.index_overlap.bytes();
  }
  return bytes;
}

}  // namespace cairn::engine
