#include "engine/serve/metrics.h"

#include "absl/strings/str_cat.h"

namespace cairn::engine {
namespace {

constexpr char kPrefix[] = "cairn_engine_";

void Head(const std::string& name, const std::string& help, const char* type, std::string& text) {
  absl::StrAppend(&text, "# HELP ", kPrefix, name, " ", help, "\n# TYPE ", kPrefix, name, " ", type,
                  "\n");
}

template <typename T>
void Append(const std::string& name, const std::string& help, const char* type, T value,
            std::string& text) {
  Head(name, help, type, text);
  absl::StrAppend(&text, kPrefix, name, " ", value, "\n");
}

}  // namespace

void Histogram::Observe(double seconds) {
  size_t bucket = 0;
  while (bucket < kBuckets && seconds > UpperBound(bucket)) ++bucket;
  const MutexLock lock(&mutex_);
  ++counts_[bucket];
  sum_ += seconds;
}

void Histogram::Append(const std::string& name, const std::string& help, std::string& text) const {
  Head(name, help, "histogram", text);
  const MutexLock lock(&mutex_);
  uint64_t count = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    count += counts_[i];
    absl::StrAppend(&text, kPrefix, name, "_bucket{le=\"", UpperBound(i), "\"} ", count, "\n");
  }
  count += counts_[kBuckets];
  absl::StrAppend(&text, kPrefix, name, "_bucket{le=\"+Inf\"} ", count, "\n", kPrefix, name,
                  "_sum ", sum_, "\n", kPrefix, name, "_count ", count, "\n");
}

void Metrics::CountAnswer(const std::string& path, int status) {
  const MutexLock lock(&mutex_);
  ++answers_[{path, status}];
}

std::string Metrics::Render(const PutStats& puts, bool cache_attached,
                            const ExpertStats& experts) const {
  std::string text;
  {
    const MutexLock lock(&mutex_);
    Head("http_answers_total", "HTTP answers.", "counter", text);
    for (const auto& [key, count] : answers_) {
      absl::StrAppend(&text, kPrefix, "http_answers_total{path=\"", key.first, "\",status=\"",
                      key.second, "\"} ", count, "\n");
    }
  }
  Head("requests_total", "Requests that ended, by how.", "counter", text);
  for (const auto& [how, count] :
       {std::pair<const char*, uint64_t>{"stop", requests_stopped.load()},
        {"length", requests_at_length.load()},
        {"cancelled", requests_cancelled.load()},
        {"failed", requests_failed.load()},
        {"refused", requests_refused.load()}}) {
    absl::StrAppend(&text, kPrefix, "requests_total{end=\"", how, "\"} ", count, "\n");
  }
  const auto gauge = [&](const char* name, const char* help, int64_t value) {
    Append(name, help, "gauge", value, text);
  };
  const auto counter = [&](const char* name, const char* help, uint64_t value) {
    Append(name, help, "counter", value, text);
  };
  gauge("requests_running", "Requests that hold memory.", requests_running.load());
  gauge("requests_waiting", "Requests in the queue.", requests_waiting.load());
  gauge("kv_used_bytes", "Memory admitted to running requests.", kv_bytes_used.load());
  gauge("kv_limit_bytes", "Memory that may be admitted.", kv_bytes_limit.load());
  counter("prompt_tokens_total", "Tokens of prompts.", prompt_tokens.load());
  counter("prompt_cached_tokens_total", "Of these, restored from the cache.", cached_tokens.load());
  counter("answer_tokens_total", "Tokens generated.", answer_tokens.load());
  counter("computed_tokens_total", "Tokens that went through the model.", computed_tokens.load());
  counter("steps_total", "Steps of the model.", steps.load());
  counter("drafted_tokens_total", "Tokens guessed by the MTP block.", drafted_tokens.load());
  counter("accepted_tokens_total", "Of these, right.", accepted_tokens.load());
  counter("replay_token_layers_total",
          "Tokens times layers computed to replay prefixes whose rows alone were stored.",
          replay_token_layers.load());
  counter("replay_rectangle_token_layers_total",
          "What they would be with all layers computed for all tokens of a replay.",
          replay_rectangle_token_layers.load());
  gauge("cache_attached", "1 while there is a cache.", cache_attached ? 1 : 0);
  counter("cache_failures_total", "Restored prefixes that were taken back and computed again.",
          cache_failures.load());
  counter("cache_put_entries_total", "Entries put.", puts.put_entries);
  counter("cache_put_bytes_total", "Bytes put.", puts.put_bytes);
  counter("cache_existing_entries_total", "Entries that were there.", puts.existing_entries);
  counter("cache_dropped_entries_total", "Entries not put.", puts.dropped_entries);
  gauge("experts", "Routed experts of the model.", static_cast<int64_t>(experts.experts));
  gauge("expert_places", "Of these, in memory at most.", static_cast<int64_t>(experts.places));
  counter("expert_hits_total", "Experts that steps took from memory.", experts.hits);
  counter("expert_misses_total", "Experts that were read for a step.", experts.misses);
  counter("expert_evictions_total", "Experts given up for others.", experts.evictions);
  counter("expert_reads_total", "Experts read, at loading too.", experts.reads);
  counter("expert_read_bytes_total", "Bytes of them.", experts.read_bytes);
  Append("expert_wait_seconds_total", "That steps waited for reads.", "counter",
         static_cast<double>(experts.wait_nanos) * 1e-9, text);
  queue_seconds.Append("queue_seconds", "From arrival to admission.", text);
  first_token_seconds.Append("first_token_seconds", "From arrival to the first token.", text);
  between_tokens_seconds.Append("between_tokens_seconds", "From one token to the next.", text);
  request_seconds.Append("request_seconds", "From arrival to the end.", text);
  return text;
}

}  // namespace cairn::engine
