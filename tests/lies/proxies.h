// proxies.h: what stands between an engine and its daemon: lines that carry everything on, but for
// the one message that a Saboteur meets.
//
// Threads:   each has its own; the destructor ends them and every connection.
// Ownership: the saboteur outlives them.
// Errors:    of making one: a check that ends the process.
#ifndef CAIRN_TESTS_LIES_PROXIES_H_
#define CAIRN_TESTS_LIES_PROXIES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "store/base/mutex.h"
#include "store/device/file_descriptor.h"
#include "store/device/socket.h"
#include "tests/lies/saboteur.h"

namespace cairn::lies {

// Of streams of bytes: gRPC's sockets and the bulk port.
class StreamProxy {
 public:
  // A path, or an IPv4 address and port.
  struct Place {
    std::string path = {};
    std::string host = {};
    uint16_t port = 0;  // 0: any, where it listens
  };
  StreamProxy(const Place& listen, const Place& upstream, Wire wire, Saboteur& saboteur);
  ~StreamProxy();
  uint16_t port() const { return port_; }

 private:
  struct Line;
  void Accept();
  // Carries one direction until an end is gone or it is cut.
  void Carry(Line& line, bool from_client);

  const Place upstream_;
  const Wire wire_;
  Saboteur& saboteur_;
  store::FileDescriptor listener_;
  uint16_t port_ = 0;
  Mutex mutex_;
  std::vector<std::unique_ptr<Line>> lines_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// Of whole messages with descriptors: the attach socket.
class AttachProxy {
 public:
  AttachProxy(const std::string& listen, const std::string& upstream, Saboteur& saboteur);
  ~AttachProxy();

 private:
  struct Line;
  void Serve();
  // Requests and answers in turn, until an end is gone or it is cut.
  void Carry(Line& line);

  const std::string upstream_;
  Saboteur& saboteur_;
  std::unique_ptr<store::Listener> listener_;
  Mutex mutex_;
  std::vector<std::unique_ptr<Line>> lines_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace cairn::lies

#endif  // CAIRN_TESTS_LIES_PROXIES_H_
