// expert_files.h: the routed experts of a model as they lie on disk, and how much memory keeping
// them packed takes.
//
// Threads:   immutable; Load from any thread.
// Ownership: keeps the model's files open; a file system that is given outlives this.
// Units:     bytes.
// Errors:    of Load: those of TensorReader, naming layer and expert.
#ifndef CAIRN_ENGINE_FORWARD_EXPERT_FILES_H_
#define CAIRN_ENGINE_FORWARD_EXPERT_FILES_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/forward/linear_op.h"
#include "engine/model/tensor_reader.h"
#include "engine/model/weights.h"
#include "engine/state/numerics.h"
#include "store/device/file_system.h"

namespace cairn::engine {

class ExpertFiles {
 public:
  // `system` null: the machine's. INVALID_ARGUMENT if the numerics cannot be had with these
  // weights.
  static absl::StatusOr<std::unique_ptr<ExpertFiles>> Open(store::FileSystem* system,
                                                           const Weights& weights,
                                                           Numerics numerics);

  int64_t layers() const { return std::ssize(experts_) / experts_per_layer_; }  // with MTP's
  int64_t experts() const { return experts_per_layer_; }                        // of a layer
  // Of the largest one: packed, and as it is read.
  uint64_t packed_bytes() const { return packed_bytes_; }
  uint64_t room_bytes() const { return room_bytes_; }
  // Of all, on disk.
  uint64_t stored_bytes() const { return stored_bytes_; }

  // ExpertCache::Load.
  absl::StatusOr<uint64_t> Load(int64_t layer, int64_t expert, ReadRoom& room,
                                ExpertOp& into) const;

 private:
  struct Matrix {
    kernels::RawMatrix shape;  // its pointers are into the mapping, and not followed
    TensorReader::Bytes values, scales;
    LinearKind kind;
  };
  using Expert = std::array<Matrix, 3>;  // w1, w2, w3

  absl::Status Add(const ExpertWeights& weights, Numerics numerics);

  std::unique_ptr<store::FileSystem> own_system_;
  std::unique_ptr<TensorReader> reader_;
  int64_t experts_per_layer_ = 0;
  std::vector<Expert> experts_;  // layer by layer
  uint64_t packed_bytes_ = 0, room_bytes_ = 0, stored_bytes_ = 0;
};

// Readers at once. Each has all tensors of an expert in flight and packs what it read.
inline constexpr int kExpertReaders = 4;

struct ExpertBudget {
  // What to take at most; unset: what is needed for all, or else what is left.
  std::optional<uint64_t> asked = std::nullopt;
  uint64_t available = 0;  // memory that nobody has taken
  uint64_t dense = 0;      // of it, for the other weights
  uint64_t reserved = 0;   // of it, for what the caller has planned beside the model
};

// How many experts to keep. RESOURCE_EXHAUSTED if that is less than what a token's step of a layer
// takes.
absl::StatusOr<int64_t> ExpertPlaces(const ExpertFiles& files, int64_t experts_per_token,
                                     const ExpertBudget& budget);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_EXPERT_FILES_H_
