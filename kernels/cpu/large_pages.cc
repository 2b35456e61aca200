#include "kernels/cpu/large_pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#include "store/base/out_of_memory.h"

namespace cairn::kernels {

#ifdef __SANITIZE_ADDRESS__

// So that the sanitizer sees a read beyond the end.
void* TakeLargePages(size_t bytes) {
  return ::operator new (bytes, std::align_val_t{kLargePageBytes});
}
void ReturnLargePages(void* pages, size_t) {
  ::operator delete (pages, std::align_val_t{kLargePageBytes});
}

#else

namespace {

constexpr size_t kPageBytes = 4096;

size_t WholePages(size_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

}  // namespace

void* TakeLargePages(size_t bytes) {
  const size_t size = WholePages(bytes);
  void* const mapped = ::mmap(nullptr, size + kLargePageBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) OutOfMemory();
  // The last place that begins as it should: what is mapped next lies below, so that matrices of
  // whole large pages meet and are one mapping, of which a process may have 65,530.
  const auto begin = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t at = (begin + kLargePageBytes) / kLargePageBytes * kLargePageBytes;
  if (at > begin) ::munmap(mapped, at - begin);
  void* const pages = reinterpret_cast<void*>(at);
  const uintptr_t end = begin + size + kLargePageBytes;
  if (end > at + size) ::munmap(reinterpret_cast<void*>(at + size), end - at - size);
  ::madvise(pages, bytes / kLargePageBytes * kLargePageBytes, MADV_HUGEPAGE);
  return pages;
}

void ReturnLargePages(void* pages, size_t bytes) { ::munmap(pages, WholePages(bytes)); }

#endif

}  // namespace cairn::kernels
