// digest_chain.h: names of prefixes. Block i's digest is
//   SHA-256( "cairn.block.1" || parent (32 B) || index u64 LE || token count u32 LE || token ids,
//   i32 LE each )
// and the root (the parent of block 0) is a namespace's
//   HMAC-SHA-256( tenant key, "cairn.root.1" || layout identity (32 B) ).
// Every field has a fixed width or is preceded by its count, so no two inputs share a framing.
//
// Threads: pure functions. Cost: 0.6 us a block with SHA-NI.
#ifndef CAIRN_CACHE_CLIENT_DIGEST_CHAIN_H_
#define CAIRN_CACHE_CLIENT_DIGEST_CHAIN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "store/base/digest.h"

namespace cairn::cache {

Digest NamespaceRoot(std::span<const uint8_t> tenant_key, const Digest& layout_identity);

// REQUIRES: tokens.size() == kBlockTokens.
Digest BlockDigest(const Digest& parent, uint64_t index, std::span<const int32_t> tokens);

// Digests of all whole blocks of `tokens`, from block 0; a shorter tail has none.
std::vector<Digest> DigestChain(const Digest& root, std::span<const int32_t> tokens);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_DIGEST_CHAIN_H_
