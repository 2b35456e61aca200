// remote_cache.h: CacheApi over the wire. On the same host (a Unix socket) fetched bytes are mapped
// from the daemon's arena and commits name ranges of shared staging memory; otherwise the same
// bytes travel over the daemon's bulk port, or in gRPC streams if there is none or it fails.
//
// Threads:   as cache_api.h. Three threads of its own, all idle between calls; a fourth
//            while the arena is pinned.
// Ownership: FetchedPrefix and StagingBuffer may outlive the cache object.
// Units:     bytes, blocks, milliseconds.
// Errors:    every call ends by its deadline. UNAVAILABLE at once when the daemon is gone, also
// when an answer of its was
//            wrong (it is not asked again). Connect: FAILED_PRECONDITION for a daemon of another
//            protocol or layout version; INVALID_ARGUMENT for credentials that are none. A pool in
//            GPU memory that cannot be mapped is done without (registration().gpu_mapped), and said
//            once.
#ifndef CAIRN_CACHE_CLIENT_REMOTE_CACHE_H_
#define CAIRN_CACHE_CLIENT_REMOTE_CACHE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "cache/client/cache_api.h"
#include "store/device/gpu_memory.h"
#include "store/device/tls_stream.h"

namespace cairn::cache {

struct RemoteCacheOptions {
  absl::Duration connect_timeout = absl::Seconds(2);  // register and map
  // Match, reserve (beyond its wait), abort, stats: what a dead or hung daemon costs a request.
  absl::Duration call_timeout = absl::Milliseconds(50);
  // Fetches, commits and waits may take until a deadline of their own as long as the daemon shows
  // signs of life (daemon_link.h). Without any it has so long.
  absl::Duration stall_timeout = absl::Milliseconds(500);
  absl::Duration commit_timeout = absl::Seconds(30);
  bool map = true;  // false: stream even on the same host
  // Where the arena is mapped: match by a connection for it (lookup_lane.h); false: by gRPC.
  bool lookups = true;
  // On which to map the daemon's pool in GPU memory too, if it has one. Outlives the cache and all
  // that was fetched. Null: it is not mapped.
  store::Gpu* gpu = nullptr;
  // Pin the mapped arena for it, in the background, so that it can read a hit there
  // (EntryView::pinned). What the daemon has not touched yet is touched by this process then.
  bool pin = false;
  // Connect waits so long for all of it: other calls of the driver's are slow until then.
  absl::Duration pin_patience = absl::ZeroDuration();
  // For a daemon on another host: TLS, on both of its ports. Authorities: of the daemon's
  // certificate; certificate and key: where it asks for one. Unset: in the clear.
  std::optional<store::TlsCredentials> tls = {};
  bool bulk = true;           // false: by gRPC stream even if the daemon has a bulk port
  uint32_t bulk_streams = 2;  // connections that a fetch of many bytes draws by; 0 is 1
  // Of memory that streamed fetches arrived in, how much is kept for the next ones.
  uint64_t receive_bytes_kept = 1ull << 30;
  uint64_t staging_bytes_max = 1ull << 30;
};

// `target`: "unix:/path/to/socket" or "host:port".
absl::StatusOr<std::unique_ptr<CacheApi>> ConnectCache(const std::string& target,
                                                       const NamespaceSpec& spec,
                                                       const RemoteCacheOptions& options = {});

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_REMOTE_CACHE_H_
