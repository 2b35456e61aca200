// large_pages.h: memory for weights, which are read from end to end: in pages of 2 MiB where the
// system has any, as each small page costs a fault when it is filled and a place in the processor's
// address translation when it is read. What is below 2 MiB, and a last part of less, is in small
// pages.
//
// Threads: any. Errors: without memory the process ends (store/base/out_of_memory.h).
#ifndef CAIRN_KERNELS_CPU_LARGE_PAGES_H_
#define CAIRN_KERNELS_CPU_LARGE_PAGES_H_

#include <cstddef>
#include <new>

namespace cairn::kernels {

inline constexpr size_t kLargePageBytes = 2 << 20;

// Begins at a multiple of kLargePageBytes. REQUIRES: bytes is at least that.
void* TakeLargePages(size_t bytes);
// REQUIRES: of TakeLargePages, with as many bytes.
void ReturnLargePages(void* pages, size_t bytes);

// A standard container's allocator of them.
template <typename T>
struct LargePages {
  using value_type = T;

  T* allocate(size_t count) {
    const size_t bytes = count * sizeof(T);
    return static_cast<T*>(bytes < kLargePageBytes ? ::operator new(bytes) : TakeLargePages(bytes));
  }
  void deallocate(T* data, size_t count) {
    const size_t bytes = count * sizeof(T);
    if (bytes < kLargePageBytes) return ::operator delete(data);
    ReturnLargePages(data, bytes);
  }
  bool operator==(const LargePages&) const = default;
};

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_LARGE_PAGES_H_
