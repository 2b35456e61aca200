#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "store/base/clock.h"
#include "store/device/errno_status.h"
#include "store/device/socket.h"

namespace cairn::store {
namespace {

constexpr int kListenBacklog = 128;
// Enough to see that a peer sent more descriptors than one, so that they are refused, not leaked.
constexpr size_t kDescriptorsSeenMax = 4;

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("socket path '", path, "' has ", path.size(), " bytes, must have 1 to ",
                     sizeof(address.sun_path) - 1, "; choose a shorter directory"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// Waits until `fd` has one of `events`, an error or a hang-up.
absl::Status WaitFor(int fd, short events, int64_t deadline_nanos, const char* what) {
  while (true) {
    int wait_millis = -1;
    if (deadline_nanos != INT64_MAX) {
      const int64_t left = deadline_nanos - RealClock().NowNanos();
      wait_millis =
          left <= 0 ? 0 : static_cast<int>(std::min<int64_t>(left / 1'000'000 + 1, 60'000));
    }
    pollfd wait{.fd = fd, .events = events, .revents = 0};
    const int ready = ::poll(&wait, 1, wait_millis);
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, what, "socket");
    if (deadline_nanos != INT64_MAX && RealClock().NowNanos() >= deadline_nanos) {
      return absl::DeadlineExceededError(absl::StrCat(what, ": the peer did not answer in time"));
    }
  }
}

int64_t DeadlineOf(absl::Duration timeout) {
  if (timeout == absl::InfiniteDuration()) return INT64_MAX;
  return RealClock().NowNanos() + absl::ToInt64Nanoseconds(std::max(timeout, absl::ZeroDuration()));
}

// Takes every descriptor out of a received message, so that none leaks whatever the peer sent.
std::vector<FileDescriptor> DescriptorsOf(msghdr& header) {
  std::vector<FileDescriptor> taken;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      taken.emplace_back(fd);
    }
  }
  return taken;
}

class UnixConnection final : public Connection {
 public:
  explicit UnixConnection(FileDescriptor fd) : fd_(std::move(fd)) {}

  absl::Status Send(std::span<const uint8_t> bytes, int descriptor,
                    absl::Duration timeout) override {
    if (bytes.empty() || bytes.size() > kSocketMessageBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat(
          "message of ", bytes.size(), " bytes, must have 1 to ", kSocketMessageBytesMax));
    }
    iovec slice{.iov_base = const_cast<uint8_t*>(bytes.data()), .iov_len = bytes.size()};
    msghdr header{};
    header.msg_iov = &slice;
    header.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (descriptor >= 0) {
      header.msg_control = control;
      header.msg_controllen = sizeof(control);
      cmsghdr* c = CMSG_FIRSTHDR(&header);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(c), &descriptor, sizeof(int));
    }
    const int64_t deadline = DeadlineOf(timeout);
    while (true) {
      const ssize_t sent = ::sendmsg(fd_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent >= 0) return absl::OkStatus();  // SOCK_SEQPACKET: all of it or an error
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return ErrnoStatus(errno, "send to", "the socket's peer");
      CAIRN_RETURN_IF_ERROR(WaitFor(fd_.get(), POLLOUT, deadline, "send"));
    }
  }

  absl::StatusOr<SocketMessage> Receive(size_t bytes_max, absl::Duration timeout) override {
    const int64_t deadline = DeadlineOf(timeout);
    SocketMessage message;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsSeenMax)];
    while (true) {
      // Its length first: memory for the longest would cost more than the call.
      const ssize_t length = ::recv(fd_.get(), nullptr, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
      if (length < 0 && errno == EINTR) continue;
      if (length < 0 && errno == EAGAIN) {
        CAIRN_RETURN_IF_ERROR(WaitFor(fd_.get(), POLLIN, deadline, "receive"));
        continue;
      }
      if (length < 0) return ErrnoStatus(errno, "receive from", "the socket's peer");
      message.bytes.resize(
          std::min({static_cast<size_t>(length), bytes_max, kSocketMessageBytesMax}));
      iovec slice{.iov_base = message.bytes.data(), .iov_len = message.bytes.size()};
      msghdr header{};
      header.msg_iov = &slice;
      header.msg_iovlen = 1;
      header.msg_control = control;
      header.msg_controllen = sizeof(control);
      const ssize_t got = ::recvmsg(fd_.get(), &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got < 0) return ErrnoStatus(errno, "receive from", "the socket's peer");
      std::vector<FileDescriptor> descriptors = DescriptorsOf(header);
      if (got == 0) return absl::UnavailableError("the socket's peer has closed the connection");
      if ((header.msg_flags & MSG_TRUNC) != 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("received a message of more than ", message.bytes.size(), " bytes"));
      }
      if (descriptors.size() > 1 || (header.msg_flags & MSG_CTRUNC) != 0) {
        return absl::InvalidArgumentError("received a message with more than one descriptor");
      }
      if (!descriptors.empty()) message.descriptor = std::move(descriptors.front());
      message.bytes.resize(static_cast<size_t>(got));
      return message;
    }
  }

  absl::StatusOr<PeerCredentials> Peer() const override {
    ucred credentials{};
    socklen_t length = sizeof(credentials);
    if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
      return ErrnoStatus(errno, "ask for the credentials of", "the socket's peer");
    }
    return PeerCredentials{.pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid};
  }

  void Shutdown() override { ::shutdown(fd_.get(), SHUT_RDWR); }

 private:
  FileDescriptor fd_;
};

