#include "engine/serve/http_connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cairn::engine {
namespace {

constexpr size_t kReadBytes = 16 << 10;
constexpr absl::Duration kWriteDeadline = absl::Seconds(10);

// poll() again after a signal; not later than asked, but for that.
int Poll(pollfd* fds, nfds_t count, absl::Duration deadline) {
  const int64_t millis = std::clamp<int64_t>(
      absl::ToInt64Milliseconds(absl::Ceil(deadline, absl::Milliseconds(1))), 0, INT32_MAX);
  for (;;) {
    const int ready = poll(fds, count, static_cast<int>(millis));
    if (ready >= 0 || errno != EINTR) return ready;
  }
}

}  // namespace

void HttpConnection::Allow(size_t bytes, absl::Duration deadline) {
  allowed_ = bytes;
  deadline_nanos_ = clock_.NowNanos() + absl::ToInt64Nanoseconds(deadline);
}

bool HttpConnection::AwaitRequest(absl::Duration deadline, int stop_fd) {
  if (at_ < buffer_.size()) return true;
  pollfd fds[] = {{socket_, POLLIN, 0}, {stop_fd, POLLIN, 0}};
  return Poll(fds, 2, deadline) > 0 && fds[1].revents == 0;
}

HttpConnection::Event HttpConnection::Await(int fd, absl::Duration deadline) const {
  pollfd fds[] = {{fd, POLLIN, 0}, {socket_, POLLRDHUP, 0}};
  if (Poll(fds, 2, deadline) <= 0) return Event::kTimeout;
  return fds[1].revents != 0 ? Event::kGone : Event::kReady;
}

ssize_t HttpConnection::read(char* to, size_t size) {
  if (allowed_ == 0) {
    over_limit_ = true;
    return -1;
  }
  if (at_ == buffer_.size()) {
    pollfd fd = {socket_, POLLIN, 0};
    const absl::Duration left = absl::Nanoseconds(deadline_nanos_ - clock_.NowNanos());
    if (left <= absl::ZeroDuration() || Poll(&fd, 1, left) <= 0) return -1;
    buffer_.resize(kReadBytes);
    at_ = 0;
    ssize_t got = -1;
    do {
      got = recv(socket_, buffer_.data(), buffer_.size(), 0);
    } while (got < 0 && errno == EINTR);
    buffer_.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got <= 0) return got;
  }
  const size_t count = std::min({size, buffer_.size() - at_, allowed_});
  std::memcpy(to, buffer_.data() + at_, count);
  at_ += count;
  allowed_ -= count;
  return static_cast<ssize_t>(count);
}

ssize_t HttpConnection::write(const char* from, size_t size) {
  for (;;) {
    const ssize_t sent = send(socket_, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return sent;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return -1;
    pollfd fd = {socket_, POLLOUT, 0};
    if (Poll(&fd, 1, kWriteDeadline) <= 0) return -1;
  }
}

void HttpConnection::Close(absl::Duration linger) {
  shutdown(socket_, SHUT_WR);
  const int64_t end = clock_.NowNanos() + absl::ToInt64Nanoseconds(linger);
  char ignored[kReadBytes];
  pollfd fd = {socket_, POLLIN, 0};
  while (clock_.NowNanos() < end && Poll(&fd, 1, absl::Nanoseconds(end - clock_.NowNanos())) > 0 &&
         recv(socket_, ignored, sizeof(ignored), MSG_DONTWAIT) > 0) {
  }
  close(socket_);
}

// Nobody asks: what is logged does not name clients.
void HttpConnection::get_remote_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

void HttpConnection::get_local_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

}  // namespace cairn::engine
