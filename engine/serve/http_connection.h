// http_connection.h: one client's connection as the HTTP library reads and writes it, with bounds
// that the library has not: what a request may take in bytes and in time is said before it is read,
// and a client that went away is noticed while its answer is being made.
//
// Threads:   one. Ownership: the stream's socket is watched beside it; Close ends both.
// Units:     bytes, milliseconds.
// Errors:    as httplib::Stream: -1 from read and write, after which the connection is of no use.
#ifndef CAIRN_ENGINE_SERVE_HTTP_CONNECTION_H_
#define CAIRN_ENGINE_SERVE_HTTP_CONNECTION_H_

#include <httplib.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "store/base/clock.h"
#include "store/device/byte_stream.h"

namespace cairn::engine {

class HttpConnection final : public httplib::Stream {
 public:
  HttpConnection(int socket, std::unique_ptr<store::ByteStream> stream, Clock& clock)
      : socket_(socket), stream_(std::move(stream)), clock_(clock) {}

  // At most `bytes` more are given to the reader, and waited for until `deadline` from now.
  void Allow(size_t bytes, absl::Duration deadline);
  // What was allowed was not enough.
  bool over_limit() const { return over_limit_; }

  // The next request's first byte. False: none came in time, the client went, or `stop_fd` became
  // readable.
  bool AwaitRequest(absl::Duration deadline, int stop_fd);
  // Waits for `fd` to be readable. kGone: the client has closed its side.
  enum class Event : uint8_t { kReady, kGone, kTimeout };
  Event Await(int fd, absl::Duration deadline) const;

  // The answer is out. So that a client that is still sending reads it before it sees the
  // connection break, what comes is thrown away, until the client ends or for `linger`.
  void Close(absl::Duration linger);

  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  ssize_t read(char* to, size_t size) override;
  ssize_t write(const char* from, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

 private:
  // Reads what there is, or comes until then, in place of the buffer.
  absl::Status Fill(absl::Duration timeout);

  const int socket_;
  std::unique_ptr<store::ByteStream> stream_;
  Clock& clock_;
  std::vector<uint8_t> buffer_;  // read and not asked for yet, from at_
  size_t at_ = 0;
  size_t allowed_ = 0;
  int64_t deadline_nanos_ = 0;
  bool over_limit_ = false;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_HTTP_CONNECTION_H_
