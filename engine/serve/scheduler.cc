#include "engine/serve/scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace cairn::engine {
namespace {

constexpr double kMeanWeight = 0.1;  // of a new measurement in the mean of request seconds
constexpr double kRetryAfterMax = 60;

absl::Status ShuttingDown() { return absl::UnavailableError("the server is shutting down"); }

}  // namespace

Scheduler::Scheduler(BatchRunner& runner, const Tokenizer& tokenizer, CacheSlots* cache,
                     Spawn spawn, Clock& clock, Metrics& metrics, const Options& options)
    : runner_(runner),
      tokenizer_(tokenizer),
      cache_(cache),
      spawn_(std::move(spawn)),
      clock_(clock),
      metrics_(metrics),
      options_(options) {
  metrics_.kv_bytes_limit = options_.kv_bytes_max;
}

Scheduler::~Scheduler() = default;

double Scheduler::SecondsSince(int64_t nanos) const {
  return static_cast<double>(clock_.NowNanos() - nanos) * 1e-9;
}

// ---- in, from any thread ----

absl::Status Scheduler::Check(const GenerationRequest& request) const {
  if (request.prompt.empty()) return absl::InvalidArgumentError("prompt: must not be empty");
  CAIRN_RETURN_IF_ERROR(tokenizer_.Check(request.prompt));
  CAIRN_RETURN_IF_ERROR(CheckSampling(request.sampling, runner_.config().vocab));
  if (request.max_tokens < 1) return absl::InvalidArgumentError("max_tokens: must be at least 1");
  const int64_t prompt = std::ssize(request.prompt);
  const int64_t most = runner_.tokens_max();
  if (request.max_tokens > most - prompt) {
    return absl::OutOfRangeError(
        absl::StrCat("max_tokens: the prompt has ", prompt, " tokens and ", request.max_tokens,
                     " more are asked for; the maximum is ", most, " together"));
  }
  const int64_t bytes = runner_.SequenceBytes(prompt + request.max_tokens);
  if (bytes > options_.kv_bytes_max) {
    return absl::OutOfRangeError(absl::StrCat("max_tokens: with the prompt's ", prompt,
                                              " tokens they take ", bytes, " bytes of memory; ",
                                              options_.kv_bytes_max, " are there for all"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Generation>> Scheduler::Submit(GenerationRequest request) {
  CAIRN_RETURN_IF_ERROR(Check(request));
  auto out = std::make_shared<Generation>();
  auto sequence = std::make_unique<Sequence>(std::move(request), out, tokenizer_);
  sequence->arrived_nanos = clock_.NowNanos();
  sequence->kv_bytes =
      runner_.SequenceBytes(sequence->prompt_tokens() + sequence->request.max_tokens);
  const MutexLock lock(&mutex_);
  if (closed_) return ShuttingDown();
  if (unfinished_ >= options_.queue_max + options_.sequences_max) {
    ++metrics_.requests_refused;
    return absl::ResourceExhaustedError(
        absl::StrCat(unfinished_,
                     " requests are running or waiting, which is all that are taken; "
                     "try again later"));
  }
  ++unfinished_;
  waiting_.push_back(std::move(sequence));
  metrics_.requests_waiting = std::ssize(waiting_);
  wake_ = true;
  return out;
}

int64_t Scheduler::RetryAfterSeconds() const {
  const MutexLock lock(&mutex_);
  const double seconds = request_seconds_ * static_cast<double>(waiting_.size() + 1) /
                         static_cast<double>(options_.sequences_max);
  return static_cast<int64_t>(std::ceil(std::clamp(seconds, 1.0, kRetryAfterMax)));
}

void Scheduler::Drain(absl::Duration deadline) {
  const MutexLock lock(&mutex_);
  closed_ = true;
  const auto done = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return unfinished_ == 0; };
  mutex_.AwaitWithTimeout(done, deadline);
}

void Scheduler::Stop() {
  const MutexLock lock(&mutex_);
  closed_ = stop_ = true;
}

// ---- the loop ----

void Scheduler::Run() {
  const auto woken = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return wake_ || stop_; };
  for (;;) {
    const bool computed = Step();
    const MutexLock lock(&mutex_);
    if (!computed) mutex_.Await(woken);
    if (stop_) break;
  }
  EndAll();
}

bool Scheduler::Step() {
  Plan plan;
  bool woken = true;
  while (plan.items.empty() && woken) {
    {
      const MutexLock lock(&mutex_);
      wake_ = false;
    }
    AwaitTasks();
    TakeBack();
    DropCancelled();
    Sweep();
    Admit();
    AwaitTasks();
    TakeBack();
    NoteArrivals();
    plan = MakePlan();
    const MutexLock lock(&mutex_);
    woken = wake_;
  }
  if (plan.items.empty()) return false;

  const int64_t start = clock_.NowNanos();
  absl::Status status = Guess(plan);
  if (status.ok()) status = runner_.Run(plan.items);
  const double seconds = step_seconds_ = SecondsSince(start);
  int64_t computed = 0;  // tokens; replayed ones by what they needed
  for (const BatchItem& item : plan.items) computed += item.token_layers;
  computed /= runner_.config().layers;
  ++metrics_.steps;
  metrics_.computed_tokens += static_cast<uint64_t>(computed);
  for (size_t i = 0; i < plan.items.size(); ++i) {
    if (status.ok()) {
      Continue(*plan.sequences[i], computed, seconds, plan.items[i]);
    } else if (plan.sequences[i]->session->arrival_failed()) {
      GiveUpArrival(*plan.sequences[i]);
    } else {
      End(*plan.sequences[i], {.finish = FinishReason::kFailed, .status = status});
    }
  }
  Sweep();
  return true;
}

void Scheduler::DropCancelled() {
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (!sequence->away && !sequence->ended && sequence->out->cancelled()) {
      End(*sequence, {.finish = FinishReason::kFailed, .status = absl::CancelledError("")});
    }
  }
  const MutexLock lock(&mutex_);
  const size_t dropped = std::erase_if(
      waiting_, [](const auto& sequence) { return sequence->out->cancelled().load(); });
  metrics_.requests_cancelled += dropped;
  unfinished_ -= static_cast<int64_t>(dropped);
  metrics_.requests_waiting = std::ssize(waiting_);
}

// Strictly in order: a large request is not overtaken for ever by small ones.
void Scheduler::Admit() {
  const size_t before = running_.size();
  {
    const MutexLock lock(&mutex_);
    while (!waiting_.empty() && std::ssize(running_) < options_.sequences_max &&
           waiting_.front()->kv_bytes <= options_.kv_bytes_max - kv_bytes_used()) {
      kv_bytes_used_ += waiting_.front()->kv_bytes;
      running_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    metrics_.requests_waiting = std::ssize(waiting_);
  }
  metrics_.requests_running = std::ssize(running_);
  metrics_.kv_bytes_used = kv_bytes_used();
  for (size_t i = before; i < running_.size(); ++i) Start(*running_[i]);
}

// Shares the step's budget out, the smallest need first, so that what a sequence does not need of
// its share goes to those behind it. A sequence that decodes needs one token, one that prefills
// those up to the checkpoint that it has to stop at.
Scheduler::Plan Scheduler::MakePlan() {
  Plan plan;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->away || sequence->ended) continue;
    sequence->need = sequence->ToNextStop();
    plan.sequences.push_back(sequence.get());
  }
  KeepArrivingApart(plan.sequences);
  std::stable_sort(plan.sequences.begin(), plan.sequences.end(),
                   [](const Sequence* a, const Sequence* b) { return a->need < b->need; });
  int64_t budget = options_.step_tokens;
  int64_t left = std::ssize(plan.sequences);
  for (Sequence* sequence : plan.sequences) {
    const int64_t from = sequence->session->position();
    const int64_t end = std::ssize(sequence->tokens);
    const int64_t share = std::max<int64_t>(budget / left--, 1);
    const int64_t stop = from + std::min(sequence->need, share);
    BatchItem item;
    item.guessed = share > 1 && MayGuess(*sequence);
    budget -= stop - from + (item.guessed ? 1 : 0);
    item.session = sequence->session.get();
    item.tokens = std::span(sequence->tokens)
                      .subspan(static_cast<size_t>(from), static_cast<size_t>(stop - from));
    item.want = item.guessed  ? WantLogits::kAll
                : stop == end ? WantLogits::kLast
                              : WantLogits::kNone;
    plan.items.push_back(std::move(item));
  }
  return plan;
}