class UnixListener final : public Listener {
 public:
  UnixListener(FileDescriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  ~UnixListener() override { ::unlink(path_.c_str()); }

  bool Start() { return ::listen(fd_.get(), kListenBacklog) == 0; }

  absl::StatusOr<std::unique_ptr<Connection>> Accept() override {
    while (true) {
      FileDescriptor fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (fd.valid()) return std::make_unique<UnixConnection>(std::move(fd));
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EINVAL) return absl::UnavailableError(absl::StrCat(path_, " was shut down"));
      return ErrnoStatus(errno, "accept on", path_);
    }
  }

  void Shutdown() override { ::shutdown(fd_.get(), SHUT_RDWR); }
  const std::string& path() const override { return path_; }

 private:
  FileDescriptor fd_;
  const std::string path_;
};

absl::StatusOr<FileDescriptor> NewSocket(const std::string& path) {
  FileDescriptor fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "open a socket for", path);
  return fd;
}

class UnixDoor final : public SocketDoor {
 public:
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const std::string& path) override {
    CAIRN_ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
    CAIRN_RETURN_IF_ERROR(RemoveStale(path));
    CAIRN_ASSIGN_OR_RETURN(FileDescriptor fd, NewSocket(path));
    // Before bind: the file is never there with wider rights, and no umask of the whole process is
    // touched.
    if (::fchmod(fd.get(), 0600) != 0) return ErrnoStatus(errno, "set the mode of", path);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      return ErrnoStatus(errno, "listen at", path);
    }
    auto listener = std::make_unique<UnixListener>(std::move(fd), path);
    if (!listener->Start()) return ErrnoStatus(errno, "listen at", path);
    return listener;
  }

  absl::StatusOr<std::unique_ptr<Connection>> Connect(const std::string& path,
                                                      absl::Duration timeout) override {
    CAIRN_ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
    CAIRN_ASSIGN_OR_RETURN(FileDescriptor fd, NewSocket(path));
    if (timeout != absl::InfiniteDuration()) {
      // A connect waits only for a place in the listener's queue, and SO_SNDTIMEO bounds that; zero
      // would mean for ever.
      const timeval bound = absl::ToTimeval(std::max(timeout, absl::Milliseconds(1)));
      if (::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound)) != 0) {
        return ErrnoStatus(errno, "set the timeout of", path);
      }
    }
    while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        return absl::DeadlineExceededError(
            absl::StrCat("connect to ", path, ": nobody accepted in time"));
      }
      if (errno == ENOENT || errno == ECONNREFUSED) {
        return absl::UnavailableError(absl::StrCat("nobody listens at ", path));
      }
      return ErrnoStatus(errno, "connect to", path);
    }
    return std::make_unique<UnixConnection>(std::move(fd));
  }

 private:
  // A socket file outlives a killed process; only its refusing a connection tells that it is stale.
  static absl::Status RemoveStale(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) {
      return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, "look at", path);
    }
    if (!S_ISSOCK(info.st_mode)) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, " exists and is not a socket; remove it or listen elsewhere"));
    }
    CAIRN_ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
    CAIRN_ASSIGN_OR_RETURN(FileDescriptor probe, NewSocket(path));
    const timeval bound = absl::ToTimeval(absl::Seconds(1));
    ::setsockopt(probe.get(), SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
    if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
        errno != ECONNREFUSED) {
      return absl::FailedPreconditionError(
          absl::StrCat("a live process listens at ", path, "; stop it or listen elsewhere"));
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, "remove the stale socket", path);
    }
    return absl::OkStatus();
  }
};

}  // namespace

SocketDoor& UnixSockets() {
  static UnixDoor& door = *new UnixDoor;  // as RealClock
  return door;
}

}  // namespace cairn::store
