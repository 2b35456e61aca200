// file_io.h: the files of a model: mapped read-only, read whole when small, replaced atomically.
//
// Threads:   pure functions; a MappedFile is immutable.
// Ownership: MappedFile unmaps and closes on destruction; spans into it end with it. Whoever
// touches
//            a mapped file beyond where somebody truncated it dies (SIGBUS): replace models by
//            rename, never in place.
// Errors:    NOT_FOUND for a missing file, RESOURCE_EXHAUSTED for a full disk, FAILED_PRECONDITION
// for the rest the
//            system refuses; all name the file.
#ifndef CAIRN_ENGINE_MODEL_FILE_IO_H_
#define CAIRN_ENGINE_MODEL_FILE_IO_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "store/base/status.h"
#include "store/device/file_descriptor.h"

namespace cairn::engine {

class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const uint8_t> bytes() const { return bytes_; }
  // The mapping's pages are no longer counted as this process's; whoever touches one gets it again.
  void DropPages() const;
  // Reads all of `out` from there, through the page cache. DATA_LOSS where the file ends before.
  absl::Status ReadAt(uint64_t offset, std::span<uint8_t> out) const;
  // A path that opens this very file, whatever has become of its name (by /proc).
  std::string door() const { return absl::StrCat("/proc/self/fd/", descriptor_.get()); }
  // DATA_LOSS if it was written to, or has another size, since Open.
  absl::Status CheckUnchanged() const;

 private:
  MappedFile(std::string path, store::FileDescriptor descriptor)
      : path_(std::move(path)), descriptor_(std::move(descriptor)) {}

  std::string path_;
  store::FileDescriptor descriptor_;
  std::span<const uint8_t> bytes_;
  int64_t modified_nanos_ = 0;
};

// INVALID_ARGUMENT over `bytes_max`.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t bytes_max);

// The chunks one after another to a temporary name beside `path`; synced, renamed, the folder
// synced. On failure `path` is as it was and the temporary file is gone.
absl::Status ReplaceFile(const std::string& path, std::span<const std::span<const uint8_t>> chunks);

bool FileExists(const std::string& path);
bool IsDirectory(const std::string& path);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_FILE_IO_H_
