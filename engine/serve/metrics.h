// metrics.h: what the server counts, and its text for Prometheus (exposition format 0.0.4).
//
// Threads: any. Units: seconds, tokens, bytes; in the names. Errors: none.
#ifndef CAIRN_ENGINE_SERVE_METRICS_H_
#define CAIRN_ENGINE_SERVE_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "engine/forward/expert_cache.h"
#include "engine/resume/put_queue.h"
#include "store/base/mutex.h"

namespace cairn::engine {

// Seconds, in buckets that double from 1 ms to 131 s.
class Histogram {
 public:
  static constexpr size_t kBuckets = 18;
  static double UpperBound(size_t bucket) { return 1e-3 * static_cast<double>(1 << bucket); }

  void Observe(double seconds);
  void Append(const std::string& name, const std::string& help, std::string& text) const;

 private:
  mutable Mutex mutex_;
  std::array<uint64_t, kBuckets + 1> counts_ ABSL_GUARDED_BY(mutex_) = {};  // the last: beyond
  double sum_ ABSL_GUARDED_BY(mutex_) = 0;
};

struct Metrics {
  // By the scheduler.
  std::atomic<int64_t> requests_running{0};
  std::atomic<int64_t> requests_waiting{0};
  std::atomic<int64_t> kv_bytes_used{0};
  std::atomic<int64_t> kv_bytes_limit{0};
  std::atomic<uint64_t> requests_stopped{0};  // ended by a stop token or text
  std::atomic<uint64_t> requests_at_length{0};
  std::atomic<uint64_t> requests_cancelled{0};
  std::atomic<uint64_t> requests_failed{0};
  std::atomic<uint64_t> requests_refused{0};  // the queue was full
  std::atomic<uint64_t> prompt_tokens{0};
  std::atomic<uint64_t> cached_tokens{0};  // of these, not computed
  std::atomic<uint64_t> answer_tokens{0};
  std::atomic<uint64_t> computed_tokens{0};
  std::atomic<uint64_t> steps{0};
  std::atomic<uint64_t> drafted_tokens{0};   // guessed by the MTP block
  std::atomic<uint64_t> accepted_tokens{0};  // of these, sampled
  // Of prefixes replayed from rows alone: the work, and what it is without the trapezoid.
  std::atomic<uint64_t> replay_token_layers{0};
  std::atomic<uint64_t> replay_rectangle_token_layers{0};
  std::atomic<uint64_t> cache_failures{0};  // restored rows that did not hold and were recomputed
  Histogram queue_seconds;                  // from arrival to admission
  Histogram first_token_seconds;            // from arrival
  Histogram between_tokens_seconds;
  Histogram request_seconds;  // from arrival to the end

  // By the HTTP server: answers by path and status.
  void CountAnswer(const std::string& path, int status);

  std::string Render(const PutStats& puts, bool cache_attached, const ExpertStats& experts) const;

 private:
  mutable Mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> answers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_METRICS_H_
