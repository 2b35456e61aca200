#include "store/device/shared_memory.h"

#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <thread>

#include "store/base/limits.h"
#include "store/device/errno_status.h"
#include "store/device/prefault.h"

namespace cairn::store {
namespace {

constexpr uint64_t kPrefaultChunkBytes = 64ull << 20;
constexpr uint64_t kPrefaultThreadsMax = 16;

absl::Status PrefaultNow(std::span<uint8_t> memory) {
  const uint64_t chunks = (memory.size() + kPrefaultChunkBytes - 1) / kPrefaultChunkBytes;
  const uint64_t cores =
      std::clamp<uint64_t>(std::thread::hardware_concurrency(), 1, kPrefaultThreadsMax);
  Prefault prefault(memory, {.threads = static_cast<unsigned>(std::min(chunks, cores) - 1),
                             .chunk_bytes = kPrefaultChunkBytes});
  return prefault.Finish();
}

// The number in a one-number file, or `otherwise` ("max", absent, unreadable).
uint64_t NumberIn(const std::string& path, uint64_t otherwise) {
  std::ifstream file(path);
  uint64_t value = 0;
  return file >> value ? value : otherwise;
}

uint64_t AvailableInControlGroup() {
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    if (!line.starts_with("0::")) continue;  // version 2 only
    const std::string folder = "/sys/fs/cgroup" + line.substr(3);
    const uint64_t limit = NumberIn(folder + "/memory.max", UINT64_MAX);
    if (limit == UINT64_MAX) return UINT64_MAX;
    const uint64_t taken = NumberIn(folder + "/memory.current", 0);
    return limit > taken ? limit - taken : 0;
  }
  return UINT64_MAX;
}

// Memory is promised lightly and taken at the first touch, by killing somebody if need be. So it is
// asked for first.
absl::Status CheckAvailable(const std::string& what, uint64_t size, bool huge_pages) {
  if (!huge_pages) {
    const uint64_t available = AvailableMemoryBytes();
    if (size <= available) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": the machine has ", available, " bytes left; ask for less"));
  }
  const uint64_t free = FreeHugePageBytes();
  if (size <= free) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      what, " in huge pages: these are ", size / kHugePageBytes, " of 2 MiB, and ",
      free / kHugePageBytes,
      " are reserved and free; reserve more (sysctl vm.nr_hugepages), or go without huge pages"));
}

int OpenMemory(const std::string& name, bool huge_pages) {
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  return ::memfd_create(name.c_str(), huge_pages ? flags | MFD_HUGETLB | MFD_HUGE_2MB : flags);
}

}  // namespace

uint64_t FreeHugePageBytes() {
  const std::string folder = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
  const uint64_t free = NumberIn(folder + "free_hugepages", 0);
  const uint64_t promised = NumberIn(folder + "resv_hugepages", 0);
  return free > promised ? (free - promised) * kHugePageBytes : 0;
}

uint64_t AvailableMemoryBytes() {
  uint64_t available = UINT64_MAX;
  std::ifstream info("/proc/meminfo");
  std::string name;
  uint64_t kib = 0;
  std::string unit;
  while (info >> name >> kib && std::getline(info, unit)) {
    if (name == "MemAvailable:") {
      available = kib * 1024;
      break;
    }
  }
  return std::min(available, AvailableInControlGroup());
}

absl::StatusOr<SharedMemory> SharedMemory::Create(const std::string& name, const Options& options) {
  const uint64_t unit = options.huge_pages ? kHugePageBytes : kIoAlignment;
  const uint64_t size = (options.bytes + unit - 1) / unit * unit;
  if (options.bytes == 0 || size < options.bytes || size > INT64_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("shared memory '", name, "' of ", options.bytes, " bytes is not possible"));
  }
  const std::string what = absl::StrCat("shared memory '", name, "' of ", size, " bytes");
  CAIRN_RETURN_IF_ERROR(CheckAvailable(what, size, options.huge_pages));
  SharedMemory memory;
  memory.descriptor_ = FileDescriptor(OpenMemory(name, options.huge_pages));
  const auto failed = [&](int error, const char* doing) {
    absl::Status status = ErrnoStatus(error, doing, what);
    // Whatever the kernel calls it, no memory is the one thing that the caller can act upon.
    if (error == EFAULT || error == EINVAL) {
      return absl::ResourceExhaustedError(std::string(status.message()));
    }
    return status;
  };
  if (!memory.descriptor_.valid()) return failed(errno, "create");
  if (::ftruncate(memory.descriptor_.get(), static_cast<off_t>(size)) != 0) {
    return failed(errno, "size");
  }
  memory.size_ = size;
  CAIRN_RETURN_IF_ERROR(memory.Map(/*writable=*/true, name));
  // A wish: the kernel may have no such pages, or be set to give none.
  if (!options.huge_pages && size >= kHugePageBytes) ::madvise(memory.data_, size, MADV_HUGEPAGE);
  if (options.prefault) CAIRN_RETURN_IF_ERROR(PrefaultNow(memory.writable()));
  // After our own writable mapping, which F_SEAL_FUTURE_WRITE leaves alone.
  int seals = F_SEAL_SHRINK | F_SEAL_GROW;
#ifdef F_SEAL_FUTURE_WRITE
  if (options.readers_only) seals |= F_SEAL_FUTURE_WRITE;
#endif
  if (::fcntl(memory.descriptor_.get(), F_ADD_SEALS, seals | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "seal", what);
  }
  return memory;
}

absl::StatusOr<SharedMemory> SharedMemory::MapReadOnly(FileDescriptor descriptor, uint64_t bytes) {
  struct stat info {};
  if (::fstat(descriptor.get(), &info) != 0) return ErrnoStatus(errno, "look at", "shared memory");
  const int seals = ::fcntl(descriptor.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return absl::InvalidArgumentError(
        "received shared memory is not a memfd sealed against shrinking (F_SEAL_SHRINK)");
  }
  if (bytes == 0 || info.st_size < 0 || static_cast<uint64_t>(info.st_size) != bytes) {
    return absl::InvalidArgumentError(absl::StrCat("received shared memory has ", info.st_size,
                                                   " bytes, ", bytes, " were announced"));
  }
  SharedMemory memory;
  memory.descriptor_ = std::move(descriptor);
  memory.size_ = bytes;
  CAIRN_RETURN_IF_ERROR(memory.Map(/*writable=*/false, "received"));
  return memory;
}

absl::Status SharedMemory::Map(bool writable, const std::string& name) {
  void* const mapped = ::mmap(nullptr, size_, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                              MAP_SHARED, descriptor_.get(), 0);
  if (mapped == MAP_FAILED) {
    return ErrnoStatus(errno, "map",
                       absl::StrCat("shared memory '", name, "' of ", size_, " bytes"));
  }
  data_ = static_cast<uint8_t*>(mapped);
  writable_ = writable;
  return absl::OkStatus();
}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  if (this != &other) {
    Unmap();
    descriptor_ = std::move(other.descriptor_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    writable_ = std::exchange(other.writable_, false);
  }
  return *this;
}

void SharedMemory::Unmap() {
  if (data_ != nullptr) ::munmap(data_, size_);
  data_ = nullptr;
}

}  // namespace cairn::store
