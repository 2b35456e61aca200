// Replay: the windows and the rest of the state at a block's end, from stored rows. Spec section
// 2.10, rule D; what is computed of which layer, and why, is in state/replay_plan.h.
#include <algorithm>

#include "engine/forward/forward.h"
#include "engine/forward/step.h"

namespace cairn::engine {

absl::Status Forward::Replay(const Part& part) {
  SessionState* session = part.item->session;
  const ReplayPlan& plan = *session->replay();
  const int64_t begin = session->position();
  const int64_t end = begin + std::ssize(part.tokens);
  const int64_t width = model_.config.hc * model_.config.dim;
  const Workspace::Frame frame(workspace_);
  float* streams = workspace_.Floats(std::ssize(part.tokens) * width);
  CAIRN_RETURN_IF_ERROR(Embed(model_, part.tokens, streams));
  const auto tokens = [&](int64_t from) {
    return part.tokens.subspan(static_cast<size_t>(from - begin));
  };
  const auto step_of = [&](int64_t from, int64_t stop) {
    Step step{model_, pool_, workspace_, {{session, 0, stop - from, from}}, {}, {}, plan.end};
    const std::span<const int32_t> its = tokens(from).first(static_cast<size_t>(stop - from));
    step.tokens.assign(its.begin(), its.end());
    for (int64_t position = from; position < stop; ++position) step.positions.push_back(position);
    return step;
  };
  for (const BlockOp& block : model_.layers) {
    const int64_t from = std::clamp(plan.From(block.index), begin, end);
    const int64_t whole = std::clamp(plan.WholeFrom(block.index), from, end);
    if (from < whole) {
      Step step = step_of(from, whole);
      AppendBlock(step, block, streams + (from - begin) * width);
    }
    if (whole < end) {
      Step step = step_of(whole, end);
      CAIRN_RETURN_IF_ERROR(RunBlock(step, block, streams + (whole - begin) * width));
      if (probe_) probe_(block.index, end - whole, streams + (whole - begin) * width);
    }
  }
  if (const int64_t from = std::max(plan.From(plan.layers), begin);
      model_.mtp != nullptr && from < end) {
    const Part mtp{part.item, tokens(from)};
    const StepSpan span{session, 0, end - from, from};
    CAIRN_RETURN_IF_ERROR(RunMtp({&mtp, 1}, {&span, 1}, streams + (from - begin) * width));
  }
  part.item->token_layers += plan.TokenLayers(begin, end);
  session->Advance(end - begin);
  return absl::OkStatus();
}

}  // namespace cairn::engine
