// session_state.h: what one sequence carries between steps (spec section 2.10), as separate types:
// the window ring, the append-only rows in blocks, the CSA overlap, and the partial group that is
// not yet compressed.
//
// Rows live in blocks of the rows entry's own layout, so a block restored from the cache is used
// where it lies (mapped, no copy), and a block made here is stored as it is.
//
// Threads: externally synchronised, one writer. Ownership: a block keeps its owner (a lease, a
// buffer) alive.
#ifndef CAIRN_ENGINE_STATE_SESSION_STATE_H_
#define CAIRN_ENGINE_STATE_SESSION_STATE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/state/cached_session.h"
#include "engine/state/kv_layout.h"
#include "engine/state/replay_plan.h"

namespace cairn::engine {

// The rows of the last `window` positions of one layer; slot = position mod window. Bytes as in a
// checkpoint.
class WindowRing {
 public:
  WindowRing(const kernels::RowCodec& codec, int64_t window);
  int64_t slots() const { return slot_.rows; }
  // Both convert one row; Put returns nothing to recompute with: callers use what Get gives.
  void Put(int64_t position, const float* row);
  void Get(int64_t position, float* row) const;
  // Asks the memory for what Get reads soon.
  void Prefetch(int64_t position) const;
  std::span<uint8_t> bytes() { return bytes_; }
  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  const kernels::RowCodec* codec_;
  ComponentSlot slot_;
  std::vector<uint8_t> bytes_;
};

// One sequence's compressed rows of all layers, block by block.
class RowBlocks {
 public:
  explicit RowBlocks(int64_t block_bytes) : block_bytes_(block_bytes) {}
  int64_t count() const { return static_cast<int64_t>(blocks_.size()); }
  const uint8_t* Read(int64_t block) const { return blocks_[static_cast<size_t>(block)].bytes; }
  // Makes the block (zeroed) if it is the next one. REQUIRES: the block is not an adopted one.
  uint8_t* Write(int64_t block);
  // Appends a whole block that somebody else owns; it must stay unchanged while `owner` lives.
  void Adopt(const uint8_t* bytes, std::shared_ptr<const void> owner);
  // Replaces an adopted block by a copy, of which `bytes` are exactly the same; its owner is let
  // go.
  void Replace(int64_t block, std::shared_ptr<const std::vector<uint8_t>> bytes);
  // A hold on a finished block for storing it in the background.
  std::shared_ptr<const uint8_t> Share(int64_t block) const;

 private:
  struct Block {
    const uint8_t* bytes = nullptr;
    uint8_t* own = nullptr;  // null when adopted
    std::shared_ptr<const void> owner;
  };
  int64_t block_bytes_;
  std::vector<Block> blocks_;
};

// The overlap halves of the previous group of 4 tokens (ratio 4 only): kv [4][dim], then score
// [4][dim].
struct OverlapState {
  std::vector<float> values;
  const float* kv(int64_t i, int64_t dim) const { return values.data() + i * dim; }
  const float* score(int64_t i, int64_t dim) const { return values.data() + (4 + i) * dim; }
};

// Tokens of the group that is not full yet: (position mod ratio) of them, each `width` kv values
// and scores (ape added).
struct PartialState {
  std::vector<float> kv;
  std::vector<float> score;
};

struct CompressorState {
  OverlapState overlap;
  PartialState partial;
};

// What a guessed token changed and cannot be cut off: the state before it of a group it closed.
struct CompressorUndo {
  std::optional<CompressorState> main;
  std::optional<CompressorState> indexer;
};

struct GuessUndo {
  CompressorUndo& layer(int64_t i) { return layers[static_cast<size_t>(i)]; }

  std::vector<CompressorUndo> layers;
  std::vector<float> last_hidden;
};

struct LayerState {
  WindowRing window;
  CompressorState main;
  CompressorState indexer;
};

class SessionState final : public CachedSession {
 public:
  SessionState(const ModelConfig& config, const KvLayout& layout);

  const KvLayout& layout() const { return *layout_; }
  int64_t position() const override { return position_; }
  void Advance(int64_t tokens) { position_ += tokens; }
  // Undoes the last token, a guess (forward.h). What it wrote into the window and the rows is left:
  // it replaced what no later token sees, and is replaced before any sees it.
  void TakeBack();
  GuessUndo& undo() { return undo_; }

