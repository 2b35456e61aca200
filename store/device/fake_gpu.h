// fake_gpu.h: a GPU for tests: its memory is a memfd, its work is done when the test says so.
//
// By default work waits on its stream until RunOne, RunAll or somebody's Wait. It is done by the
// CPU then and no sooner, so who looks too early sees the old bytes. Work that touches what is
// neither a region nor pinned, or writes what is read-only, is refused when it is given.
//
// Threads:   all methods from any thread.
// Ownership: as gpu_memory.h.
// Errors:    as gpu_memory.h; FailNext makes a lost device.
#ifndef CAIRN_STORE_DEVICE_FAKE_GPU_H_
#define CAIRN_STORE_DEVICE_FAKE_GPU_H_

#include <cstdint>
#include <memory>
#include <span>

#include "store/device/gpu_memory.h"

namespace cairn::store {

class FakeGpu final : public Gpu {
 public:
  explicit FakeGpu(uint64_t memory_bytes = 1ull << 30);
  ~FakeGpu() override;

  absl::StatusOr<std::unique_ptr<GpuRegion>> Allocate(uint64_t bytes, GpuSharing sharing) override;
  absl::StatusOr<std::unique_ptr<GpuRegion>> Import(GpuExport exported) override;
  absl::StatusOr<std::unique_ptr<Pinned>> Pin(std::span<const uint8_t> memory,
                                              PinnedUse use) override;
  absl::StatusOr<std::unique_ptr<GpuStream>> NewStream() override;

  // Does the oldest work that waits for nothing. False: there is none.
  bool RunOne();
  void RunAll();
  size_t waiting() const;
  // The next work to be done is lost, and the device with it.
  void FailNext();
  // What a region holds, for the test's eyes.
  static std::span<uint8_t> BytesOf(const GpuRegion& region);

  struct Device;

 private:
  const std::shared_ptr<Device> device_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_FAKE_GPU_H_
