// byte_stream.h: the small door to TCP: plain streams of bytes between hosts, in order, unframed.
//
// Threads:   Shutdown from any thread, at any time; it unblocks every call that waits, for good.
//            Otherwise one sender and one receiver at a time.
// Ownership: the destructors close.
// Units:     bytes. Timeouts are of one call's waiting; at least a millisecond, at most an hour.
// Errors:    DEADLINE_EXCEEDED (the peer took or gave nothing in time), UNAVAILABLE (peer or
//            listener gone, shut down, nobody listens), INVALID_ARGUMENT (an address that is none),
//            FAILED_PRECONDITION (Listen: the address is taken or not this host's).
#ifndef CAIRN_STORE_DEVICE_BYTE_STREAM_H_
#define CAIRN_STORE_DEVICE_BYTE_STREAM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/time/time.h"
#include "store/base/status.h"
#include "store/device/file_descriptor.h"

namespace cairn::store {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Waits until some of it is taken and returns how much: 1 to bytes.size(). Copies, so what is
  // taken may change afterwards. REQUIRES: !bytes.empty(), here and in Receive.
  virtual absl::StatusOr<size_t> Send(std::span<const uint8_t> bytes, absl::Duration timeout) = 0;
  // Waits until something is there and takes what is: 1 to room.size() bytes.
  virtual absl::StatusOr<size_t> Receive(std::span<uint8_t> room, absl::Duration timeout) = 0;
  // The peer is told that nothing more is sent; what it still sends can be received.
  virtual void EndSending() = 0;
  virtual void Shutdown() = 0;
};

// Makes a stream of a connected, blocking socket. Any thread.
using StreamOver =
    std::function<absl::StatusOr<std::unique_ptr<ByteStream>>(FileDescriptor socket)>;

class ByteListener {
 public:
  virtual ~ByteListener() = default;
  // DEADLINE_EXCEEDED when nobody came in time. RESOURCE_EXHAUSTED: somebody waits, but there is no
  // descriptor for it.
  virtual absl::StatusOr<std::unique_ptr<ByteStream>> Accept(absl::Duration timeout) = 0;
  virtual void Shutdown() = 0;
  virtual uint16_t port() const = 0;
};

class ByteStreamDoor {
 public:
  virtual ~ByteStreamDoor() = default;
  // "host:port", "[::1]:port"; port 0: any that is free.
  virtual absl::StatusOr<std::unique_ptr<ByteListener>> Listen(const std::string& address) = 0;
  virtual absl::StatusOr<std::unique_ptr<ByteStream>> Connect(const std::string& host,
                                                              uint16_t port,
                                                              absl::Duration timeout) = 0;
};

// The kernel's. Lives for the whole process.
ByteStreamDoor& TcpStreams();
// For sockets that somebody else accepts.
StreamOver TcpOver();

// "host:port" or "[host]:port" in its two halves. INVALID_ARGUMENT for anything else.
struct HostPort {
  std::string host;
  uint16_t port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_BYTE_STREAM_H_
