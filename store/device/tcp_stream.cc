#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "store/device/byte_stream.h"
#include "store/device/tcp_socket.h"

namespace cairn::store {
namespace {

class TcpStream final : public ByteStream {
 public:
  explicit TcpStream(FileDescriptor fd) : fd_(std::move(fd)) {}

  absl::StatusOr<size_t> Send(std::span<const uint8_t> bytes, absl::Duration timeout) override {
    SetTimeout(SO_SNDTIMEO, send_timeout_, BoundedWait(timeout));
    while (true) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) return static_cast<size_t>(sent);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && errno == EAGAIN) {
        return absl::DeadlineExceededError("send: the peer took nothing in time");
      }
      return absl::UnavailableError("send: the peer has gone");
    }
  }

  absl::StatusOr<size_t> Receive(std::span<uint8_t> room, absl::Duration timeout) override {
    SetTimeout(SO_RCVTIMEO, receive_timeout_, BoundedWait(timeout));
    while (true) {
      const ssize_t got = ::recv(fd_.get(), room.data(), room.size(), 0);
      if (got > 0) return static_cast<size_t>(got);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) {
        return absl::DeadlineExceededError("receive: the peer gave nothing in time");
      }
      return absl::UnavailableError("receive: the peer has closed the connection");
    }
  }

  void EndSending() override { ::shutdown(fd_.get(), SHUT_WR); }
  void Shutdown() override { ::shutdown(fd_.get(), SHUT_RDWR); }

 private:
  // The kernel waits by itself, without a poll a call.
  void SetTimeout(int option, absl::Duration& current, absl::Duration wanted) {
    if (current == wanted) return;
    const timeval bound = absl::ToTimeval(wanted);
    if (::setsockopt(fd_.get(), SOL_SOCKET, option, &bound, sizeof(bound)) == 0) current = wanted;
  }

  FileDescriptor fd_;
  absl::Duration send_timeout_;  // zero: not set yet
  absl::Duration receive_timeout_;
};

class TcpDoor final : public ByteStreamDoor {
 public:
  absl::StatusOr<std::unique_ptr<ByteListener>> Listen(const std::string& address) override {
    return ListenOn(address, TcpOver());
  }
  absl::StatusOr<std::unique_ptr<ByteStream>> Connect(const std::string& host, uint16_t port,
                                                      absl::Duration timeout) override {
    CAIRN_ASSIGN_OR_RETURN(FileDescriptor fd, ConnectSocket(host, port, timeout));
    return std::make_unique<TcpStream>(std::move(fd));
  }
};

}  // namespace

StreamOver TcpOver() {
  return [](FileDescriptor socket) { return std::make_unique<TcpStream>(std::move(socket)); };
}

ByteStreamDoor& TcpStreams() {
  static TcpDoor& door = *new TcpDoor;  // as RealClock
  return door;
}

}  // namespace cairn::store
