#include "tools/cairn-replay/byte_replay.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "store/base/limits.h"

namespace cairn::replay {
namespace {

constexpr uint32_t kBlocksPerNode = kTraceBlockTokens / kBlockTokens;
static_assert(kBlocksPerNode * kBlockTokens == kTraceBlockTokens);

// Window rows are 584 B; a CSA layer's overlap is 20,480 B; one MTP layer has a window too.
constexpr uint64_t kWindowTokens = 128, kRowBytes = 584, kOverlapBytes = 20480, kMtpLayers = 1;
constexpr uint64_t CheckpointBytes(uint64_t layers, uint64_t csa_layers) {
  return (layers + kMtpLayers) * kWindowTokens * kRowBytes + csa_layers * kOverlapBytes;
}
constexpr uint64_t ReplayTokens(uint64_t layers) { return (kWindowTokens - 1) * (layers - 1) / 2; }

class ByteCache {
 public:
  ByteCache(const Trace& trace, const ReplayLayout& layout, uint64_t capacity,
            cache::EvictionPolicy& policy)
      : trace_(trace),
        layout_(layout),
        capacity_(capacity),
        policy_(policy),
        nodes_(trace.nodes.size()) {}

  // Tokens that need not be computed.
  uint64_t Serve(const Request& request) {
    const size_t whole =
        std::min<size_t>(request.blocks.size(), request.input_tokens / kTraceBlockTokens);
    const std::vector<NodeId> path(request.blocks.begin(),
                                   request.blocks.begin() + static_cast<ptrdiff_t>(whole));
    size_t rows = 0;
    while (rows < whole && nodes_[path[rows]].rows) ++rows;
    const uint64_t saved = Saved(path, rows);
    for (size_t i = 0; i < rows; ++i) {
      Hold(path[i], true);
      policy_.Used(RowsOf(path[i]));
    }
    if (resumed_ != kNoNode) policy_.Used(CheckpointOf(resumed_));
    size_t held = rows;
    for (size_t i = 0; i < whole; ++i) {
      if (!nodes_[path[i]].rows) {
        if (!InsertRows(path[i])) break;
        ++held;
      }
      if (!nodes_[path[i]].checkpoint && !InsertCheckpoint(path[i], i + 1 == whole)) break;
    }
    for (size_t i = held; i-- > 0;) Hold(path[i], false);
    return saved;
  }

 private:
  struct NodeState {
    bool rows = false, checkpoint = false, held = false;
    bool rows_evictable = false;
    uint32_t children = 0;
    uint32_t resume_blocks = 0, checkpoints = 0;  // of the checkpoint entry
  };

  static cache::PolicyHandle RowsOf(NodeId node) { return 2 * node; }
  static cache::PolicyHandle CheckpointOf(NodeId node) { return 2 * node + 1; }
  uint64_t RowsBytes() const { return kBlocksPerNode * layout_.block_rows_bytes; }
  uint64_t CheckpointBytesOf(NodeId node) const {
    return nodes_[node].checkpoints * layout_.checkpoint_bytes;
  }

  // Sets resumed_ to the node whose checkpoint serves.
  uint64_t Saved(const std::vector<NodeId>& path, size_t rows) {
    resumed_ = kNoNode;
    if (layout_.zero()) {
      const uint64_t tokens = rows * kTraceBlockTokens;
      return tokens - std::min(tokens, layout_.replay_tokens);
    }
    for (size_t i = rows; i-- > 0;) {
      const NodeState& node = nodes_[path[i]];
      if (!node.checkpoint) continue;
      resumed_ = path[i];
      return (i * kBlocksPerNode + node.resume_blocks) * kBlockTokens;
    }
    return 0;
  }

  bool MakeRoom(uint64_t bytes) {
    while (used_ + bytes > capacity_) {
      const auto victim = policy_.Victim();
      if (!victim) return false;
      Evict(*victim);
    }
    used_ += bytes;
    return true;
  }

  bool InsertRows(NodeId node) {
    if (!MakeRoom(RowsBytes())) return false;
    const Node& place = trace_.nodes[node];
    policy_.Inserted(RowsOf(node),
                     {.key = RowsOf(node),
                      .parent = place.parent == kNoNode ? cache::kNoHandle : RowsOf(place.parent),
                      .depth = place.depth,
                      .bytes = RowsBytes(),
                      .tokens = kTraceBlockTokens});
    nodes_[node].rows = true;
    nodes_[node].held = true;
    if (place.parent != kNoNode) {
      ++nodes_[place.parent].children;
      Refresh(place.parent);
    }
    return true;
  }

