// thread.h: a thread, where the system may have none to give: a container's limit of tasks is
// reached sooner than one thinks, and std::thread throws then where nobody catches.
//
// Threads: any. Errors: RESOURCE_EXHAUSTED: no thread, and nothing of `run` has happened.
#ifndef CAIRN_STORE_BASE_THREAD_H_
#define CAIRN_STORE_BASE_THREAD_H_

#include <functional>
#include <thread>

#include "store/base/status.h"

namespace cairn {

absl::StatusOr<std::thread> StartThread(std::function<void()> run);

// For tests: while one lives, StartThread has none to give, in the whole process.
class NoThreads {
 public:
  NoThreads();
  ~NoThreads();
  NoThreads(const NoThreads&) = delete;
};

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_THREAD_H_
