// Speculation: what Scheduler::Step does more where the MTP block guesses.
#include "engine/serve/scheduler.h"
#include "store/base/limits.h"

namespace cairn::engine {

// A sequence that decodes, of which more is wanted than the token the next step gives anyway. A
// guess is in the block of the token before it, so that a block's end is never passed by one.
bool Scheduler::MayGuess(const Sequence& sequence) const {
  const int64_t guess = sequence.session->position() + 1;
  return options_.speculate && sequence.settled && sequence.answer_tokens() > 0 &&
         sequence.to_compute() == 1 && guess % kBlockTokens != 0 &&
         sequence.request.max_tokens - sequence.answer_tokens() > 1;
}

absl::Status Scheduler::Guess(Plan& plan) {
  std::vector<BatchDraft> drafts;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    if (plan.items[i].guessed) {
      drafts.push_back({plan.items[i].session, plan.sequences[i]->tokens.back(), {}});
    }
  }
  if (drafts.empty()) return absl::OkStatus();
  CAIRN_RETURN_IF_ERROR(runner_.Draft(drafts));
  for (size_t i = 0, d = 0; i < plan.items.size(); ++i) {
    if (!plan.items[i].guessed) continue;
    Sequence& sequence = *plan.sequences[i];
    const int64_t position = std::ssize(sequence.tokens);
    int32_t guess = sequence.sampler.Guess(drafts[d++].logits, position);
    if (guesser_) guess = guesser_(sequence.request, position, guess);
    sequence.guessed = {sequence.tokens.back(), guess};
    plan.items[i].tokens = sequence.guessed;
    ++metrics_.drafted_tokens;
  }
  return absl::OkStatus();
}

void Scheduler::ContinueGuessed(Sequence& sequence, const BatchItem& item) {
  const std::span<const float> logits = item.logits;
  const size_t vocab = logits.size() / 2;
  Produce(sequence, logits.first(vocab));
  if (sequence.ended) return;
  const bool right = sequence.tokens.back() == item.tokens.back();
  if (!right) runner_.TakeBack(*sequence.session);
  sequence.StoreFinished();
  if (!right) return;
  ++metrics_.accepted_tokens;
  Produce(sequence, logits.last(vocab));
}

}  // namespace cairn::engine
