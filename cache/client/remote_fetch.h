// remote_fetch.h: the ways fetched bytes reach a client: mapped in place, or streamed into memory
// of its own, by gRPC or by the bulk port.
//
// Threads:   any.
// Ownership: the results keep the mapping, or their memory, alive, and the link and the bulk port
//            while bytes still arrive; the lease falls with them.
// Errors:    as cache_api.h; an answer outside of the mapping, or other than what was asked, breaks
// the link.
#ifndef CAIRN_CACHE_CLIENT_REMOTE_FETCH_H_
#define CAIRN_CACHE_CLIENT_REMOTE_FETCH_H_

#include <memory>

#include "cache/client/answer_check.h"
#include "cache/client/bulk_client.h"
#include "cache/client/cache_api.h"
#include "cache/client/daemon_link.h"
#include "cache/client/receive_pool.h"
#include "store/device/background_pin.h"
#include "store/device/gpu_memory.h"
#include "store/device/shared_memory.h"

namespace cairn::cache {

// What a session on the daemon's host reads by.
struct Mapping {
  std::shared_ptr<const EntryShapes> shapes;
  std::shared_ptr<DaemonLink> link;
  std::shared_ptr<const store::SharedMemory> arena;       // null: nothing is mapped
  std::shared_ptr<const store::GpuRegion> gpu_pool = {};  // null: not mapped
  std::shared_ptr<const store::BackgroundPin> pin = {};   // of the arena; null: it is not pinned

  MappedBytes bytes() const { return {arena->size(), gpu_pool == nullptr ? 0 : gpu_pool->bytes()}; }
};

// A checked answer as views of the arena. `chain`: digests of its blocks, at least as many as rows.
std::unique_ptr<FetchedPrefix> ViewMapped(std::span<const Digest> chain,
                                          const v1::MappedPrefix& answer, const Mapping& mapping);

absl::StatusOr<std::unique_ptr<FetchedPrefix>> FetchMapped(const FetchRequest& request,
                                                           const Mapping& mapping);

// By stream; and by ticket over `bulk`, which falls back to the stream, within the same deadline,
// when the bulk port does not deliver what is to be there before the prefix is handed out.
absl::StatusOr<std::unique_ptr<FetchedPrefix>> FetchStreamed(
    const FetchRequest& request, const EntryShapes& shapes, const std::shared_ptr<DaemonLink>& link,
    ReceivePool& pool);

// `streams`: connections at once, at most; 0 is 1.
absl::StatusOr<std::unique_ptr<FetchedPrefix>> FetchBulk(
    const FetchRequest& request, const EntryShapes& shapes, const std::shared_ptr<DaemonLink>& link,
    ReceivePool& pool, const std::shared_ptr<BulkClient>& bulk, uint32_t streams);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_REMOTE_FETCH_H_
