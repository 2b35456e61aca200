#include "tests/lies/proxies.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "tests/faults/campaign.h"
#include "tests/lies/http2_frames.h"

namespace cairn::lies {
namespace {

using faults::Expect;
using store::FileDescriptor;

constexpr size_t kPieceBytes = 16 << 10;
constexpr absl::Duration kPatience = absl::Seconds(30);

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Address AddressOf(const StreamProxy::Place& place) {
  Address address;
  if (!place.path.empty()) {
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    Expect(place.path.size() < sizeof(un.sun_path), "too long a path: " + place.path);
    std::memcpy(un.sun_path, place.path.data(), place.path.size());
    std::memcpy(&address.storage, &un, sizeof(un));
    address.size = sizeof(un);
    return address;
  }
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(place.port);
  Expect(::inet_pton(AF_INET, place.host.c_str(), &in.sin_addr) == 1, "no address: " + place.host);
  std::memcpy(&address.storage, &in, sizeof(in));
  address.size = sizeof(in);
  return address;
}

FileDescriptor SocketFor(const StreamProxy::Place& place) {
  return FileDescriptor(
      ::socket(place.path.empty() ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

bool SendAll(int fd, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
  return true;
}

}  // namespace

struct StreamProxy::Line {
  FileDescriptor client;
  FileDescriptor daemon;
  std::thread up, down;
  // The descriptors stay ours until the proxy ends: the other thread may be in one of them.
  void Cut() const {
    ::shutdown(client.get(), SHUT_RDWR);
    ::shutdown(daemon.get(), SHUT_RDWR);
  }
};

StreamProxy::StreamProxy(const Place& listen, const Place& upstream, Wire wire, Saboteur& saboteur)
    : upstream_(upstream), wire_(wire), saboteur_(saboteur), listener_(SocketFor(listen)) {
  const int on = 1;
  ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const Address address = AddressOf(listen);
  Expect(::bind(listener_.get(), address.get(), address.size) == 0 &&
             ::listen(listener_.get(), 16) == 0,
         "the proxy cannot listen");
  sockaddr_in bound{};
  socklen_t size = sizeof(bound);
  if (listen.path.empty()) {
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&bound), &size);
    port_ = ntohs(bound.sin_port);
  }
  thread_ = std::thread([this] { Accept(); });
}

StreamProxy::~StreamProxy() {
  ::shutdown(listener_.get(), SHUT_RDWR);
  thread_.join();
  saboteur_.Release();
  std::vector<std::unique_ptr<Line>> lines;
  {
    const MutexLock lock(&mutex_);
    lines.swap(lines_);
  }
  for (const auto& line : lines) {
    line->Cut();
    line->up.join();
    line->down.join();
  }
}

void StreamProxy::Accept() {
  while (true) {
    FileDescriptor client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client.valid()) return;
    auto line = std::make_unique<Line>();
    line->client = std::move(client);
    line->daemon = SocketFor(upstream_);
    const Address address = AddressOf(upstream_);
    if (::connect(line->daemon.get(), address.get(), address.size) != 0) continue;
    if (upstream_.path.empty()) {
      const int on = 1;
      for (const int fd : {line->client.get(), line->daemon.get()}) {
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      }
    }
    Line& made = *line;
    const MutexLock lock(&mutex_);
    lines_.push_back(std::move(line));
    made.up = std::thread([this, &made] { Carry(made, true); });
    made.down = std::thread([this, &made] { Carry(made, false); });
  }
}

void StreamProxy::Carry(Line& line, bool from_client) {
  const int from = from_client ? line.client.get() : line.daemon.get();
  const int to = from_client ? line.daemon.get() : line.client.get();
  Http2Frames frames(from_client);
  std::vector<uint8_t> piece(kPieceBytes);
  while (true) {
    const ssize_t got = ::recv(from, piece.data(), piece.size(), 0);
    if (got <= 0) break;
    const auto bytes = std::span<const uint8_t>(piece).first(static_cast<size_t>(got));
    std::vector<std::vector<uint8_t>> messages;
    if (wire_ == Wire::kHttp2) {
      frames.Add(bytes);
      while (auto frame = frames.Next()) messages.push_back(*std::move(frame));
    } else {
      messages.emplace_back(bytes.begin(), bytes.end());
    }
    for (std::vector<uint8_t>& message : messages) {
      const Saboteur::Then then = saboteur_.Meet(wire_, message);
      if (then == Saboteur::Then::kCutBefore) return line.Cut();
      const bool cut = then == Saboteur::Then::kCutInside;
      if (!SendAll(to, std::span(message).first(cut ? message.size() / 2 : message.size())) ||
          cut) {
        return line.Cut();
      }
    }
  }
  line.Cut();
}

struct AttachProxy::Line {
  std::unique_ptr<store::Connection> ends[2];  // client, daemon
  std::thread thread;

  void Cut() const {
    for (const auto& end : ends) end->Shutdown();
  }
};

AttachProxy::AttachProxy(const std::string& listen, const std::string& upstream, Saboteur& saboteur)
    : upstream_(upstream), saboteur_(saboteur) {
  auto listener = store::UnixSockets().Listen(listen);
  Expect(listener.ok(), "the attach proxy cannot listen");
  listener_ = std::move(*listener);
  thread_ = std::thread([this] { Serve(); });
}

AttachProxy::~AttachProxy() {
  listener_->Shutdown();
  saboteur_.Release();
  thread_.join();
  const MutexLock lock(&mutex_);
  for (const auto& line : lines_) line->Cut();
  for (const auto& line : lines_) line->thread.join();
}

void AttachProxy::Serve() {
  while (true) {
    auto client = listener_->Accept();
    if (!client.ok()) return;
    auto daemon = store::UnixSockets().Connect(upstream_, kPatience);
    if (!daemon.ok()) continue;
    auto line = std::make_unique<Line>();
    line->ends[0] = *std::move(client);
    line->ends[1] = *std::move(daemon);
    line->thread = std::thread([this, at = line.get()] { Carry(*at); });
    const MutexLock lock(&mutex_);
    lines_.push_back(std::move(line));
  }
}

void AttachProxy::Carry(Line& line) {
  for (size_t from = 0;; from = 1 - from) {
    auto message =
        line.ends[from]->Receive(store::kSocketMessageBytesMax, absl::InfiniteDuration());
    if (!message.ok()) break;
    const Saboteur::Then then = saboteur_.Meet(Wire::kAttach, message->bytes);
    if (then == Saboteur::Then::kCutBefore) break;
    std::span<const uint8_t> sent = message->bytes;
    if (then == Saboteur::Then::kCutInside) sent = sent.first(sent.size() / 2);
    const int descriptor = message->descriptor.valid() ? message->descriptor.get() : -1;
    if (!line.ends[1 - from]->Send(sent, descriptor, kPatience).ok()) break;
    if (then == Saboteur::Then::kCutInside) break;
  }
  line.Cut();
}

}  // namespace cairn::lies