  // false: it is wanted and there is no room.
  bool InsertCheckpoint(NodeId node, bool is_end) {
    NodeState& state = nodes_[node];
    const uint64_t before = uint64_t{trace_.nodes[node].depth} * kBlocksPerNode;
    state.checkpoints = 0;
    for (uint32_t block = 1; block <= kBlocksPerNode; ++block) {
      if (!layout_.checkpoints.Wants(before + block, is_end && block == kBlocksPerNode, false))
        continue;
      ++state.checkpoints;
      state.resume_blocks = block;
    }
    if (state.checkpoints == 0) return true;
    if (!MakeRoom(CheckpointBytesOf(node))) return false;
    uint64_t gap = 1;
    for (NodeId above = trace_.nodes[node].parent; above != kNoNode && !nodes_[above].checkpoint;
         above = trace_.nodes[above].parent) {
      ++gap;
    }
    policy_.Inserted(CheckpointOf(node), {.key = CheckpointOf(node),
                                          .parent = RowsOf(node),
                                          .depth = trace_.nodes[node].depth,
                                          .kind = EntryKind::kCheckpoint,
                                          .bytes = CheckpointBytesOf(node) + gap * RowsBytes(),
                                          .tokens = gap * kTraceBlockTokens});
    state.checkpoint = true;
    Refresh(node);
    return true;
  }

  void Evict(cache::PolicyHandle handle) {
    const NodeId node = handle / 2;
    policy_.Removed(handle, /*evicted=*/true);
    if (handle == CheckpointOf(node)) {
      used_ -= CheckpointBytesOf(node);
      nodes_[node].checkpoint = false;
      Refresh(node);
      return;
    }
    used_ -= RowsBytes();
    nodes_[node].rows = false;
    nodes_[node].rows_evictable = false;
    const NodeId parent = trace_.nodes[node].parent;
    if (parent == kNoNode) return;
    --nodes_[parent].children;
    Refresh(parent);
  }

  void Hold(NodeId node, bool held) {
    nodes_[node].held = held;
    if (nodes_[node].checkpoint) policy_.SetEvictable(CheckpointOf(node), !held);
    Refresh(node);
  }

  void Refresh(NodeId node) {
    NodeState& state = nodes_[node];
    const bool evictable = state.rows && !state.held && state.children == 0 && !state.checkpoint;
    if (evictable == state.rows_evictable) return;
    state.rows_evictable = evictable;
    // Leaves without a checkpoint save nothing, unless the window is replayed.
    if (evictable && !layout_.zero()) policy_.SetWorth(RowsOf(node), RowsBytes(), 0);
    policy_.SetEvictable(RowsOf(node), evictable);
  }

  const Trace& trace_;
  const ReplayLayout& layout_;
  const uint64_t capacity_;
  cache::EvictionPolicy& policy_;
  std::vector<NodeState> nodes_;
  uint64_t used_ = 0;
  NodeId resumed_ = kNoNode;
};

}  // namespace

absl::StatusOr<ReplayLayout> ReplayLayout::Make(const std::string& name,
                                                const std::string& checkpoints) {
  auto parsed = cache::CheckpointPolicy::Parse(checkpoints);
  if (!parsed.ok()) return parsed.status();
  if (parsed->branches || parsed->has_ttl()) {
    return absl::InvalidArgumentError(
        absl::StrCat("checkpoints \"", checkpoints, "\": branches and TTLs are not replayed"));
  }
  if (name == "flash")
    return ReplayLayout{449'824, CheckpointBytes(43, 21), ReplayTokens(43), *parsed};
  if (name == "pro")
    return ReplayLayout{644'024, CheckpointBytes(61, 30), ReplayTokens(61), *parsed};
  return absl::InvalidArgumentError(
      absl::StrCat("layout \"", name.substr(0, 32), "\" is not known; use flash or pro"));
}

bool ReplayLayout::zero() const {
  return !checkpoints.full && checkpoints.every_tokens == 0 && !checkpoints.ends;
}

TokenCounts ReplayBytes(const Trace& trace, const ReplayLayout& layout, uint64_t capacity_bytes,
                        cache::EvictionPolicy& policy) {
  ByteCache cache(trace, layout, capacity_bytes, policy);
  TokenCounts counts;
  for (const Request& request : trace.requests) {
    const uint64_t saved = cache.Serve(request);
    counts.hit += saved;
    counts.recomputed += request.input_tokens - saved;
  }
  return counts;
}

}  // namespace cairn::replay
