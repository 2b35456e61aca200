// background_pin.h: pins memory for a GPU piece after piece, beside whoever uses it: the driver
// takes as long as it needs for the pages, seconds for a large arena. Nothing waits for all of
// that, and other calls of the driver's, which do wait while it pins, only for a piece. What was
// not touched yet is touched.
//
// Pieces are pinned in ascending order; when the driver refuses one it stays with those before.
//
// Threads:   any.
// Ownership: the Gpu and the memory must outlive it.
// Units:     bytes.
// Errors:    WaitFor: the driver's word for the piece that it refused; DEADLINE_EXCEEDED.
#ifndef CAIRN_STORE_DEVICE_BACKGROUND_PIN_H_
#define CAIRN_STORE_DEVICE_BACKGROUND_PIN_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "store/base/status.h"
#include "store/device/gpu_memory.h"

namespace cairn::store {

class BackgroundPin {
 public:
  static constexpr uint64_t kPieceBytes = 16ull << 20;

  BackgroundPin(Gpu& gpu, std::span<const uint8_t> memory, PinnedUse use,
                uint64_t piece_bytes = kPieceBytes);
  ~BackgroundPin();  // ends it behind the piece at hand, and unpins all
  BackgroundPin(const BackgroundPin&) = delete;
  BackgroundPin& operator=(const BackgroundPin&) = delete;

  // Whether work on streams may use the memory [at, at + bytes).
  bool Holds(const uint8_t* at, uint64_t bytes) const;
  uint64_t pinned_bytes() const { return pinned_bytes_.load(std::memory_order_acquire); }
  // Until all is pinned.
  absl::Status WaitFor(absl::Duration patience) const;

 private:
  void Work();
  void End(absl::Status status);

  Gpu& gpu_;
  const std::span<const uint8_t> memory_;
  const PinnedUse use_;
  const uint64_t piece_bytes_;
  std::vector<std::unique_ptr<Gpu::Pinned>> pieces_;  // the thread's
  std::atomic<uint64_t> pinned_bytes_{0};
  std::atomic<bool> unwanted_{false};
  mutable std::mutex mutex_;
  mutable std::condition_variable over_;
  std::optional<absl::Status> status_;  // guarded by mutex_; set when it is over
  std::thread thread_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_BACKGROUND_PIN_H_
