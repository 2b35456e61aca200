// socket.h: the small door to Unix sockets that carry whole messages and file descriptors. The
// daemon hands its arena to readers through it and takes their staging memory.
//
// A message is 1 to kSocketMessageBytesMax bytes with at most one descriptor, and arrives whole or
// not at all (SOCK_SEQPACKET). UnixSockets() is the kernel's; MemorySockets lives in this process,
// for tests and simulation, with the same behaviour.
//
// Threads:   Listener::Shutdown and Connection::Shutdown from any thread, at any time; they unblock
//            every call that waits, for good. Otherwise one sender and one receiver at a time.
// Ownership: descriptors given to Send stay the caller's (the peer gets a duplicate); received ones
//            are owned by the SocketMessage. All are close-on-exec.
// Units:     bytes. Timeouts: absl::InfiniteDuration() waits for ever, zero does not wait.
// Errors:    DEADLINE_EXCEEDED, UNAVAILABLE (peer or listener gone, shut down), INVALID_ARGUMENT
//            (size over its bound, path too long), FAILED_PRECONDITION (Listen: a live process
//            listens there, or the path is not a socket, no permission).
#ifndef CAIRN_STORE_DEVICE_SOCKET_H_
#define CAIRN_STORE_DEVICE_SOCKET_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "store/base/status.h"
#include "store/device/file_descriptor.h"

namespace cairn::store {

inline constexpr size_t kSocketMessageBytesMax = 64u << 10;

struct SocketMessage {
  std::vector<uint8_t> bytes;
  FileDescriptor descriptor;  // not valid() if none came with it
};

// Who is on the other side, as the kernel saw it when the connection was made.
struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

class Connection {
 public:
  virtual ~Connection() = default;  // closes; the peer's Receive then returns UNAVAILABLE
  // `descriptor` < 0: none goes with it.
  virtual absl::Status Send(std::span<const uint8_t> bytes, int descriptor,
                            absl::Duration timeout) = 0;
  // A message longer than bytes_max is INVALID_ARGUMENT and lost; so is one with more than one
  // descriptor (all of them are closed).
  virtual absl::StatusOr<SocketMessage> Receive(size_t bytes_max, absl::Duration timeout) = 0;
  virtual absl::StatusOr<PeerCredentials> Peer() const = 0;
  virtual void Shutdown() = 0;
};

class Listener {
 public:
  virtual ~Listener() = default;  // closes and removes the path
  // Blocks until somebody connects, or UNAVAILABLE after Shutdown.
  virtual absl::StatusOr<std::unique_ptr<Connection>> Accept() = 0;
  virtual void Shutdown() = 0;
  virtual const std::string& path() const = 0;
};

class SocketDoor {
 public:
  virtual ~SocketDoor() = default;
  // The socket file is made with mode 0600. One that a dead process left behind is replaced.
  virtual absl::StatusOr<std::unique_ptr<Listener>> Listen(const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<Connection>> Connect(const std::string& path,
                                                              absl::Duration timeout) = 0;
};

// Lives for the whole process.
SocketDoor& UnixSockets();

// The in-process door. Peer() names this process. Listeners and connections may outlive it.
class MemorySockets final : public SocketDoor {
 public:
  MemorySockets();
  ~MemorySockets() override;
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const std::string& path,
                                                      absl::Duration timeout) override;
  struct Registry;  // of listening paths; shared with the listeners

 private:
  std::shared_ptr<Registry> registry_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_SOCKET_H_
