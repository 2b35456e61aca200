#include "engine/forward/forward.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/forward/mtp.h"
#include "engine/forward/step.h"

namespace cairn::engine {
namespace {

Step MakeStep(const Model& model, kernels::ThreadPool& pool, Workspace& workspace,
              std::span<const StepItem> items) {
  Step step{model, pool, workspace, {}, {}, {}};
  for (const StepItem& item : items) {
    const int64_t count = static_cast<int64_t>(item.tokens.size());
    step.spans.push_back(
        {item.session, step.rows(), count, item.session->position(), item.guessed});
    for (int64_t i = 0; i < count; ++i) step.positions.push_back(item.session->position() + i);
    step.tokens.insert(step.tokens.end(), item.tokens.begin(), item.tokens.end());
  }
  return step;
}

// streams [R, hc, d]: the token's embedding in every stream.
void Embed(const Step& step, float* streams) {
  const int64_t d = step.model.config.dim;
  const int64_t hc = step.model.config.hc;
  for (int64_t r = 0; r < step.rows(); ++r) {
    const float* row = step.model.embed.data() + step.tokens[static_cast<size_t>(r)] * d;
    for (int64_t j = 0; j < hc; ++j) {
      std::memcpy(streams + (r * hc + j) * d, row, static_cast<size_t>(d) * sizeof(float));
    }
  }
}

}  // namespace

Forward::Forward(const Model& model, int threads) : model_(model), pool_(std::max(threads, 1)) {}

absl::Status Forward::Check(std::span<const StepItem> items) const {
  for (const StepItem& item : items) {
    const int64_t start = item.session->position();
    const int64_t end = start + static_cast<int64_t>(item.tokens.size());
    if (item.tokens.empty())
      return absl::InvalidArgumentError("a step needs at least one token a sequence");
    if (end > model_.config.max_positions) {
      return absl::OutOfRangeError(absl::StrCat("the sequence would be ", end,
                                                " tokens long; the model's maximum is ",
                                                model_.config.max_positions));
    }
    for (size_t i = 0; i < item.tokens.size(); ++i) {
      if (item.tokens[i] < 0 || item.tokens[i] >= model_.config.vocab) {
        return absl::InvalidArgumentError(
            absl::StrCat("token ", item.tokens[i], " at position ", start + static_cast<int64_t>(i),
                         " is outside of the vocabulary of ", model_.config.vocab));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Forward::Run(std::span<StepItem> items) {
  CAIRN_RETURN_IF_ERROR(Check(items));
  Step step = MakeStep(model_, pool_, workspace_, items);
  const Workspace::Frame frame(workspace_);
  const int64_t width = model_.config.hc * model_.config.dim;
  float* streams = workspace_.Floats(step.rows() * width);
  Embed(step, streams);
  for (const BlockOp& block : model_.layers) {
    RunBlock(step, block, streams);
    if (probe_) probe_(block.index, step.rows(), streams);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const StepSpan& span = step.spans[i];
    StepItem& item = items[i];
    const int64_t wanted = item.want == WantLogits::kAll    ? span.count
                           : item.want == WantLogits::kLast ? 1
                                                            : 0;
    item.logits.resize(static_cast<size_t>(wanted * model_.config.vocab));
    if (wanted > 0) {
      const float* from = streams + (span.begin + span.count - wanted) * width;
      RunHead(step, model_.head, from, wanted, item.logits.data());
    }
  }
  if (model_.mtp != nullptr) RunMtp(items, step, streams);
  for (const StepSpan& span : step.spans) span.session->Advance(span.count);
  return absl::OkStatus();
}

void Forward::RunMtp(std::span<StepItem> items, const Step& main, const float* streams) {
  const int64_t width = model_.config.hc * model_.config.dim;
  std::vector<MtpRows> all;
  for (size_t i = 0; i < items.size(); ++i) {
    const StepSpan& span = main.spans[i];
    MtpRows rows;
    const std::vector<float>& hidden = span.session->last_hidden();
    if (!hidden.empty()) rows.previous.push_back(hidden.data());
    for (int64_t r = 0; r + 1 < span.count; ++r) {
      rows.previous.push_back(streams + (span.begin + r) * width);
    }
    rows.session = span.session;
    rows.position = span.position - (hidden.empty() ? 0 : 1);
    rows.tokens = items[i].tokens.last(rows.previous.size());
    rows.wanted = std::clamp<int64_t>(rows.end() - items[i].mtp_from, 0, rows.count());
    all.push_back(std::move(rows));
  }
  RunMtpBlock(model_, pool_, workspace_, all);
  for (size_t i = 0; i < items.size(); ++i) {
    const StepSpan& span = main.spans[i];
    const int64_t vocab = model_.config.vocab;
    for (int64_t r = 0; r < all[i].wanted && items[i].on_mtp; ++r) {
      items[i].on_mtp(all[i].end() - all[i].wanted + r,
                      {all[i].logits.data() + r * vocab, static_cast<size_t>(vocab)});
    }
    const float* last = streams + (span.begin + span.count - 1) * width;
    std::vector<float>& hidden = span.session->last_hidden();
    if (span.guessed) span.session->undo().last_hidden.assign(last - width, last);
    hidden.assign(last, last + width);
  }
}

void Forward::Draft(std::span<DraftItem> items) {
  std::vector<MtpRows> all;
  for (const DraftItem& item : items) {
    MtpRows rows;
    rows.session = item.session;
    rows.position = item.session->position() - 1;
    rows.previous.push_back(item.session->last_hidden().data());
    rows.tokens = std::span(&item.token, 1);
    rows.wanted = 1;
    all.push_back(std::move(rows));
  }
  RunMtpBlock(model_, pool_, workspace_, all);
  for (size_t i = 0; i < items.size(); ++i) items[i].logits = std::move(all[i].logits);
}

}  // namespace cairn::engine
