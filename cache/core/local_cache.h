// local_cache.h: CacheApi over a CacheCore in the same process, for tests and for embedding.
// FetchedPrefix points into the arena, staging is heap memory; nothing is copied on a hit.
//
// Threads:   as cache_api.h.
// Ownership: the core outlives the session and everything fetched through it. The session ends when
// the object does: its
//            leases end then, so a FetchedPrefix that lives longer may see its bytes overwritten.
// Errors:    as cache_core.h.
#ifndef CAIRN_CACHE_CORE_LOCAL_CACHE_H_
#define CAIRN_CACHE_CORE_LOCAL_CACHE_H_

#include <memory>

#include "cache/client/cache_api.h"
#include "cache/core/cache_core.h"

namespace cairn::cache {

absl::StatusOr<std::unique_ptr<CacheApi>> OpenLocalCache(CacheCore& core,
                                                         const NamespaceSpec& spec);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_LOCAL_CACHE_H_