// ---- one sequence ----

void Scheduler::Start(Sequence& sequence) {
  metrics_.queue_seconds.Observe(SecondsSince(sequence.arrived_nanos));
  sequence.Renew(runner_);
  sequence.settled = true;
  if (cache_ == nullptr) return;
  HandOff(sequence, [this, &sequence] {
    if (sequence.out->cancelled()) return;
    sequence.slot = cache_->Take();
    if (sequence.slot == nullptr) return;
    sequence.slot->InterruptBy(&sequence.out->cancelled());
    PrefixCache& cache = sequence.slot->cache();
    const ResumeReport report = cache.Resume(sequence.request.prompt, *sequence.session);
    cache.AwaitStart(sequence.to_compute());
    sequence.cached_tokens = report.prefix_tokens;
    metrics_.replay_token_layers += static_cast<uint64_t>(report.replay_token_layers);
    metrics_.replay_rectangle_token_layers +=
        static_cast<uint64_t>(report.replay_rectangle_token_layers);
    sequence.cache_usable = true;
    sequence.settled = sequence.cached_tokens == 0;
  });
}

// After a step that computed `computed` tokens of all sequences in `seconds`.
void Scheduler::Continue(Sequence& sequence, int64_t computed, double seconds, BatchItem& item) {
  if (item.guessed) return ContinueGuessed(sequence, item);
  if (sequence.cache_usable && item.tokens.size() > 1) {
    sequence.slot->cache().ObservePrefill(sequence.session->position(), computed, seconds);
  }
  sequence.StoreFinished();
  if (sequence.to_compute() > 0) return;
  if (sequence.settled) return Produce(sequence, item.logits);
  sequence.logits = std::move(item.logits);
  HandOff(sequence, [&sequence] { sequence.Settle(); });
}

