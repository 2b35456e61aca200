// cuda_transfer.h: where the bytes of cache entries (state/kv_layout.h) lie in a slot of
// CudaSessions: a block's rows entry and a checkpoint as lists of copies for kernels/cuda/gather.h,
// in either direction. An entry may lie in GPU memory or in pinned host memory.
//
// Layers come in order, and a layer's copies together: so that a restore can be cut at layers.
//
// Threads:   pure. Units: bytes; blocks of 128 tokens.
#ifndef CAIRN_ENGINE_CUDA_CUDA_TRANSFER_H_
#define CAIRN_ENGINE_CUDA_CUDA_TRANSFER_H_

#include <cstdint>
#include <vector>

#include "engine/cuda/cuda_sessions.h"
#include "engine/state/kv_layout.h"
#include "kernels/cuda/gather.h"

namespace cairn::engine {

// The entries of the engine on the GPU. Nobody else's are the same: it adds in an order of its own
// and has no MTP block.
KvLayout CudaKvLayout(ModelConfig config);

enum class TransferDirection : uint8_t { kToEntry, kFromEntry };

// Copies of layer `layer` between the rows of `block` of a slot and a rows entry at `entry`.
void AddRowsCopies(const KvLayout& layout, const CudaSessions& sessions, int64_t layer,
                   int64_t slot, int64_t block, TransferDirection direction, uint8_t* entry,
                   std::vector<kernels::cuda::SegmentCopy>& out);

// The same of the checkpoint at the end of `blocks` blocks, which is where the slot stands.
void AddCheckpointCopies(const KvLayout& layout, const CudaSessions& sessions, int64_t layer,
                         int64_t slot, int64_t blocks, TransferDirection direction, uint8_t* entry,
                         std::vector<kernels::cuda::SegmentCopy>& out);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_CUDA_TRANSFER_H_
