#include "engine/forward/forward.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/forward/mtp.h"
#include "engine/forward/step.h"

namespace cairn::engine {
namespace {

// What is replayed has no logits. `end`: the item's.
absl::Status CheckReplay(const StepItem& item, int64_t end) {
  if (end > item.session->replay()->end ? item.want != WantLogits::kAll
                                        : item.want == WantLogits::kNone) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("logits of tokens before ", item.session->replay()->end,
                   " are not to be had: up to there the session is replayed"));
}

// Of sessions that were restored while their prefix arrives.
absl::Status AwaitLayer(const Step& step, int64_t layer) {
  for (const StepSpan& span : step.spans) {
    CAIRN_RETURN_IF_ERROR(span.session->AwaitLayer(layer));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Embed(const Model& model, std::span<const int32_t> tokens, float* streams) {
  const int64_t d = model.config.dim;
  const int64_t hc = model.config.hc;
  // All rows in one call, to the front; then spread from the last on, so that none is overwritten
  // before it was copied.
  CAIRN_RETURN_IF_ERROR(model.embed.Rows(tokens, streams));
  for (int64_t i = std::ssize(tokens) - 1; i >= 0; --i) {
    const float* row = streams + i * d;
    for (int64_t j = hc - 1; j >= 0; --j)
      std::memmove(streams + (i * hc + j) * d, row, static_cast<size_t>(d) * sizeof(float));
  }
  return absl::OkStatus();
}

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
    if (item.session->replay() != nullptr) CAIRN_RETURN_IF_ERROR(CheckReplay(item, end));
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
  std::vector<Part> parts;
  for (StepItem& item : items) {
    Part part{&item, item.tokens, item.mtp_from};
    item.token_layers = 0;
    item.logits.clear();
    if (const ReplayPlan* plan = item.session->replay(); plan != nullptr) {
      const auto left = static_cast<size_t>(plan->end - item.session->position());
      CAIRN_RETURN_IF_ERROR(Replay({&item, item.tokens.first(std::min(left, item.tokens.size()))}));
      part.tokens = item.tokens.subspan(std::min(left, item.tokens.size()));
    }
    if (!part.tokens.empty()) parts.push_back(part);
  }
  return parts.empty() ? absl::OkStatus() : RunParts(parts);
}

absl::Status Forward::RunParts(std::span<const Part> parts) {
  Step step{model_, pool_, workspace_, {}, {}, {}};
  for (const Part& part : parts) {
    SessionState* session = part.item->session;
    const int64_t count = std::ssize(part.tokens);
    step.spans.push_back({session, step.rows(), count, session->position(), part.item->guessed});
    for (int64_t i = 0; i < count; ++i) step.positions.push_back(session->position() + i);
    step.tokens.insert(step.tokens.end(), part.tokens.begin(), part.tokens.end());
    part.item->token_layers += count * model_.config.layers;
  }
  const Workspace::Frame frame(workspace_);
  const int64_t width = model_.config.hc * model_.config.dim;
  float* streams = workspace_.Floats(step.rows() * width);
  CAIRN_RETURN_IF_ERROR(Embed(model_, step.tokens, streams));
  for (const BlockOp& block : model_.layers) {
    CAIRN_RETURN_IF_ERROR(AwaitLayer(step, block.index));
    CAIRN_RETURN_IF_ERROR(RunBlock(step, block, streams));
    if (probe_) probe_(block.index, step.rows(), streams);
  }
  RunHeads(step, parts, streams);
  for (const StepSpan& span : step.spans) CAIRN_RETURN_IF_ERROR(span.session->AwaitAll());
  if (model_.mtp != nullptr) CAIRN_RETURN_IF_ERROR(RunMtp(parts, step.spans, streams));
  for (const StepSpan& span : step.spans) span.session->Advance(span.count);
  return absl::OkStatus();
}

// One head for all sequences: its weights are read once.
void Forward::RunHeads(Step& step, std::span<const Part> parts, const float* streams) {
  const int64_t width = model_.config.hc * model_.config.dim;
  std::vector<HeadRow> rows;
  for (size_t i = 0; i < parts.size(); ++i) {
    StepItem& item = *parts[i].item;
    const int64_t end = step.spans[i].begin + step.spans[i].count;
    const int64_t wanted = item.want == WantLogits::kAll    ? step.spans[i].count
                           : item.want == WantLogits::kLast ? 1
                                                            : 0;
    item.logits.resize(static_cast<size_t>(wanted * model_.config.vocab));
    for (int64_t r = 0; r < wanted; ++r) {
      rows.push_back(
          {streams + (end - wanted + r) * width, item.logits.data() + r * model_.config.vocab});
    }
  }
  RunHead(step, model_.head, rows);
}

absl::Status Forward::RunMtp(std::span<const Part> parts, std::span<const StepSpan> spans,
                             const float* streams) {
  const int64_t width = model_.config.hc * model_.config.dim;
  std::vector<MtpRows> all(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    const StepSpan& span = spans[i];
    const std::vector<float>& hidden = span.session->last_hidden();
    MtpRows& rows = all[i];
    if (!hidden.empty()) rows.previous.push_back(hidden.data());
    for (int64_t r = 0; r + 1 < span.count; ++r) {
      rows.previous.push_back(streams + (span.begin + r) * width);
    }
    rows.session = span.session;
    rows.position = span.position - (hidden.empty() ? 0 : 1);
    rows.tokens = parts[i].tokens.last(rows.previous.size());
    rows.wanted = std::clamp<int64_t>(rows.end() - parts[i].mtp_from, 0, rows.count());
  }
  CAIRN_RETURN_IF_ERROR(RunMtpBlock(model_, pool_, workspace_, all));
  const int64_t vocab = model_.config.vocab;
  for (size_t i = 0; i < parts.size(); ++i) {
    const MtpRows& rows = all[i];
    for (int64_t r = 0; r < rows.wanted && parts[i].item->on_mtp; ++r) {
      parts[i].item->on_mtp(rows.end() - rows.wanted + r,
                            {rows.logits.data() + r * vocab, static_cast<size_t>(vocab)});
    }
    SessionState& session = *spans[i].session;
    const float* last = streams + (spans[i].begin + spans[i].count - 1) * width;
    if (spans[i].guessed) session.undo().last_hidden.assign(last - width, last);
    session.last_hidden().assign(last, last + width);
  }
  return absl::OkStatus();
}

absl::Status Forward::Draft(std::span<DraftItem> items) {
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
  CAIRN_RETURN_IF_ERROR(RunMtpBlock(model_, pool_, workspace_, all));
  for (size_t i = 0; i < items.size(); ++i) items[i].logits = std::move(all[i].logits);
  return absl::OkStatus();
}

}  // namespace cairn::engine
