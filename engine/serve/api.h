// api.h: the endpoints without HTTP: a body in, a running request and the form of its answer out.
//
// Threads:   any. Ownership: everything given to the constructor outlives this and its calls.
// Errors:    those of api_request.h and scheduler.h; ErrorOf (api_error.h) makes answers of them.
#ifndef CAIRN_ENGINE_SERVE_API_H_
#define CAIRN_ENGINE_SERVE_API_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/serve/api_answer.h"
#include "engine/serve/api_request.h"
#include "engine/serve/scheduler.h"
#include "store/base/mutex.h"
#include "store/base/random.h"

namespace cairn::engine {

class Api {
 public:
  struct Options {
    ServedModel model;
    int64_t max_positions = 0;
    int64_t answer_tokens_default = 4096;  // of a chat, as far as the model's maximum has room
  };
  // `cache` may be null.
  Api(Scheduler& scheduler, const Tokenizer& tokenizer, const CacheSlots* cache, Metrics& metrics,
      Clock& clock, Random& random, Options options);

  struct Call {
    std::shared_ptr<Generation> generation;
    std::unique_ptr<ApiAnswer> answer;
    bool stream = false;
  };
  absl::StatusOr<Call> Complete(std::string_view body);
  absl::StatusOr<Call> Chat(std::string_view body);

  std::string Models() const;
  // NOT_FOUND: it is not served here.
  absl::StatusOr<std::string> DescribeModel(const std::string& name) const;
  std::string MetricsText() const;
  int64_t RetryAfterSeconds() const { return scheduler_.RetryAfterSeconds(); }
  Metrics& metrics() { return metrics_; }

 private:
  absl::StatusOr<Call> ParseAndComplete(std::string_view body);
  absl::StatusOr<Call> ParseAndChat(std::string_view body);
  absl::StatusOr<Call> Submit(const ApiRequest& request, std::vector<int32_t> prompt,
                              bool show_special, int64_t answer_tokens_default);
  AnswerHead Head(const char* prefix, const ApiRequest& request);

  Scheduler& scheduler_;
  const Tokenizer& tokenizer_;
  const CacheSlots* const cache_;
  Metrics& metrics_;
  Clock& clock_;
  Random& random_;
  const Options options_;
  Mutex large_bodies_;
  const int64_t started_;  // seconds since 1970
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_API_H_
