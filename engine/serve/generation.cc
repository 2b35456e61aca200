#include "engine/serve/generation.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdlib>
#include <iterator>
#include <utility>

namespace cairn::engine {

Generation::Generation() : ready_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  // Requests are bounded far below the descriptors a process may have (http_server.h).
  if (ready_fd_ < 0) std::abort();
}

Generation::~Generation() { close(ready_fd_); }

std::optional<Output> Generation::Take() {
  const MutexLock lock(&mutex_);
  eventfd_t count = 0;
  eventfd_read(ready_fd_, &count);
  return std::exchange(pending_, std::nullopt);
}

void Generation::Push(Output more) {
  const MutexLock lock(&mutex_);
  if (pending_.has_value()) {
    more.text.insert(0, pending_->text);
    more.tokens.insert(more.tokens.begin(), std::make_move_iterator(pending_->tokens.begin()),
                       std::make_move_iterator(pending_->tokens.end()));
  }
  pending_ = std::move(more);
  eventfd_write(ready_fd_, 1);
}

}  // namespace cairn::engine
