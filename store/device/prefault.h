// prefault.h: takes the memory behind a mapping before it is needed. The first touch of a page is
// slow (0.3 to 0.8 GB/s) and belongs to no request.
//
// Pages are touched in ascending order, each without changing what it holds, so the memory may be
// used meanwhile: whoever comes to a page first pays for it.
//
// Threads:   Finish and the destructor from one thread, touched_bytes from any.
// Ownership: the memory must outlive it.
// Units:     bytes.
// Errors:    RESOURCE_EXHAUSTED: the machine has no such memory.
#ifndef CAIRN_STORE_DEVICE_PREFAULT_H_
#define CAIRN_STORE_DEVICE_PREFAULT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <thread>
#include <vector>

#include "store/base/status.h"

namespace cairn::store {

class Prefault {
 public:
  using Failed = std::function<void(const absl::Status&)>;
  struct Options {
    unsigned threads = 0;      // of its own; Finish works along
    uint64_t chunk_bytes = 0;  // touched in one call, which other mappings of the process wait for
    Failed failed = nullptr;   // told once, on one of its threads
  };
  Prefault(std::span<uint8_t> memory, Options options);
  ~Prefault();  // ends it early
  Prefault(const Prefault&) = delete;
  Prefault& operator=(const Prefault&) = delete;

  // Returns when every page is there.
  absl::Status Finish();
  uint64_t touched_bytes() const { return touched_.load(std::memory_order_relaxed); }

 private:
  void Work();
  absl::Status status() const;

  const std::span<uint8_t> memory_;
  const Options options_;
  std::atomic<uint64_t> next_{0};  // what is not yet begun
  std::atomic<uint64_t> touched_{0};
  std::atomic<int> error_{0};  // an errno
  std::vector<std::thread> threads_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_PREFAULT_H_
