// liar.h: one lie in one answer. Every field of a message, at every depth, can be told wrong in a
// few ways: numbers off by one, zero, huge; bytes shorter, longer, flipped, zeroed; lists shorter,
// longer, emptied, out of order; what should be there absent. Which fields there are is asked of
// the message, so a new one is lied about too.
//
// Threads: any.
#ifndef CAIRN_TESTS_LIES_LIAR_H_
#define CAIRN_TESTS_LIES_LIAR_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "store/base/mutex.h"

namespace cairn::lies {

struct Lie {
  std::string name;  // "rows_blocks + 1"
  std::function<void()> tell;
};

// All there are for this message as it stands; valid while it is not changed otherwise.
std::vector<Lie> LiesAbout(google::protobuf::Message& message);

class Liar {
 public:
  // The `index`-th lie of all that `method`'s answers allow, counted over the answers of a run.
  Liar(std::string method, uint64_t index) : method_(std::move(method)), index_(index) {}

  // Tells it if this answer has it.
  void Speak(const std::string& method, google::protobuf::Message& answer);
  std::string told() const;  // empty: not yet

 private:
  const std::string method_;
  const uint64_t index_;
  mutable Mutex mutex_;
  uint64_t passed_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string told_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace cairn::lies

#endif  // CAIRN_TESTS_LIES_LIAR_H_
