#include "tools/cairn-replay/store_replay.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cache/client/digest_chain.h"
#include "cache/core/cache_core.h"
#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "store/device/memory_file_system.h"
#include "store/index/memory_catalog.h"
#include "store/segment/record_format.h"
#include "store/segment/segment_set.h"
#include "store/tier/disk_tier.h"
#include "store/tier/host_tier.h"

namespace cairn::replay {
namespace {

// True to scale: 256 MiB / (449,824 B rounded up + a header of 4,096 B).
constexpr uint64_t kRecordsPerSegment = 590;
constexpr uint32_t kPayloadBytes = 4096;
constexpr uint64_t kRecordBytes = kPayloadBytes + kIoAlignment;
// Host memory only has to hold what is on its way to disk.
constexpr uint64_t kHostEntries = 512;

cache::NamespaceSpec Spec() {
  cache::LayoutDescriptor layout;
  layout.model = "replay";
  layout.numerics = "none";
  layout.components = {{"rows", cache::LayoutScope::kPrefix, 128, 1, kPayloadBytes, 0, "bytes"}};
  return {layout, ""};
}

class StoreReplay {
 public:
  explicit StoreReplay(uint64_t seed) : random_(seed) {}

  absl::Status Open(uint64_t capacity_blocks, const std::string& policy) {
    const uint64_t records = capacity_blocks * kRecordBytes;
    // One segment is kept free for reclaim, and each has a header. A segment of a small store is
    // its share of the capacity, that free one included.
    uint64_t segment = kSegmentHeader + kRecordsPerSegment * kRecordBytes;
    while (true) {
      result_.capacity_bytes = records + segment + records / segment * kSegmentHeader;
      const uint64_t used =
          store::SegmentSet::EffectiveSegmentBytes(result_.capacity_bytes, segment);
      if (used >= segment) break;
      segment = used;
    }
    CAIRN_ASSIGN_OR_RETURN(
        host_, store::HostTier::Create({.capacity_bytes = kHostEntries * 2 * kIoAlignment}));
    CAIRN_ASSIGN_OR_RETURN(
        disk_,
        store::DiskTier::Open({.directory = "/replay",
                               .capacity_bytes = result_.capacity_bytes,
                               .segment_bytes = segment,
                               .random = &random_},
                              files_, std::make_unique<store::MemoryCatalog>(), clock_, nullptr));
    cache::CacheCore::Options options;
    options.default_tenant_key = "replay";
    options.eviction_host = options.eviction_disk = policy;
    options.background_writes = options.background_load = false;
    CAIRN_ASSIGN_OR_RETURN(core_,
                           cache::CacheCore::Create(options, *host_, disk_.get(), clock_, random_));
    CAIRN_ASSIGN_OR_RETURN(session_, core_->OpenSession(Spec(), &registration_));
    return absl::OkStatus();
  }

  absl::Status Serve(const Request& request) {
    const std::vector<Digest> chain = Chain(request.blocks);
    CAIRN_ASSIGN_OR_RETURN(const cache::MatchResult match, core_->Match(session_, chain));
    result_.asked_blocks += chain.size();
    result_.hit_blocks += match.rows_blocks;
    CAIRN_RETURN_IF_ERROR(Put(chain, match.rows_blocks));
    result_.used_bytes_max = std::max(result_.used_bytes_max, disk_->stats().used_bytes);
    return absl::OkStatus();
  }

  StoreReplayResult result() const {
    StoreReplayResult result = result_;
    for (const cache::NamedCount& count : core_->Stats()) {
      if (count.name == "disk_written_entries") result.put_bytes = count.value * kRecordBytes;
      if (count.name == "disk_moved_bytes") result.moved_bytes = count.value;
      if (count.name == "evicted_disk_entries") result.evicted_blocks = count.value;
    }
    return result;
  }

 private:
  static constexpr uint64_t kSegmentHeader = store::kSegmentHeaderBytes;

  std::vector<Digest> Chain(const std::vector<NodeId>& blocks) const {
    std::vector<Digest> chain;
    Digest parent = registration_.root;
    std::vector<int32_t> tokens(kBlockTokens, 0);
    for (const NodeId block : blocks) {
      tokens[0] = static_cast<int32_t>(block);
      parent = cache::BlockDigest(parent, chain.size(), tokens);
      chain.push_back(parent);
    }
    return chain;
  }

  // Blocks that another made meanwhile or that find no room are left out, with what follows them.
  absl::Status Put(std::span<const Digest> chain, size_t from) {
    for (size_t i = from; i < chain.size(); ++i) {
      const cache::ReserveItem item{{chain[i], EntryKind::kRows},
                                    i == 0 ? registration_.root : chain[i - 1],
                                    static_cast<uint32_t>(i)};
      CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::ReserveResult> reserved,
                             core_->Reserve(session_, {&item, 1}, absl::ZeroDuration()));
      if (reserved[0].state != cache::ReserveState::kGo) continue;
      std::memcpy(payload_.data(), chain[i].bytes.data(), Digest::kBytes);
      const cache::CoreCommitItem commit{
          reserved[0].reservation, payload_, {{kPayloadBytes, Checksum(payload_)}}};
      CAIRN_ASSIGN_OR_RETURN(const std::vector<absl::Status> done,
                             core_->Commit(session_, {&commit, 1}, /*durable=*/false));
      if (absl::IsResourceExhausted(done[0])) break;
      CAIRN_RETURN_IF_ERROR(done[0]);
    }
    const absl::Status flushed = core_->Flush(absl::Hours(1));
    return absl::IsResourceExhausted(flushed) ? absl::OkStatus() : flushed;
  }

  FakeClock clock_;
  SeededRandom random_;
  store::MemoryFileSystem files_;
  std::unique_ptr<store::HostTier> host_;
  std::unique_ptr<store::DiskTier> disk_;
  std::unique_ptr<cache::CacheCore> core_;
  cache::SessionId session_ = 0;
  cache::Registration registration_;
  std::vector<uint8_t> payload_ = std::vector<uint8_t>(kPayloadBytes, 7);
  StoreReplayResult result_;
};

}  // namespace

double StoreReplayResult::hit_rate() const {
  return asked_blocks == 0 ? 0
                           : static_cast<double>(hit_blocks) / static_cast<double>(asked_blocks);
}

double StoreReplayResult::write_amplification() const {
  return put_bytes == 0
             ? 1
             : static_cast<double>(put_bytes + moved_bytes) / static_cast<double>(put_bytes);
}

absl::StatusOr<StoreReplayResult> ReplayStore(const Trace& trace, uint64_t capacity_blocks,
                                              const std::string& policy, uint64_t seed) {
  StoreReplay replay(seed);
  CAIRN_RETURN_IF_ERROR(replay.Open(capacity_blocks, policy));
  for (const Request& request : trace.requests) CAIRN_RETURN_IF_ERROR(replay.Serve(request));
  return replay.result();
}

}  // namespace cairn::replay