void Scheduler::Produce(Sequence& sequence, std::span<const float> logits) {
  const int64_t position = std::ssize(sequence.tokens);
  if (probe_) probe_(sequence.request, position, logits);
  SampledToken sampled = sequence.sampler.Next(logits, position);
  const int64_t now = clock_.NowNanos();
  if (sequence.answer_tokens() == 0) {
    metrics_.first_token_seconds.Observe(SecondsSince(sequence.arrived_nanos));
    metrics_.prompt_tokens += static_cast<uint64_t>(sequence.prompt_tokens());
    metrics_.cached_tokens += static_cast<uint64_t>(sequence.cached_tokens);
  } else {
    metrics_.between_tokens_seconds.Observe(SecondsSince(sequence.last_token_nanos));
  }
  ++metrics_.answer_tokens;
  sequence.last_token_nanos = now;
  sequence.tokens.push_back(sampled.token);

  Output output;
  const GenerationRequest& request = sequence.request;
  const bool stop_token = std::find(request.stop_tokens.begin(), request.stop_tokens.end(),
                                    sampled.token) != request.stop_tokens.end();
  if (!stop_token) {
    output.text = sequence.text.Feed(sampled.token);
    output.tokens.push_back(std::move(sampled));
  }
  if (stop_token || sequence.text.stopped()) {
    output.finish = FinishReason::kStop;
  } else if (sequence.answer_tokens() == request.max_tokens) {
    output.finish = FinishReason::kLength;
  }
  if (output.finish.has_value()) {
    output.text += sequence.text.Finish();
    return End(sequence, std::move(output));
  }
  Push(sequence, std::move(output));
}

void Scheduler::Push(const Sequence& sequence, Output output) {
  output.prompt_tokens = sequence.prompt_tokens();
  output.cached_tokens = sequence.cached_tokens;
  output.answer_tokens = sequence.answer_tokens();
  sequence.out->Push(std::move(output));
}

// ---- its end ----

void Scheduler::End(Sequence& sequence, Output output) {
  sequence.ended = true;
  CountEnd(sequence, *output.finish);
  Push(sequence, std::move(output));
  if (sequence.slot == nullptr) return;
  HandOff(sequence, [this, &sequence] {
    sequence.slot->cache().Finish();
    cache_->Give(std::exchange(sequence.slot, nullptr));
  });
}

void Scheduler::CountEnd(const Sequence& sequence, FinishReason reason) {
  if (sequence.out->cancelled()) {
    ++metrics_.requests_cancelled;
    return;
  }
  ++(reason == FinishReason::kStop     ? metrics_.requests_stopped
     : reason == FinishReason::kLength ? metrics_.requests_at_length
                                       : metrics_.requests_failed);
  const double seconds = SecondsSince(sequence.arrived_nanos);
  metrics_.request_seconds.Observe(seconds);
  const MutexLock lock(&mutex_);
  request_seconds_ += (request_seconds_ == 0 ? 1 : kMeanWeight) * (seconds - request_seconds_);
}

// Gives back the places and the memory of those that have ended.
void Scheduler::Sweep() {
  int64_t swept = 0;
  std::erase_if(running_, [&](const std::unique_ptr<Sequence>& sequence) {
    if (!sequence->ended || sequence->away) return false;
    kv_bytes_used_ -= sequence->kv_bytes;
    ++swept;
    return true;
  });
  // In this order: whoever sees that nothing runs sees its memory given back.
  metrics_.kv_bytes_used = kv_bytes_used();
  metrics_.requests_running = std::ssize(running_);
  const MutexLock lock(&mutex_);
  unfinished_ -= swept;
}

void Scheduler::EndAll() {
  const auto fail = [this](Sequence& sequence) {
    if (!sequence.ended && !sequence.away) {
      End(sequence, {.finish = FinishReason::kFailed, .status = ShuttingDown()});
    }
  };
  std::deque<std::unique_ptr<Sequence>> waiting;
  {
    const MutexLock lock(&mutex_);
    waiting.swap(waiting_);
    unfinished_ -= std::ssize(waiting);
  }
  for (const std::unique_ptr<Sequence>& sequence : waiting) fail(*sequence);
  for (;;) {
    TakeBack();
    for (const std::unique_ptr<Sequence>& sequence : running_) {
      // Its wait for another engine's prefill, if it is in one, ends by that.
      if (sequence->away) sequence->out->Cancel();
      fail(*sequence);
    }
    Sweep();
    if (running_.empty()) return;
    const auto returned = [this]()
                              ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !returned_.empty(); };
    const MutexLock lock(&mutex_);
    mutex_.Await(returned);
  }
}

}  // namespace cairn::engine
