// leased_bytes.h: a fetched prefix whose bytes are on their way to another host. The lease falls
// when the last holder of the bytes lets go, wherever that is: the stream, the transport, the bulk
// port.
//
// Threads:   any; the release itself runs on the quick pool.
// Ownership: shared by all who still read the bytes. The state outlives it: a stop waits for it.
// Units:     bytes.
#ifndef CAIRN_CACHE_SERVICE_LEASED_BYTES_H_
#define CAIRN_CACHE_SERVICE_LEASED_BYTES_H_

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "cache/client/transfer_order.h"
#include "cache/service/service_state.h"

namespace cairn::cache {

class LeasedBytes {
 public:
  // `groups`: in which the bytes travel, all but the last (transfer_order.h).
  LeasedBytes(ServiceState& state, std::shared_ptr<ClientSession> session, LeasedPrefix prefix,
              std::vector<GroupEnd> groups = {})
      : state_(state),
        held_(state.work.Hold()),
        session_(std::move(session)),
        prefix_(std::move(prefix)),
        groups_(std::move(groups)) {}
  LeasedBytes(const LeasedBytes&) = delete;  // one lease, one release
  LeasedBytes& operator=(const LeasedBytes&) = delete;
  ~LeasedBytes() {
    if (prefix_.lease == 0) return;
    state_.quick.Run(
        [&state = state_, held = std::move(held_), session = session_, lease = prefix_.lease] {
          // Fails only if the session, and with it the lease, is gone already.
          state.core.Release(session->core_id(), lease).IgnoreError();
        });
  }

  const LeasedPrefix& prefix() const { return prefix_; }
  const std::shared_ptr<ClientSession>& session() const { return session_; }
  size_t entries() const { return prefix_.rows.size() + (prefix_.checkpoint.has_value() ? 1 : 0); }
  // Rows, then the checkpoint. REQUIRES: i < entries().
  std::span<const uint8_t> payload(size_t i) const {
    return i < prefix_.rows.size() ? prefix_.rows[i].payload : prefix_.checkpoint->payload;
  }
  uint64_t bytes() const {
    uint64_t sum = 0;
    for (size_t i = 0; i < entries(); ++i) sum += payload(i).size();
    return sum;
  }
  bool grouped() const { return !groups_.empty(); }
  // From a stripe's first byte on; the whole is one stripe. REQUIRES: stripe < stripes.
  TransferCursor Begin(size_t stripe = 0, size_t stripes = 1) const {
    std::vector<uint64_t> sizes;
    for (size_t i = 0; i < entries(); ++i) sizes.push_back(payload(i).size());
    return TransferCursor(SizesInStripe(std::move(sizes), stripe, stripes), prefix_.rows.size(),
                          groups_);
  }
  // What is left of the piece at hand. REQUIRES: of a cursor of this that is not done.
  std::span<const uint8_t> Piece(const TransferCursor& cursor) const {
    return payload(cursor.entry()).subspan(cursor.offset(), cursor.left());
  }

 private:
  ServiceState& state_;
  WorkGauge::Token held_;
  const std::shared_ptr<ClientSession> session_;
  const LeasedPrefix prefix_;
  const std::vector<GroupEnd> groups_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_LEASED_BYTES_H_
