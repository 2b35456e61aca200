// bulk_server.h: the bulk port: connections over which tickets are turned into bytes, straight from
// the arena to the socket (cache/client/bulk_protocol.h). Beside gRPC because a gRPC stream costs
// about twice what TCP does.
//
// Bytes are sent by copy, not by sendfile: pages that a socket only refers to would be read by a
// slow client after their lease fell and somebody else's entry took their place. (On loopback
// sendfile is also the slower.)
//
// A client that asks for it gets a prefix in stripes (cache/client/transfer_order.h), each by a
// connection of its own: one connection's end is bound to what a core copies and hashes.
//
// Bounds: kBulkConnectionsMax connections, each with a thread of its own while it lives; a
// connection that shows no ticket for `idle_max` is closed, and so is one that takes no byte for
// `stall_max`, or is not done by its transfer's deadline. A session's end ends its connections and
// its tickets.
//
// Over TCP or TLS, as the door that Start is given says.
//
// Threads:   any. Ownership: the state, clock and random outlive it, the door need not; the
// destructor ends all. Errors:    as byte_stream.h from Start. What goes wrong on a connection
// closes and counts it.
#ifndef CAIRN_CACHE_SERVICE_BULK_SERVER_H_
#define CAIRN_CACHE_SERVICE_BULK_SERVER_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "cache/service/bulk_tickets.h"
#include "cache/service/service_state.h"
#include "cache/service/worker_pool.h"
#include "store/device/byte_stream.h"

namespace cairn::cache {

inline constexpr size_t kBulkConnectionsMax = 256;
inline constexpr size_t kBulkStripesMax = 8;  // of one prefix
// What is worth another connection, and its thread at the other end: a millisecond of a wire.
inline constexpr uint64_t kBulkStripeBytesMin = 4 << 20;

class BulkServer {
 public:
  struct Options {
    std::string listen;  // "host:port"; port 0: any
    absl::Duration preamble_max = absl::Seconds(2);
    absl::Duration idle_max = absl::Seconds(30);  // between two tickets of one connection
    absl::Duration stall_max = absl::Seconds(5);
    uint64_t stripe_bytes_min = kBulkStripeBytesMin;
  };
  static absl::StatusOr<std::unique_ptr<BulkServer>> Start(const Options& options,
                                                           ServiceState& state, Clock& clock,
                                                           Random& random,
                                                           store::ByteStreamDoor& door);
  ~BulkServer() { Stop(); }

  // In how many stripes a client that would draw by `streams` connections gets these bytes: one,
  // once half of all connections are taken.
  size_t StripesOf(const LeasedBytes& bytes, uint32_t streams) const;
  // Ends all connections and tickets, and returns when no byte is read for them any more.
  // Idempotent; not from two threads at once.
  void Stop();

  uint16_t port() const { return listener_->port(); }
  BulkTickets& tickets() { return tickets_; }
  void EndSession(const ClientSession& session);
  size_t connections() const;

 private:
  BulkServer(const Options& options, ServiceState& state, Clock& clock, Random& random);
  void AcceptLoop();
  void Serve(store::ByteStream& stream);
  // The next ticket's transfer; nullopt: the connection is over.
  std::optional<BulkTransfer> NextTransfer(store::ByteStream& stream, bool first);
  bool Bind(store::ByteStream& stream, const std::shared_ptr<ClientSession>& session);
  bool SendAll(store::ByteStream& stream, const BulkTransfer& transfer);

  const Options options_;
  ServiceState& state_;
  Clock& clock_;
  BulkTickets tickets_;
  std::unique_ptr<store::ByteListener> listener_;
  mutable std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  // Whose each open connection is: null before its first ticket, and then for good.
  absl::flat_hash_map<store::ByteStream*, std::shared_ptr<ClientSession>> connections_;
  std::thread acceptor_;
  // Reset by Stop: its destructor waits for the connections.
  std::unique_ptr<WorkerPool> threads_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_BULK_SERVER_H_
