// background_pin.h: pins memory for a GPU piece after piece, beside whoever uses it: the driver
// takes as long as it needs for the pages, seconds for a large arena, and nothing waits for that.
// What was not touched yet is touched.
//
// Pieces are pinned in ascending order; when the driver refuses one it stays with those before.
//
// Threads:   WaitUntilOver and the destructor from one thread, the others from any.
// Ownership: the Gpu and the memory must outlive it.
// Units:     bytes.
// Errors:    WaitUntilOver: the driver's word for the piece that it refused.
#ifndef CAIRN_STORE_DEVICE_BACKGROUND_PIN_H_
#define CAIRN_STORE_DEVICE_BACKGROUND_PIN_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "store/base/status.h"
#include "store/device/gpu_memory.h"

namespace cairn::store {

class BackgroundPin {
 public:
  static constexpr uint64_t kPieceBytes = 256ull << 20;

  BackgroundPin(Gpu& gpu, std::span<const uint8_t> memory, PinnedUse use,
                uint64_t piece_bytes = kPieceBytes);
  ~BackgroundPin();  // ends it behind the piece at hand, and unpins all
  BackgroundPin(const BackgroundPin&) = delete;
  BackgroundPin& operator=(const BackgroundPin&) = delete;

  // Whether work on streams may use the memory [at, at + bytes): it lies in one pinned piece. (The
  // driver does not promise that work may go across two.)
  bool Holds(const uint8_t* at, uint64_t bytes) const;
  uint64_t pinned_bytes() const { return pinned_bytes_.load(std::memory_order_acquire); }
  absl::Status WaitUntilOver();

 private:
  void Work();

  Gpu& gpu_;
  const std::span<const uint8_t> memory_;
  const PinnedUse use_;
  const uint64_t piece_bytes_;
  std::vector<std::unique_ptr<Gpu::Pinned>> pieces_;  // the thread's until it is joined
  absl::Status status_;                               // likewise
  std::atomic<uint64_t> pinned_bytes_{0};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_BACKGROUND_PIN_H_
