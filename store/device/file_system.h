// file_system.h: the only door to files of bulk data. Direct, aligned, positional I/O with many
// operations in flight, and the few calls that decide what survives a power cut.
//
// UringFileSystem is the machine's, MemoryFileSystem forgets what was not synced,
// FaultyFileSystem wraps either and fails on demand.
//
// Threads:   all methods from any thread. Submit calls of several threads run side by side.
// Ownership: files own their descriptors and must not outlive their file system.
// Units:     bytes. Offsets, sizes and addresses of I/O are multiples of kIoAlignment.
// Errors:    RESOURCE_EXHAUSTED (disk, quota or descriptors full), NOT_FOUND (no such file),
//            ALREADY_EXISTS, FAILED_PRECONDITION (no permission, locked), UNAVAILABLE (device).
#ifndef CAIRN_STORE_DEVICE_FILE_SYSTEM_H_
#define CAIRN_STORE_DEVICE_FILE_SYSTEM_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/base/entry.h"
#include "store/base/status.h"

namespace cairn::store {

class File {
 public:
  virtual ~File() = default;
  virtual const std::string& path() const = 0;
  virtual absl::StatusOr<uint64_t> Size() const = 0;
  // fdatasync: all writes that completed before, and the size, are on the device.
  virtual absl::Status Sync() = 0;
  // Takes disk space for [0, bytes) and makes the file at least that long; new bytes read as zero.
  // On a file system that cannot take space ahead, only the size changes, and later writes may
  // find the disk full. On an error the size is as before.
  virtual absl::Status Allocate(uint64_t bytes) = 0;
  virtual absl::Status Truncate(uint64_t bytes) = 0;
};

enum class IoKind : uint8_t { kRead, kWrite };

// What was seen of a request's parts.
enum class PartsSeen : uint8_t { kNothing, kMatch, kDiffer };

// One read or write of a contiguous range of a file, from or to up to two places in memory.
struct IoRequest {
  static IoRequest Read(File& file, uint64_t offset, std::span<uint8_t> first,
                        std::span<uint8_t> second = {}) {
    return {IoKind::kRead, &file, offset, {first, second}, {}, 0, 0};
  }
  static IoRequest Write(File& file, uint64_t offset, std::span<const uint8_t> first,
                         std::span<const uint8_t> second = {}) {
    // As in an iovec: memory given to a write is only read.
    const auto open = [](std::span<const uint8_t> bytes) {
      return std::span<uint8_t>(const_cast<uint8_t*>(bytes.data()), bytes.size());
    };
    return {IoKind::kWrite, &file, offset, {open(first), open(second)}, {}, 0, 0};
  }
  uint64_t bytes() const { return slices[0].size() + slices[1].size(); }
  // A read that the end of the file cut short.
  bool cut_short() const { return status.ok() && bytes_done < bytes(); }

  IoKind kind = IoKind::kRead;
  File* file = nullptr;
  uint64_t offset = 0;
  std::array<std::span<uint8_t>, 2> slices;
  // Filled by Submit. OK with bytes_done < bytes() only for a read that met the end of the file.
  absl::Status status;
  uint64_t bytes_done = 0;
  // The file system's own, while Submit runs.
  uint32_t pieces_left = 0;

  // If the caller knows it: what the second slice begins with. Who has to copy the bytes to where
  // they go can check them in the same pass.
  std::span<const EntryPart> parts = {};
  // Filled by Submit. kMatch: each part matched its checksum as it came into the second slice of a
  // read, or as it was given to the device by a write; kDiffer: one did not. kNothing: the caller
  // looks for itself.
  PartsSeen parts_seen = PartsSeen::kNothing;
};

// Told of one finished request while others may be in flight.
using IoFinished = std::function<void(IoRequest&)>;

// INVALID_ARGUMENT unless the request is aligned as the header says.
absl::Status CheckAligned(const IoRequest& request);

enum class OpenMode : uint8_t {
  kReadOnly,   // NOT_FOUND if absent
  kReadWrite,  // NOT_FOUND if absent
  kCreate,     // read and write; ALREADY_EXISTS if there
};

// Held while it lives; the kernel drops it with the process.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) = 0;
  // Runs all requests, several in flight, in no order, and waits for all. Short transfers are
  // continued. Each request has its own status. `finished` is called on this thread, once for each
  // request, as soon as it is over: work on its bytes then costs no time of the device. It may
  // Submit.
  void Submit(std::span<IoRequest> requests, const IoFinished& finished = nullptr) {
    for (IoRequest& request : requests) request.parts_seen = PartsSeen::kNothing;
    Run(requests, finished);
  }

  virtual absl::Status MakeDirectory(const std::string& path) = 0;  // OK if there; not recursive
  // Names of files and folders in it, sorted, without the path.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& directory) = 0;
  // Creations, renames and removals in it are on the device.
  virtual absl::Status SyncDirectory(const std::string& directory) = 0;
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;  // replaces `to`
  virtual absl::Status Unlink(const std::string& path) = 0;
  virtual absl::StatusOr<bool> Exists(const std::string& path) = 0;
  // Makes the file if need be. FAILED_PRECONDITION, naming the path and the holder's process id,
  // if somebody holds it.
  virtual absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) = 0;
  virtual absl::StatusOr<uint64_t> FreeBytes(const std::string& directory) = 0;

 protected:
  // Submit. `finished` may be empty.
  virtual void Run(std::span<IoRequest> requests, const IoFinished& finished) = 0;
};

// Memory for I/O: kIoAlignment-aligned, zeroed, RoundUpToIo(bytes) long. Without it the process
// ends (store/base/out_of_memory.h).
class IoBuffer {
 public:
  IoBuffer() = default;
  explicit IoBuffer(uint64_t bytes);
  std::span<uint8_t> bytes() { return {data_.get(), size_}; }
  std::span<const uint8_t> bytes() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(uint8_t* data) const;
  };
  std::unique_ptr<uint8_t[], Free> data_;
  uint64_t size_ = 0;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_FILE_SYSTEM_H_
