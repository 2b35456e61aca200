// bulk_client.h: the client's end of the bulk port (bulk_protocol.h): draws what a ticket is for,
// over connections that are kept for the next one. With several tickets it draws by as many
// connections at once, each on a thread: one connection's bytes are copied and hashed by one core,
// which is slower than most networks are.
//
// Threads:   any; each ticket has a connection of its own while it lasts.
// Ownership: keeps at most kBulkConnectionsKept idle connections.
// Errors:    UNAVAILABLE, DEADLINE_EXCEEDED: the bytes did not come whole; fetch by stream instead.
#ifndef CAIRN_CACHE_CLIENT_BULK_CLIENT_H_
#define CAIRN_CACHE_CLIENT_BULK_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cache/client/arriving_prefix.h"
#include "store/device/byte_stream.h"

namespace cairn::cache {

inline constexpr size_t kBulkConnectionsKept = 8;
inline constexpr absl::Duration kBulkRetryAfter = absl::Seconds(10);

// Ends a transfer from another thread.
class BulkStop {
 public:
  // A Draw that was given this returns soon, with ABORTED. For good.
  void Stop();
  bool stopped() const;

 private:
  friend class BulkClient;
  // A stream that is to be shut down, and one that is not any more.
  void Watch(store::ByteStream* stream);
  void Forget(store::ByteStream* stream);

  mutable std::mutex mutex_;
  bool stopped_ = false;
  std::vector<store::ByteStream*> streams_;
};

class BulkClient {
 public:
  // `port` 0: there is nothing to connect to, and never will be. A line on which nothing comes for
  // `stall` does not deliver.
  BulkClient(store::ByteStreamDoor& door, std::string host, uint16_t port, absl::Duration stall)
      : door_(door), host_(std::move(host)), port_(port), stall_(stall) {}

  // False for kBulkRetryAfter after a failure: a port that a firewall closes, or that is full, is
  // not asked for every fetch.
  bool usable() const;
  // Fills the prefix to its end, each stripe by its ticket: side by side, by threads that end with
  // the call, or where the system has none to give, in turn. When one fails, all end: it says why.
  // REQUIRES: as many tickets as stripes, each kTicketBytes long.
  absl::Status Draw(std::span<const std::string> tickets, ArrivingPrefix& prefix,
                    absl::Duration timeout, BulkStop* stop = nullptr);

  uint64_t transfers() const { return transfers_; }
  uint64_t failures() const { return failures_; }

 private:
  absl::Status DrawStripe(const std::string& ticket, ArrivingPrefix::Stripe& stripe,
                          absl::Duration timeout, BulkStop& stop);
  absl::StatusOr<std::unique_ptr<store::ByteStream>> TakeConnection(bool* reused,
                                                                    absl::Duration timeout);
  void Keep(std::unique_ptr<store::ByteStream> stream);

  store::ByteStreamDoor& door_;
  const std::string host_;
  const uint16_t port_;
  const absl::Duration stall_;
  std::atomic<int64_t> retry_at_nanos_{0};
  std::atomic<uint64_t> transfers_{0};
  std::atomic<uint64_t> failures_{0};
  std::mutex mutex_;
  std::vector<std::unique_ptr<store::ByteStream>> idle_;
};

// "ipv4:10.0.0.5:7070" or "ipv6:%5B::1%5D:7070", as gRPC names a peer: its address alone. Empty for
// any other kind.
std::string HostOfPeer(const std::string& peer);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_BULK_CLIENT_H_
