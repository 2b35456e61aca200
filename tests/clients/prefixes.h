// prefixes.h: what the clients of the campaign put and fetch: entries whose bytes are a function of
// their name, so that whoever reads one can tell whether it is right.
//
// Threads: pure functions. Units: bytes. Errors: DATA_LOSS: what was read is not what was put; the
// message begins with WRONG.
#ifndef CAIRN_TESTS_CLIENTS_PREFIXES_H_
#define CAIRN_TESTS_CLIENTS_PREFIXES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "cache/client/cache_api.h"

namespace cairn::clients {

inline constexpr size_t kBlocks = 32;           // of a prefix, unless otherwise said: about 2.4 MB
inline constexpr uint64_t kKnownPrefixes = 16;  // numbers below: put before the clients come

// Rows of 66 kB in two parts, checkpoints of 256 KiB.
const cache::NamespaceSpec& ClientsSpec();

// Of prefix `number`; no two numbers below 2^31 share a block.
std::vector<Digest> ChainOf(const Digest& root, uint64_t number, size_t blocks = kBlocks);
inline std::vector<Digest> ChainOf(const cache::CacheApi& cache, uint64_t number,
                                   size_t blocks = kBlocks) {
  return ChainOf(cache.registration().root, number, blocks);
}

// All rows of the chain and the checkpoint at its end.
std::vector<cache::ReserveItem> ItemsOf(const cache::CacheApi& cache,
                                        std::span<const Digest> chain);

// Reserves, stages and commits what is not there. An entry that is refused for room is not counted
// as committed; every other refusal is an error.
struct PutResult {
  uint64_t committed = 0;
  uint64_t refused = 0;
};
absl::StatusOr<PutResult> PutPrefix(cache::CacheApi& cache, std::span<const Digest> chain,
                                    bool durable);

// Checksums and contents of all that came.
absl::Status CheckPrefix(const cache::FetchedPrefix& fetched);

}  // namespace cairn::clients

#endif  // CAIRN_TESTS_CLIENTS_PREFIXES_H_
