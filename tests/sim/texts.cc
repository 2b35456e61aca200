#include "tests/sim/texts.h"

#include <cstring>

#include "cache/client/digest_chain.h"
#include "store/base/limits.h"

namespace cairn::sim {
namespace {

constexpr int kStems = 3;
constexpr int kLeaves = 2;
constexpr size_t kBlocks = 6;
constexpr size_t kSharedBlocks = 3;

}  // namespace

Texts::Texts() {
  const Digest identity = cache::RigSpec().layout.Identity();
  for (size_t tenant = 0; tenant < kTenantCount; ++tenant) {
    const char* const secret = kSecrets[tenant];
    const std::span<const uint8_t> key(reinterpret_cast<const uint8_t*>(secret),
                                       std::strlen(secret));
    roots_.push_back(cache::NamespaceRoot(key, identity));
    for (int stem = 0; stem < kStems; ++stem) {
      for (int leaf = 0; leaf < kLeaves; ++leaf) {
        std::vector<int32_t> tokens(kBlocks * kBlockTokens);
        for (size_t i = 0; i < tokens.size(); ++i) {
          const bool shared = i / kBlockTokens < kSharedBlocks;
          tokens[i] = static_cast<int32_t>(i) + 10'000 * (shared ? stem : 100 + stem * 10 + leaf);
        }
        texts_.push_back({tenant, cache::DigestChain(roots_.back(), tokens)});
        const std::vector<Digest>& chain = texts_.back().chain;
        for (uint32_t i = 0; i < chain.size(); ++i) {
          places_[chain[i]] = {tenant, i == 0 ? roots_.back() : chain[i - 1], i};
        }
      }
    }
  }
}

const Place* Texts::Find(const Digest& digest) const {
  const auto found = places_.find(digest);
  return found == places_.end() ? nullptr : &found->second;
}

cache::ReserveItem Texts::Item(const Text& text, size_t index, EntryKind kind) const {
  const Digest& parent = index == 0 ? roots_[text.tenant] : text.chain[index - 1];
  return {{text.chain[index], kind}, parent, static_cast<uint32_t>(index)};
}

}  // namespace cairn::sim
