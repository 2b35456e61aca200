#include "engine/serve/http_connection.h"

#include <poll.h>

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
  // What TLS has read ahead the socket does not show.
  const absl::Status there = Fill(absl::ZeroDuration());
  if (!absl::IsDeadlineExceeded(there)) return there.ok();
  pollfd fds[] = {{socket_, POLLIN, 0}, {stop_fd, POLLIN, 0}};
  return Poll(fds, 2, deadline) > 0 && fds[1].revents == 0;
}

HttpConnection::Event HttpConnection::Await(int fd, absl::Duration deadline) const {
  pollfd fds[] = {{fd, POLLIN, 0}, {socket_, POLLRDHUP, 0}};
  if (Poll(fds, 2, deadline) <= 0) return Event::kTimeout;
  return fds[1].revents != 0 ? Event::kGone : Event::kReady;
}

absl::Status HttpConnection::Fill(absl::Duration timeout) {
  buffer_.resize(kReadBytes);
  at_ = 0;
  const absl::StatusOr<size_t> got = stream_->Receive(buffer_, timeout);
  buffer_.resize(got.value_or(0));
  return got.status();
}

ssize_t HttpConnection::read(char* to, size_t size) {
  if (allowed_ == 0) {
    over_limit_ = true;
    return -1;
  }
  if (at_ == buffer_.size()) {
    const absl::Duration left = absl::Nanoseconds(deadline_nanos_ - clock_.NowNanos());
    if (left <= absl::ZeroDuration() || !Fill(left).ok()) return -1;
  }
  const size_t count = std::min({size, buffer_.size() - at_, allowed_});
  std::memcpy(to, buffer_.data() + at_, count);
  at_ += count;
  allowed_ -= count;
  return static_cast<ssize_t>(count);
}

ssize_t HttpConnection::write(const char* from, size_t size) {
  if (size == 0) return 0;
  const absl::StatusOr<size_t> sent =
      stream_->Send({reinterpret_cast<const uint8_t*>(from), size}, kWriteDeadline);
  return sent.ok() ? static_cast<ssize_t>(*sent) : -1;
}

void HttpConnection::Close(absl::Duration linger) {
  stream_->EndSending();
  const int64_t end = clock_.NowNanos() + absl::ToInt64Nanoseconds(linger);
  for (int64_t now = clock_.NowNanos(); now < end; now = clock_.NowNanos()) {
    if (!Fill(absl::Nanoseconds(end - now)).ok()) break;
  }
  stream_.reset();
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
