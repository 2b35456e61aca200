// cached_session.h: a sequence's state as the cache sees it: whole blocks of rows, and checkpoints,
// in the bytes of their entries (kv_layout.h). In whose memory it lies, and how it is computed on,
// is its own affair: session_state.h is in host memory, cuda/cuda_cached_session.h on a GPU.
//
// Threads:   externally synchronised.
// Ownership: bytes that are shared stay as they are for as long as they are held.
// Units:     tokens; blocks of kBlockTokens; bytes.
#ifndef CAIRN_ENGINE_STATE_CACHED_SESSION_H_
#define CAIRN_ENGINE_STATE_CACHED_SESSION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cache/client/cache_api.h"
#include "engine/state/kv_layout.h"
#include "engine/state/replay_plan.h"
#include "store/base/status.h"

namespace cairn::engine {

// What the cache has to know of a model and of the engine that computes it.
struct CachedModel {
  const ModelConfig& config;  // both outlive this
  const KvLayout& layout;
  Digest weights;       // Weights::Identity
  bool replays = true;  // its sessions can be replayed from rows alone (replay_plan.h)

  cache::LayoutDescriptor Descriptor() const { return layout.Descriptor(weights); }
};

// What is to be restored, unchecked: rows, and a checkpoint at their end or else a replay of it.
// The sizes are the layout's.
struct StoredPrefix {
  std::span<const cache::EntryView> rows;  // from the sequence's first block
  const cache::EntryView* checkpoint = nullptr;
  std::optional<ReplayPlan> replay = std::nullopt;  // REQUIRES: CachedModel::replays
  bool verified = false;                            // was checked, and nobody writes there since
  // Not null: it still arrives, checked on its way, in these groups (FetchedPrefix::Await), of
  // which the first is there. Held by `owner`. REQUIRES: CachedSession::takes_arriving(), a
  // checkpoint.
  const cache::FetchedPrefix* arriving = nullptr;
  std::vector<LayerGroup> groups = {};
  std::shared_ptr<const void> owner = nullptr;  // of the bytes
};

// Of a Restore.
struct RestoreFigures {
  uint64_t gpu_bytes = 0;          // that were read in the daemon's pool in GPU memory
  uint64_t checksum_failures = 0;  // there, made good by what host memory has
};

class CachedSession {
 public:
  virtual ~CachedSession() = default;

  virtual int64_t position() const = 0;  // tokens processed; the next token's position
  // What the next tokens replay, or null. Until then the state is nobody's.
  virtual const ReplayPlan* replay() const { return nullptr; }

  // Becomes the state at the prefix's end, or what a replay of it begins from; every byte is
  // checked first. REQUIRES: a fresh session. DATA_LOSS: an entry is not what was put. That or any
  // other error leaves a fresh session.
  virtual absl::Status Restore(const StoredPrefix& prefix) = 0;
  // Of the last one.
  virtual RestoreFigures restored() const { return {}; }
  // Restored rows are read where they lie, and must be checked there again until they are replaced.
  // Else they were copied in the pass that checked them.
  virtual bool reads_in_place() const { return false; }
  // A prefix may be restored while it arrives: a step then waits before each layer until that
  // layer's bytes are there. Those after the first step do not.
  virtual bool takes_arriving() const { return false; }
  // Not all of it was awaited yet. What is there of the state is nobody's until then, but for a
  // step.
  virtual bool arriving() const { return false; }
  // And awaiting it might wait.
  virtual bool on_its_way() const { return false; }
  // Returns when all is there; else why it never will be: arrival_failed() from then on.
  virtual absl::Status AwaitAll() { return absl::OkStatus(); }
  // What was restored did not arrive whole; the step that waited for it failed by that, and the
  // session is good for nothing any more.
  virtual bool arrival_failed() const { return false; }
  // By a copy of the same bytes; the prefix's owner is let go. REQUIRES: reads_in_place().
  virtual void ReplaceRows(int64_t /*block*/, std::shared_ptr<const std::vector<uint8_t>>) {}

  // The rows entry of a whole block, and the checkpoint at position(), a block's end.
  virtual absl::StatusOr<std::shared_ptr<const uint8_t>> ShareRows(int64_t block) = 0;
  virtual absl::StatusOr<std::shared_ptr<const uint8_t>> ShareCheckpoint() = 0;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_STATE_CACHED_SESSION_H_
