// shared_memory.h: memory that two processes of one host share, as sealed memfds.
//
// The owner creates and fills it; the other side gets the descriptor (socket.h) and maps it read
// only. A mapping of a file that its owner shrinks kills the reader with SIGBUS, so only memory
// sealed against shrinking is ever mapped.
//
// Threads:   values, externally synchronised; the bytes themselves are ordinary memory.
// Ownership: SharedMemory owns the mapping and (if it made or took one) the descriptor.
// Units:     bytes; sizes are rounded up to kIoAlignment, in huge pages to kHugePageBytes.
// Errors:    RESOURCE_EXHAUSTED (the machine has no such memory; names the asked size),
//            INVALID_ARGUMENT (a received descriptor that is not what it should be).
#ifndef CAIRN_STORE_DEVICE_SHARED_MEMORY_H_
#define CAIRN_STORE_DEVICE_SHARED_MEMORY_H_

#include <cstdint>
#include <span>
#include <string>

#include "store/base/status.h"
#include "store/device/file_descriptor.h"

namespace cairn::store {

inline constexpr uint64_t kHugePageBytes = 2ull << 20;

class SharedMemory {
 public:
  struct Options {
    uint64_t bytes = 0;
    // Of the pages of kHugePageBytes that the machine has reserved (vm.nr_hugepages); too few are
    // RESOURCE_EXHAUSTED. Without, the kernel gives large pages where it is set to for memory that
    // asks (/sys/kernel/mm/transparent_hugepage/shmem_enabled: advise), and small ones elsewhere.
    bool huge_pages = false;
    // Touches every page now, in parallel (prefault.h).
    bool prefault = true;
    // F_SEAL_FUTURE_WRITE: whoever gets the descriptor can map it read-only and no more.
    bool readers_only = true;
  };
  // `name` is for people (/proc/PID/maps). Sealed against shrinking, growing and further seals.
  static absl::StatusOr<SharedMemory> Create(const std::string& name, const Options& options);

  // Maps memory that somebody else made: exactly `bytes` long and sealed against shrinking, or
  // INVALID_ARGUMENT. The descriptor may be closed afterwards (pass a duplicate to keep it).
  static absl::StatusOr<SharedMemory> MapReadOnly(FileDescriptor descriptor, uint64_t bytes);

  SharedMemory() = default;
  SharedMemory(SharedMemory&& other) noexcept { *this = std::move(other); }
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory() { Unmap(); }

  // Empty for memory mapped read-only. Valid while this lives.
  std::span<uint8_t> writable() const {
    return writable_ ? std::span<uint8_t>(data_, size_) : std::span<uint8_t>();
  }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  uint64_t size() const { return size_; }
  int descriptor() const { return descriptor_.get(); }  // owned by this

 private:
  void Unmap();
  absl::Status Map(bool writable, const std::string& name);

  FileDescriptor descriptor_;
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
  bool writable_ = false;
};

// Bytes in reserved pages of kHugePageBytes that nobody has taken or been promised.
uint64_t FreeHugePageBytes();

// Bytes that this process could still take: the machine's available memory, or what its control
// group has left if that is less. UINT64_MAX when neither can be read.
uint64_t AvailableMemoryBytes();

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_SHARED_MEMORY_H_
