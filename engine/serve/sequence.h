// sequence.h: one sequence while the scheduler has it: its tokens, its state, its text.
//
// Threads: one owner at a time: the scheduler's thread, or the task that it was handed to.
// Units:   bytes, tokens, nanoseconds of Clock.
#ifndef CAIRN_ENGINE_SERVE_SEQUENCE_H_
#define CAIRN_ENGINE_SERVE_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/serve/batch_runner.h"
#include "engine/serve/cache_slots.h"
#include "engine/serve/generation.h"
#include "engine/serve/stop_matcher.h"
#include "engine/text/tokenizer.h"

namespace cairn::engine {

// Tokens to text: whole characters, stop texts found and held back.
class AnswerText {
 public:
  AnswerText(const Tokenizer& tokenizer, const GenerationRequest& request)
      : decoder_(tokenizer, /*skip_special=*/!request.show_special), stop_(request.stop) {}

  // REQUIRES: the token is in the vocabulary.
  std::string Feed(int32_t token) { return stop_.Feed(*decoder_.Feed(token)); }
  std::string Finish() { return stop_.Feed(decoder_.Finish()) + stop_.Finish(); }
  bool stopped() const { return stop_.stopped(); }

 private:
  StreamDecoder decoder_;
  StopMatcher stop_;
};

struct Sequence {
  Sequence(GenerationRequest wanted, std::shared_ptr<Generation> output, const Tokenizer& tokenizer)
      : request(std::move(wanted)),
        out(std::move(output)),
        tokens(request.prompt),
        sampler(request.sampling, request.prompt),
        text(tokenizer, request) {}

  int64_t prompt_tokens() const { return std::ssize(request.prompt); }
  int64_t answer_tokens() const { return std::ssize(tokens) - prompt_tokens(); }
  // Tokens that are known and not computed: the prompt's rest, or the token sampled last.
  int64_t to_compute() const { return std::ssize(tokens) - session->position(); }
  // Of these, up to the next checkpoint that the cache is to have.
  int64_t ToNextStop() const {
    if (!cache_usable) return to_compute();
    const int64_t from = session->position();
    return slot->cache().NextStop(from, std::ssize(tokens), prompt_tokens()) - from;
  }

  // Starts over; `tokens` are what they are.
  void Renew(BatchRunner& runner) {
    session.reset();  // it may be the last that there is
    session = runner.NewSession();
    cached_tokens = 0;
  }

  // Puts what has been computed since the last time into the cache, if there is one.
  void StoreFinished() {
    if (!cache_usable) return;
    slot->cache().Store(*session, std::span(tokens).first(static_cast<size_t>(session->position())),
                        prompt_tokens());
  }

  // Checks what was restored and makes it the session's own.
  void Settle() {
    // The copy is of rows that were whole after all was computed from them, so they were before.
    PrefixCache& cache = slot->cache();
    settled = cache.Settle(*session, &shared_bytes) && cache.StillIntact();
    if (!settled) shared_bytes = 0;
  }
  // Of what was admitted for it: from here on, rows that others may have too count once for all.
  int64_t GiveBackShared() {
    kv_bytes -= shared_bytes;
    return std::exchange(shared_bytes, 0);
  }

  const GenerationRequest request;
  const std::shared_ptr<Generation> out;
  std::vector<int32_t> tokens;   // the prompt, then the answer
  std::vector<int32_t> guessed;  // what a step computes of it, if that ends with a guess
  Sampler sampler;
  AnswerText text;
  BatchSession session;
  CacheSlot* slot = nullptr;  // null: without a cache
  bool cache_usable = false;  // false once restored rows did not hold
  bool settled = false;       // restored rows were checked and are the session's own
  bool away = false;          // with a task
  bool ended = false;
  int64_t need = 0;           // tokens that the next step could compute of it
  std::vector<float> logits;  // of the last token, while restored rows are being checked
  int64_t cached_tokens = 0;
  int64_t kv_bytes = 0;      // admitted
  int64_t shared_bytes = 0;  // of these, in rows that others may have too; not yet given back
  int64_t arrived_nanos = 0;
  int64_t last_token_nanos = 0;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_SEQUENCE_H_
