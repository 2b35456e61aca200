// bulk_tickets.h: what may be drawn at the bulk port, by ticket: 16 random bytes, good once and for
// seconds, given to one session. A ticket holds its entries' lease until it is used, too old, or
// its session ends.
//
// Threads:   any.
// Ownership: clock and random outlive it; a used ticket's bytes belong to the user.
// Errors:    RESOURCE_EXHAUSTED: the session has kBulkTicketsPerSessionMax open.
#ifndef CAIRN_CACHE_SERVICE_BULK_TICKETS_H_
#define CAIRN_CACHE_SERVICE_BULK_TICKETS_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "cache/service/leased_bytes.h"
#include "store/base/clock.h"
#include "store/base/random.h"

namespace cairn::cache {

inline constexpr size_t kBulkTicketsPerSessionMax = 64;
inline constexpr absl::Duration kBulkTicketMax = absl::Seconds(10);

struct BulkTransfer {
  std::shared_ptr<const LeasedBytes> bytes;
  size_t stripe = 0, stripes = 1;  // which of how many
  int64_t deadline_nanos = 0;      // of the clock; for the transfer
};

class BulkTickets {
 public:
  BulkTickets(Clock& clock, Random& random) : clock_(clock), random_(random) {}

  // One for each stripe. `deadline`: how long issuing and transfer may take together.
  absl::StatusOr<std::vector<std::string>> Issue(const std::shared_ptr<const LeasedBytes>& bytes,
                                                 size_t stripes, absl::Duration deadline);
  // nullopt: no such ticket, used already, or too old.
  std::optional<BulkTransfer> Use(const std::string& ticket);
  void Revoke(std::span<const std::string> tickets);
  void EndSession(const ClientSession& session);
  // Lets go of what nobody came for in time.
  void Sweep();
  void Clear();
  size_t size() const;

 private:
  struct Open {
    BulkTransfer transfer;
    int64_t good_until_nanos = 0;
  };
  // Takes out what `gone` says; destroyed by the caller, after the lock.
  template <typename Gone>
  std::vector<Open> TakeIf(Gone gone);

  Clock& clock_;
  Random& random_;
  mutable std::mutex mutex_;
  absl::flat_hash_map<std::string, Open> open_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_BULK_TICKETS_H_
