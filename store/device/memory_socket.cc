#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "store/device/errno_status.h"
#include "store/device/socket.h"

namespace cairn::store {
namespace {

// As deep as a kernel socket's buffer would be: Send waits when the receiver does not keep up.
constexpr size_t kQueuedMessagesMax = 64;
constexpr size_t kBacklogMax = 128;

// Waits on `changed` until `ready` holds; false when the time is over first.
template <typename Ready>
bool WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
               absl::Duration timeout, Ready ready) {
  if (timeout == absl::InfiniteDuration()) {
    changed.wait(lock, ready);
    return true;
  }
  return changed.wait_for(lock, absl::ToChronoNanoseconds(timeout), ready);
}

// One direction of a connection.
struct Pipe {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<SocketMessage> messages;
  bool closed = false;

  void Close() {
    const std::lock_guard<std::mutex> lock(mutex);
    closed = true;
    changed.notify_all();
  }
};

class MemoryConnection final : public Connection {
 public:
  MemoryConnection(std::shared_ptr<Pipe> in, std::shared_ptr<Pipe> out)
      : in_(std::move(in)), out_(std::move(out)) {}
  ~MemoryConnection() override { Shutdown(); }

  absl::Status Send(std::span<const uint8_t> bytes, int descriptor,
                    absl::Duration timeout) override {
    if (bytes.empty() || bytes.size() > kSocketMessageBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat(
          "message of ", bytes.size(), " bytes, must have 1 to ", kSocketMessageBytesMax));
    }
    SocketMessage message;
    message.bytes.assign(bytes.begin(), bytes.end());
    if (descriptor >= 0) {
      message.descriptor = FileDescriptor::Duplicate(descriptor);
      if (!message.descriptor.valid()) return ErrnoStatus(errno, "duplicate", "a descriptor");
    }
    std::unique_lock<std::mutex> lock(out_->mutex);
    if (!WaitUntil(lock, out_->changed, timeout,
                   [this] { return out_->closed || out_->messages.size() < kQueuedMessagesMax; })) {
      return absl::DeadlineExceededError("send: the peer did not answer in time");
    }
    if (out_->closed) return absl::UnavailableError("the socket's peer has closed the connection");
    out_->messages.push_back(std::move(message));
    out_->changed.notify_all();
    return absl::OkStatus();
  }

  absl::StatusOr<SocketMessage> Receive(size_t bytes_max, absl::Duration timeout) override {
    std::unique_lock<std::mutex> lock(in_->mutex);
    if (!WaitUntil(lock, in_->changed, timeout,
                   [this] { return in_->closed || !in_->messages.empty(); })) {
      return absl::DeadlineExceededError("receive: the peer did not answer in time");
    }
    if (in_->messages.empty()) {
      return absl::UnavailableError("the socket's peer has closed the connection");
    }
    SocketMessage message = std::move(in_->messages.front());
    in_->messages.pop_front();
    in_->changed.notify_all();
    if (message.bytes.size() > bytes_max) {
      return absl::InvalidArgumentError(
          absl::StrCat("received a message of more than ", bytes_max, " bytes"));
    }
    return message;
  }

  absl::StatusOr<PeerCredentials> Peer() const override {
    return PeerCredentials{.pid = ::getpid(), .uid = ::getuid(), .gid = ::getgid()};
  }

  void Shutdown() override {
    in_->Close();
    out_->Close();
  }

 private:
  std::shared_ptr<Pipe> in_;
  std::shared_ptr<Pipe> out_;
};

struct AcceptQueue {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::unique_ptr<Connection>> waiting;
  bool closed = false;
};

}  // namespace

struct MemorySockets::Registry {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<AcceptQueue>> listening;
};

namespace {

class MemoryListener final : public Listener {
 public:
  MemoryListener(std::string path, std::shared_ptr<AcceptQueue> queue,
                 std::shared_ptr<MemorySockets::Registry> registry)
      : path_(std::move(path)), queue_(std::move(queue)), registry_(std::move(registry)) {}

  ~MemoryListener() override {
    Shutdown();
    const std::lock_guard<std::mutex> lock(registry_->mutex);
    registry_->listening.erase(path_);
  }

  absl::StatusOr<std::unique_ptr<Connection>> Accept() override {
    std::unique_lock<std::mutex> lock(queue_->mutex);
    queue_->changed.wait(lock, [this] { return queue_->closed || !queue_->waiting.empty(); });
    if (queue_->closed) return absl::UnavailableError(absl::StrCat(path_, " was shut down"));
    std::unique_ptr<Connection> accepted = std::move(queue_->waiting.front());
    queue_->waiting.pop_front();
    queue_->changed.notify_all();
    return accepted;
  }

  void Shutdown() override {
    const std::lock_guard<std::mutex> lock(queue_->mutex);
    queue_->closed = true;
    queue_->waiting.clear();
    queue_->changed.notify_all();
  }

  const std::string& path() const override { return path_; }

 private:
  const std::string path_;
  std::shared_ptr<AcceptQueue> queue_;
  std::shared_ptr<MemorySockets::Registry> registry_;
};

}  // namespace

MemorySockets::MemorySockets() : registry_(std::make_shared<Registry>()) {}
MemorySockets::~MemorySockets() = default;

absl::StatusOr<std::unique_ptr<Listener>> MemorySockets::Listen(const std::string& path) {
  auto queue = std::make_shared<AcceptQueue>();
  const std::lock_guard<std::mutex> lock(registry_->mutex);
  if (!registry_->listening.emplace(path, queue).second) {
    return absl::FailedPreconditionError(
        absl::StrCat("a live process listens at ", path, "; stop it or listen elsewhere"));
  }
  return std::make_unique<MemoryListener>(path, std::move(queue), registry_);
}

absl::StatusOr<std::unique_ptr<Connection>> MemorySockets::Connect(const std::string& path,
                                                                   absl::Duration timeout) {
  std::shared_ptr<AcceptQueue> queue;
  {
    const std::lock_guard<std::mutex> lock(registry_->mutex);
    const auto found = registry_->listening.find(path);
    if (found != registry_->listening.end()) queue = found->second;
  }
  if (queue == nullptr) return absl::UnavailableError(absl::StrCat("nobody listens at ", path));
  auto there = std::make_shared<Pipe>();
  auto back = std::make_shared<Pipe>();
  std::unique_lock<std::mutex> lock(queue->mutex);
  if (!WaitUntil(lock, queue->changed, timeout,
                 [&] { return queue->closed || queue->waiting.size() < kBacklogMax; })) {
    return absl::DeadlineExceededError(
        absl::StrCat("connect to ", path, ": nobody accepted in time"));
  }
  if (queue->closed) return absl::UnavailableError(absl::StrCat("nobody listens at ", path));
  queue->waiting.push_back(std::make_unique<MemoryConnection>(there, back));
  queue->changed.notify_all();
  return std::make_unique<MemoryConnection>(back, there);
}

}  // namespace cairn::store
