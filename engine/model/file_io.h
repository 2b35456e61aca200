// file_io.h: the files of a model: mapped read-only, read whole when small, replaced atomically.
//
// Threads:   pure functions; a MappedFile is immutable.
// Ownership: MappedFile unmaps on destruction; spans into it end with it. A file that somebody
// truncates while it is
//            mapped kills the process (SIGBUS), as with any mapped file: replace models by rename,
//            never in place.
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

namespace cairn::engine {

class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  MappedFile(std::string path, std::span<const uint8_t> bytes)
      : path_(std::move(path)), bytes_(bytes) {}

  std::string path_;
  std::span<const uint8_t> bytes_;
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
