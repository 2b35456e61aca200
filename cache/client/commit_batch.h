// commit_batch.h: items of a commit, checked and put into requests.
//
// Threads: pure functions. Units: bytes.
#ifndef CAIRN_CACHE_CLIENT_COMMIT_BATCH_H_
#define CAIRN_CACHE_CLIENT_COMMIT_BATCH_H_

#include <cstdint>
#include <span>

#include "cache/client/cache_api.h"
#include "cairn/v1/cache.pb.h"

namespace cairn::cache {

uint64_t PayloadBytes(const CommitItem& item);

// INVALID_ARGUMENT, naming what is wrong: no staging, no parts or too many, more bytes than staged.
absl::Status CheckItem(const CommitItem& item);

void EncodeItem(const CommitItem& item, v1::CommitItem* out);

// How many leading items go in one request of at most `bytes_max`; at least one, if there is one.
size_t BatchOf(std::span<const CommitItem> items, uint64_t bytes_max);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_COMMIT_BATCH_H_
