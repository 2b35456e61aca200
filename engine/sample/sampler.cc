#include "engine/sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/sample/counter_random.h"

namespace cairn::engine {
namespace {

// Under it the division would overflow, and nothing but the likeliest token has any weight.
constexpr double kGreedyTemperature = 1e-5;

int32_t Likeliest(std::span<const float> scores) {
  return static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

// Whether token a comes before token b.
struct Before {
  std::span<const float> scores;
  bool operator()(int32_t a, int32_t b) const {
    const float x = scores[static_cast<size_t>(a)];
    const float y = scores[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  }
};

void AddLogprobs(std::span<const float> logits, int count, SampledToken& sampled) {
  const double max = logits[static_cast<size_t>(Likeliest(logits))];
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  const auto logprob = [&](int32_t token) {
    return logits[static_cast<size_t>(token)] - max - std::log(sum);
  };
  sampled.logprob = logprob(sampled.token);
  if (count == 0) return;
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + std::min<std::ptrdiff_t>(count, std::ssize(order));
  std::partial_sort(order.begin(), end, order.end(), Before{logits});
  for (auto it = order.begin(); it != end; ++it) sampled.top.push_back({*it, logprob(*it)});
}

}  // namespace

Sampler::Sampler(SamplingParams params, std::span<const int32_t> prompt)
    : params_(std::move(params)) {
  if (params_.repetition_penalty != 1) seen_.insert(prompt.begin(), prompt.end());
}

int32_t Sampler::Guess(std::span<const float> logits, int64_t position) {
  scores_.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : params_.logit_bias) {
    scores_[static_cast<size_t>(token)] += static_cast<float>(bias);
  }
  AddPenalties();
  return params_.temperature < kGreedyTemperature
             ? Likeliest(scores_)
             : Draw(UniformAt(params_.seed, static_cast<uint64_t>(position)));
}

SampledToken Sampler::Next(std::span<const float> logits, int64_t position) {
  SampledToken sampled;
  sampled.token = Guess(logits, position);
  if (params_.top_logprobs != kNoLogprobs) AddLogprobs(logits, params_.top_logprobs, sampled);
  if (params_.repetition_penalty != 1) seen_.insert(sampled.token);
  if (params_.presence_penalty != 0 || params_.frequency_penalty != 0) ++in_answer_[sampled.token];
  return sampled;
}

void Sampler::AddPenalties() {
  const auto repetition = static_cast<float>(params_.repetition_penalty);
  for (const int32_t token : seen_) {
    float& score = scores_[static_cast<size_t>(token)];
    score = score > 0 ? score / repetition : score * repetition;
  }
  for (const auto& [token, count] : in_answer_) {
    scores_[static_cast<size_t>(token)] -= static_cast<float>(
        params_.frequency_penalty * static_cast<double>(count) + params_.presence_penalty);
  }
}

// Takes tokens off a heap, best first, and no more of them than it needs to know.
int32_t Sampler::Draw(double uniform) {
  // std's heaps have the largest on top, so "less" is "comes later".
  const auto later = [before = Before{scores_}](int32_t a, int32_t b) { return before(b, a); };
  heap_.resize(scores_.size());
  std::iota(heap_.begin(), heap_.end(), 0);
  std::make_heap(heap_.begin(), heap_.end(), later);
  const double max = scores_[static_cast<size_t>(heap_.front())];
  const auto weight = [&](int32_t token) {
    return std::exp((scores_[static_cast<size_t>(token)] - max) / params_.temperature);
  };
  const size_t count_max = params_.top_k == 0
                               ? scores_.size()
                               : std::min(static_cast<size_t>(params_.top_k), scores_.size());
  kept_.clear();
  // Makes kept_[i], unless min_p and top_k have no token left for it.
  const auto have = [&](size_t i) {
    if (i < kept_.size()) return true;
    if (i >= count_max || weight(heap_.front()) < params_.min_p) return false;
    std::pop_heap(heap_.begin(), heap_.end(), later);
    kept_.emplace_back(heap_.back(), weight(heap_.back()));
    heap_.pop_back();
    return true;
  };

  double mass = 0;  // of what min_p and top_k leave
  if (params_.min_p == 0 && count_max == scores_.size()) {
    for (size_t i = 0; i < scores_.size(); ++i) mass += weight(static_cast<int32_t>(i));
  } else {
    for (size_t i = 0; have(i); ++i) mass += kept_[i].second;
  }
  size_t count = count_max;
  if (params_.top_p < 1) {
    double sum = 0;
    for (count = 0; sum < params_.top_p * mass && have(count); ++count) sum += kept_[count].second;
    mass = sum;
  }
  double sum = 0;
  for (size_t i = 0; i < count && have(i); ++i) {
    sum += kept_[i].second;
    if (sum > uniform * mass) return kept_[i].first;
  }
  return kept_[std::min(count, kept_.size()) - 1].first;  // rounding: the last one
}

}  // namespace cairn::engine
