#include "store/device/prefault.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "store/base/limits.h"

namespace cairn::store {
namespace {

// 0 or an errno.
int Touch(std::span<uint8_t> pages) {
#ifdef MADV_POPULATE_WRITE
  while (::madvise(pages.data(), pages.size(), MADV_POPULATE_WRITE) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno != EINVAL) return errno;
    break;  // a kernel before 5.14: touch by hand
  }
#endif
  for (uint64_t at = 0; at < pages.size(); at += kIoAlignment) {
    // Whoever has the memory may be writing there, plainly: C++ has no word for an atomic write
    // that changes nothing beside those.
    asm volatile("lock orb $0, %0" : "+m"(pages[at]));
  }
  return 0;
}

}  // namespace

Prefault::Prefault(std::span<uint8_t> memory, Options options)
    : memory_(memory), options_(std::move(options)) {
  for (unsigned i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { Work(); });
}

Prefault::~Prefault() {
  next_ = memory_.size();
  for (std::thread& thread : threads_) thread.join();
}

void Prefault::Work() {
  while (error_ == 0) {
    uint64_t at = next_;
    uint64_t bytes = 0;
    do {
      if (at >= memory_.size()) return;
      bytes = std::min(options_.chunk_bytes, memory_.size() - at);
    } while (!next_.compare_exchange_weak(at, at + bytes));
    if (const int failed = Touch(memory_.subspan(at, bytes)); failed != 0) {
      if (error_.exchange(failed) == 0 && options_.failed != nullptr) options_.failed(status());
      return;
    }
    touched_ += bytes;
  }
}

absl::Status Prefault::status() const {
  if (error_ == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the machine has no memory for all of ", memory_.size(), " bytes: ", std::strerror(error_)));
}

absl::Status Prefault::Finish() {
  Work();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  return status();
}

}  // namespace cairn::store