  LayerState& layer(int64_t i) { return layers_[static_cast<size_t>(i)]; }
  const LayerState& layer(int64_t i) const { return layers_[static_cast<size_t>(i)]; }
  RowBlocks& rows() { return rows_; }
  const RowBlocks& rows() const { return rows_; }
  // Residual streams [hc, dim] of the last token after the last main layer; used by MTP. Empty at
  // position 0.
  std::vector<float>& last_hidden() { return last_hidden_; }

  // Row `row` of a component of `layer` in the blocks.
  // Asks the memory for a row that is read soon.
  void PrefetchRow(const ComponentSlot& slot, int64_t row) const;
  void ReadRow(const ComponentSlot& slot, const kernels::RowCodec& codec, int64_t row,
               float* out) const;
  // Rows [row, row + count) side by side: panel [dim][16], count <= 16; the other columns are 0.
  void ReadPanel(const ComponentSlot& slot, const kernels::RowCodec& codec, int64_t row,
                 int64_t count, float* panel) const;
  void WriteRow(const ComponentSlot& slot, const kernels::RowCodec& codec, int64_t row,
                const float* x);

  // REQUIRES: position is a multiple of kBlockTokens, out.size() == layout().checkpoint_bytes().
  void SaveCheckpoint(std::span<uint8_t> out) const;
  // Becomes the state at `blocks` whole blocks. REQUIRES: rows() holds exactly that many; sizes as
  // above.
  void LoadCheckpoint(int64_t blocks, std::span<const uint8_t> in);

  // What was restored while it arrived. Before a step reads or writes anything of a layer: returns
  // when that layer's bytes are there, and of those before it. OK at once for any other session.
  // Else why they never will be: arrival_failed() from then on.
  absl::Status AwaitLayer(int64_t layer);
  // And of all layers, with what belongs to none.
  absl::Status AwaitAll() override { return AwaitLayer(static_cast<int64_t>(layers_.size()) - 1); }
  bool arriving() const override { return arrival_.prefix != nullptr; }
  bool on_its_way() const override { return arriving() && !arrival_.prefix->arrival().ended; }

  // From rows alone: the next tokens, from plan.From(0) to its end, are replayed. Until then the
  // state is nobody's. REQUIRES: a fresh session, but for rows(), which holds the plan's blocks.
  void StartReplay(const ReplayPlan& plan) {
    replay_ = plan;
    position_ = plan.From(0);
  }
  const ReplayPlan* replay() const override { return position_ < replay_.end ? &replay_ : nullptr; }

  // Rows are adopted where they lie; the checkpoint is copied.
  absl::Status Restore(const StoredPrefix& prefix) override;
  bool reads_in_place() const override { return true; }
  bool takes_arriving() const override { return true; }
  bool arrival_failed() const override { return arrival_.failed; }
  void ReplaceRows(int64_t block, std::shared_ptr<const std::vector<uint8_t>> bytes) override {
    rows_.Replace(block, std::move(bytes));
  }
  absl::StatusOr<std::shared_ptr<const uint8_t>> ShareRows(int64_t block) override {
    CAIRN_RETURN_IF_ERROR(AwaitAll());
    return rows_.Share(block);
  }
  absl::StatusOr<std::shared_ptr<const uint8_t>> ShareCheckpoint() override;

 private:
  struct Arriving {
    std::shared_ptr<const void> owner;
    const cache::FetchedPrefix* prefix = nullptr;  // null: all is there
    std::span<const uint8_t> checkpoint;
    std::vector<LayerGroup> groups;
    int64_t loaded = 0;  // layers
    bool failed = false;
  };

  void RestoreArriving(const StoredPrefix& prefix);
  void LoadLayer(size_t i, std::span<const uint8_t> checkpoint);
  void LoadHidden(std::span<const uint8_t> checkpoint);

  const KvLayout* layout_;
  std::vector<LayerState> layers_;
  RowBlocks rows_;
  std::vector<float> last_hidden_;
  GuessUndo undo_;
  int64_t hidden_values_ = 0;
  int64_t position_ = 0;
  ReplayPlan replay_;
  Arriving arrival_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_STATE_SESSION_STATE_H_
