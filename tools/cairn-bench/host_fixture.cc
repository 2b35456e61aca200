#include "tools/cairn-bench/host_fixture.h"

#include <algorithm>

#include "cache/client/digest_chain.h"
#include "cache/client/remote_cache.h"
#include "cache/core/local_cache.h"
#include "store/base/checksum.h"
#include "store/base/clock.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "store/device/socket.h"

namespace cairn::bench {
namespace {

constexpr size_t kCheckpointsMax = 4;
constexpr size_t kStagedBlocks = 64;

uint64_t RoomOf(const cache::LayoutDescriptor& layout, cache::LayoutScope scope) {
  return store::HostRoomBytes(layout.entry_bytes(scope), layout.part_bytes(scope).size());
}

}  // namespace

cache::LayoutDescriptor SmallLayout() {
  cache::LayoutDescriptor layout;
  layout.model = "small";
  layout.numerics = "bench";
  layout.components = {{"rows", cache::LayoutScope::kPrefix, 128, 1, 4088, 0, "bytes"},
                       {"window", cache::LayoutScope::kTrailing, 128, 1, 4088, 0, "bytes"}};
  return layout;
}

absl::StatusOr<std::unique_ptr<HostFixture>> HostFixture::Make(
    const cache::LayoutDescriptor& layout, size_t blocks) {
  std::unique_ptr<HostFixture> fixture(new HostFixture());
  fixture->layout_ = layout;
  const uint64_t bytes = blocks * RoomOf(layout, cache::LayoutScope::kPrefix) +
                         kCheckpointsMax * RoomOf(layout, cache::LayoutScope::kTrailing);
  CAIRN_ASSIGN_OR_RETURN(fixture->host_, store::HostTier::Create({.capacity_bytes = bytes}));
  cache::CacheCore::Options options;
  options.default_tenant_key = "bench";
  options.policy.ends = true;
  CAIRN_ASSIGN_OR_RETURN(fixture->core_, cache::CacheCore::Create(options, *fixture->host_, nullptr,
                                                                  RealClock(), SystemRandom()));
  return fixture;
}

absl::Status HostFixture::Serve(const std::string& directory) {
  const std::string socket = directory + "/cairn.sock";
  CAIRN_ASSIGN_OR_RETURN(server_, cache::CacheServer::Start({.socket = socket,
                                                             .listen = "",
                                                             .admin_socket = "",
                                                             .bulk_listen = "",
                                                             .version = "bench"},
                                                            *core_, RealClock(), SystemRandom(),
                                                            store::UnixSockets()));
  target_ = "unix:" + socket;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<cache::CacheApi>> HostFixture::OpenLocal() {
  return cache::OpenLocalCache(*core_, {layout_, ""});
}

absl::StatusOr<std::unique_ptr<cache::CacheApi>> HostFixture::Connect() {
  CAIRN_ASSIGN_OR_RETURN(
      std::unique_ptr<cache::CacheApi> cache,
      cache::ConnectCache(target_, {layout_, ""}, {.call_timeout = absl::Seconds(10)}));
  if (!cache->registration().mapped) {
    return absl::FailedPreconditionError("the arena could not be mapped");
  }
  return cache;
}

std::vector<Digest> ChainOf(const cache::CacheApi& cache, size_t blocks, int32_t salt) {
  std::vector<int32_t> tokens(blocks * kBlockTokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i) ^ salt;
  return cache::DigestChain(cache.registration().root, tokens);
}

absl::StatusOr<StagedEntries> StageEntries(cache::CacheApi& cache,
                                           const std::vector<uint32_t>& part_bytes, size_t count) {
  uint64_t bytes = 0;
  for (const uint32_t part : part_bytes) bytes += part;
  StagedEntries staged;
  uint64_t word = 88172645463325252u;
  for (size_t i = 0; i < count; ++i) {
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<cache::StagingBuffer> buffer, cache.Stage(bytes));
    for (uint8_t& byte : buffer->bytes) {
      word = word * 6364136223846793005u + 1442695040888963407u;
      byte = static_cast<uint8_t>(word >> 56);
    }
    std::vector<EntryPart>& parts = staged.parts.emplace_back();
    size_t at = 0;
    for (const uint32_t part : part_bytes) {
      parts.push_back({part, Checksum(buffer->bytes.subspan(at, part))});
      at += part;
    }
    staged.buffers.push_back(std::move(buffer));
  }
  return staged;
}

absl::StatusOr<std::vector<cache::CommitItem>> ReserveRows(cache::CacheApi& cache,
                                                           std::span<const Digest> chain,
                                                           size_t first,
                                                           const StagedEntries& staged) {
  std::vector<cache::ReserveItem> names;
  for (size_t i = first; i < chain.size() && names.size() < staged.buffers.size(); ++i) {
    names.push_back({{chain[i], EntryKind::kRows},
                     i == 0 ? cache.registration().root : chain[i - 1],
                     static_cast<uint32_t>(i)});
  }
  CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::ReserveResult> reserved,
                         cache.Reserve(names, absl::ZeroDuration()));
  std::vector<cache::CommitItem> items;
  for (size_t i = 0; i < reserved.size(); ++i) {
    if (reserved[i].state != cache::ReserveState::kGo) {
      return absl::InternalError("an entry that should be new was there already");
    }
    items.push_back({reserved[i].reservation, staged.buffers[i].get(), staged.parts[i]});
  }
  return items;
}

absl::Status CommitAll(cache::CacheApi& cache, std::span<const cache::CommitItem> items) {
  CAIRN_ASSIGN_OR_RETURN(const std::vector<absl::Status> statuses, cache.Commit(items, false));
  for (const absl::Status& status : statuses) CAIRN_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::Status PutPrefix(cache::CacheApi& cache, const cache::LayoutDescriptor& layout,
                       std::span<const Digest> chain) {
  CAIRN_ASSIGN_OR_RETURN(
      const StagedEntries rows,
      StageEntries(cache, layout.part_bytes(cache::LayoutScope::kPrefix), kStagedBlocks));
  for (size_t first = 0; first < chain.size(); first += kStagedBlocks) {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::CommitItem> items,
                           ReserveRows(cache, chain, first, rows));
    CAIRN_RETURN_IF_ERROR(CommitAll(cache, items));
  }
  CAIRN_ASSIGN_OR_RETURN(const StagedEntries checkpoint,
                         StageEntries(cache, layout.part_bytes(cache::LayoutScope::kTrailing), 1));
  const cache::ReserveItem name{
      {chain.back(), EntryKind::kCheckpoint},
      chain.size() == 1 ? cache.registration().root : chain[chain.size() - 2],
      static_cast<uint32_t>(chain.size() - 1)};
  CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::ReserveResult> reserved,
                         cache.Reserve({&name, 1}, absl::ZeroDuration()));
  const cache::CommitItem item{reserved[0].reservation, checkpoint.buffers[0].get(),
                               checkpoint.parts[0]};
  return CommitAll(cache, {&item, 1});
}

}  // namespace cairn::bench
