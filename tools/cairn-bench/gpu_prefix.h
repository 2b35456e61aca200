// gpu_prefix.h: a 128k-token prefix of DeepSeek-V4-Flash's shape in the tiers of a machine with a
// GPU, and the session on the GPU that it is restored into: made bytes of the true layout.
//
// Threads: one. Units: bytes. Errors: as store/device/gpu_memory.h.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_PREFIX_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_PREFIX_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "store/device/gpu_restore.h"
#include "store/tier/gpu_mover.h"
#include "store/tier/gpu_tier.h"
#include "store/tier/host_tier.h"
#include "tools/cairn-bench/flash_layout.h"

namespace cairn::bench {

class GpuPrefix {
 public:
  static constexpr uint32_t kBlocks = 1024;

  // Every entry in host memory, pinned; the GPU tier is there and empty.
  static absl::StatusOr<std::shared_ptr<GpuPrefix>> Make();

  // All of it into the GPU tier, verified on the way.
  absl::Status Promote();

  // Rows of all blocks, then the checkpoint: as they lie in host memory, or on the GPU.
  std::vector<const uint8_t*> HostSources() const;
  std::vector<const uint8_t*> GpuSources() const;

  // A step a layer of the model, and one for the MTP block: its window, and its rows of blocks
  // [begin, end) of what is `sources` [0, end - begin); the window is the source after these, if
  // it is `with_checkpoint`.
  std::vector<store::GpuGatherStep> Steps(uint32_t begin, uint32_t end, bool with_checkpoint) const;
  std::vector<store::GpuGatherStep> AllSteps() const { return Steps(0, kBlocks, true); }
  uint64_t bytes() const { return kBlocks * shapes_.rows_bytes + shapes_.checkpoint_bytes; }

  // Overwrites the session.
  absl::Status Poison();
  // INTERNAL unless the session holds what host memory has, every byte of every part.
  absl::Status Compare();

  // What is stored as entry `i`, the last being the checkpoint.
  EntryMeta Meta(uint32_t i) const;
  std::span<const uint8_t> Payload(uint32_t i) const;

  store::Gpu& gpu() { return *gpu_; }
  store::GpuTier& tier() { return *tier_; }
  store::GpuMover& mover() { return *mover_; }
  store::HostTier& host() { return *host_; }
  store::GpuRegion& session() { return *session_; }
  store::GpuRestore& restore() { return *restore_; }

 private:
  GpuPrefix() : shapes_(FlashLayout()) {}
  absl::Status Open();
  absl::Status PutAll();
  // Where a component of the session begins: rows of all blocks, then windows, each aligned.
  std::vector<uint64_t> Places(const std::vector<uint32_t>& parts, uint64_t count,
                               uint64_t& end) const;

  const cache::EntryShapes shapes_;
  std::vector<EntryMeta> metas_;
  std::vector<uint64_t> row_places_, window_places_;
  std::unique_ptr<store::Gpu> gpu_;
  std::unique_ptr<store::HostTier> host_;
  std::unique_ptr<store::Gpu::Pinned> pinned_;
  std::unique_ptr<store::GpuTier> tier_;
  std::unique_ptr<store::GpuMover> mover_;
  std::unique_ptr<store::GpuRegion> session_;
  std::unique_ptr<store::GpuRestore> restore_;
  std::vector<store::HostPin> pins_;
  store::IoBuffer seen_;  // of the session, when it is compared
  std::unique_ptr<store::Gpu::Pinned> seen_pinned_;
  std::unique_ptr<store::GpuStream> stream_;
};

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_PREFIX_H_
