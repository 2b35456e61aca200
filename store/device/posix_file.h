// posix_file.h: a file of UringFileSystem, for the two ways that move its bytes.
//
// Threads, errors: file_system.h.
#ifndef CAIRN_STORE_DEVICE_POSIX_FILE_H_
#define CAIRN_STORE_DEVICE_POSIX_FILE_H_

#include <string>

#include "store/device/file_descriptor.h"
#include "store/device/file_system.h"
#include "store/device/io_piece.h"

namespace cairn::store {

class PosixFile final : public File {
 public:
  PosixFile(FileDescriptor descriptor, std::string path)
      : descriptor_(std::move(descriptor)), path_(std::move(path)) {}

  int descriptor() const { return descriptor_.get(); }
  // pread or pwrite, once; a count or a negative errno.
  static int64_t Transfer(const IoPiece& piece);

  const std::string& path() const override { return path_; }
  absl::StatusOr<uint64_t> Size() const override;
  absl::Status Sync() override;
  absl::Status Allocate(uint64_t bytes) override;
  absl::Status Truncate(uint64_t bytes) override;

 private:
  const FileDescriptor descriptor_;
  const std::string path_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_POSIX_FILE_H_
