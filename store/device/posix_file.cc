#include "store/device/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "store/device/errno_status.h"

namespace cairn::store {

int64_t PosixFile::Transfer(const IoPiece& piece) {
  const int fd = static_cast<const PosixFile*>(piece.request->file)->descriptor();
  const auto offset = static_cast<off_t>(piece.offset);
  const ssize_t result = piece.request->kind == IoKind::kRead
                             ? ::pread(fd, piece.data, piece.bytes, offset)
                             : ::pwrite(fd, piece.data, piece.bytes, offset);
  return result < 0 ? -errno : result;
}

absl::StatusOr<uint64_t> PosixFile::Size() const {
  struct stat info {};
  if (::fstat(descriptor(), &info) != 0) return ErrnoStatus(errno, "look at", path_);
  return static_cast<uint64_t>(info.st_size);
}

absl::Status PosixFile::Sync() {
  while (::fdatasync(descriptor()) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "sync", path_);
  }
  return absl::OkStatus();
}

absl::Status PosixFile::Allocate(uint64_t bytes) {
  CAIRN_ASSIGN_OR_RETURN(const uint64_t size, Size());
  while (::fallocate(descriptor(), 0, 0, static_cast<off_t>(bytes)) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    if (error == EOPNOTSUPP || error == ENOSYS) {
      return bytes > size ? Truncate(bytes) : absl::OkStatus();
    }
    // Some file systems keep what they got before they ran out.
    CAIRN_RETURN_IF_ERROR(Truncate(size));
    return ErrnoStatus(error, absl::StrCat("allocate ", bytes, " bytes for"), path_);
  }
  return absl::OkStatus();
}

absl::Status PosixFile::Truncate(uint64_t bytes) {
  while (::ftruncate(descriptor(), static_cast<off_t>(bytes)) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "truncate", path_);
  }
  return absl::OkStatus();
}

}  // namespace cairn::store
