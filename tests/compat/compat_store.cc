#include "tests/compat/compat_store.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "cache/client/digest_chain.h"
#include "cache/core/derived_entry.h"
#include "cache/core/local_cache.h"
#include "store/base/limits.h"
#include "store/index/rocks_catalog.h"

namespace cairn::compat {
namespace {

// Fixed for ever: the keys and bytes of the stores that are checked in follow from it.
const cache::NamespaceSpec& Spec() {
  static const cache::NamespaceSpec spec = [] {
    cache::LayoutDescriptor layout;
    layout.model = "compat";
    layout.numerics = "plain";
    layout.components = {{"csa", cache::LayoutScope::kPrefix, 4, 32, 64, 8, "x"},
                         {"hca", cache::LayoutScope::kPrefix, 128, 1, 100, 0, "x"},
                         {"window", cache::LayoutScope::kTrailing, 1, 128, 40, 0, "x"}};
    return cache::NamespaceSpec{layout, ""};
  }();
  return spec;
}

constexpr char kTenantKey[] = "the compatibility stores' tenant";

absl::Status PutPrefix(cache::CacheApi& cache, std::span<const Digest> chain) {
  for (size_t i = 0; i < chain.size(); ++i) {
    const Digest& parent = i == 0 ? cache.registration().root : chain[i - 1];
    for (const EntryKind kind : {EntryKind::kRows, EntryKind::kCheckpoint}) {
      const cache::ReserveItem item{{chain[i], kind}, parent, static_cast<uint32_t>(i)};
      CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::ReserveResult> reserved,
                             cache.Reserve({&item, 1}, absl::ZeroDuration()));
      if (reserved[0].state == cache::ReserveState::kExists) continue;
      const std::vector<uint8_t> payload = cache::DerivedPayload(Spec().layout, item.key);
      CAIRN_ASSIGN_OR_RETURN(const auto staging, cache.Stage(payload.size()));
      std::memcpy(staging->bytes.data(), payload.data(), payload.size());
      const cache::CommitItem commit{reserved[0].reservation, staging.get(),
                                     cache::PartsOfPayload(Spec().layout, kind, payload)};
      CAIRN_ASSIGN_OR_RETURN(const std::vector<absl::Status> statuses,
                             cache.Commit({&commit, 1}, /*durable=*/true));
      CAIRN_RETURN_IF_ERROR(statuses[0]);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<OpenedStore>> OpenStore(const std::string& directory) {
  auto opened = std::make_unique<OpenedStore>();
  CAIRN_ASSIGN_OR_RETURN(
      opened->disk, store::DiskTier::Open({.directory = directory,
                                           .capacity_bytes = 1 << 20,
                                           .segment_bytes = 64 << 10,
                                           .random = &opened->random},
                                          opened->files, store::MakeRocksCatalog(), RealClock(),
                                          &opened->report));
  CAIRN_ASSIGN_OR_RETURN(
      opened->host,
      store::HostTier::Create({.capacity_bytes = 1 << 20, .memory = store::ArenaMemory::kAtUse}));
  cache::CacheCore::Options options;
  options.default_tenant_key = kTenantKey;
  options.policy.full = true;
  options.background_writes = options.background_load = false;
  CAIRN_ASSIGN_OR_RETURN(opened->core,
                         cache::CacheCore::Create(options, *opened->host, opened->disk.get(),
                                                  RealClock(), opened->random));
  CAIRN_ASSIGN_OR_RETURN(opened->cache, cache::OpenLocalCache(*opened->core, Spec()));
  return opened;
}

std::vector<Digest> PrefixChain(const Digest& root, uint64_t number) {
  std::vector<int32_t> tokens((1 + number) * kBlockTokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(number * 10'000 + i);
  return cache::DigestChain(root, tokens);
}

absl::Status Fill(OpenedStore& store) {
  const Digest& root = store.cache->registration().root;
  for (uint64_t number = 0; number < kPrefixes; ++number) {
    CAIRN_RETURN_IF_ERROR(PutPrefix(*store.cache, PrefixChain(root, number)));
  }
  uint64_t kept = 0;
  return store.core->Evict({.prefix = PrefixChain(root, kPrefixes - 1)[0]}, &kept).status();
}

absl::Status CheckPrefix(OpenedStore& store, uint64_t number) {
  const std::vector<Digest> chain = PrefixChain(store.cache->registration().root, number);
  CAIRN_ASSIGN_OR_RETURN(const cache::MatchResult match, store.cache->Match(chain));
  if (match.rows_blocks == 0) return absl::NotFoundError("no such prefix");
  for (size_t blocks = 1; blocks <= chain.size(); ++blocks) {
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<cache::FetchedPrefix> fetched,
                           store.cache->Fetch({.chain = std::span(chain).first(blocks)}));
    if (fetched->rows.size() != blocks || !fetched->checkpoint.has_value()) {
      return absl::DataLossError(absl::StrCat("prefix ", number, " is not whole"));
    }
    for (const cache::EntryView* entry : {&fetched->rows.back(), &*fetched->checkpoint}) {
      const std::vector<uint8_t> put = cache::DerivedPayload(Spec().layout, entry->key);
      if (!std::equal(put.begin(), put.end(), entry->payload.begin(), entry->payload.end())) {
        return absl::DataLossError(absl::StrCat("prefix ", number, " has other bytes"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace cairn::compat
