#include "engine/model/file_io.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace cairn::engine {
namespace {

using store::FileDescriptor;

absl::Status SystemError(const std::string& path, const char* what, int error) {
  const std::string message =
      absl::StrCat(path, ": cannot ", what, ": ", std::generic_category().message(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == ENOSPC || error == EDQUOT || error == ENOMEM) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::FailedPreconditionError(message);
}

struct FileInfo {
  uint64_t size = 0;
  int64_t modified_nanos = 0;
};

// Of a regular file.
absl::StatusOr<FileInfo> InfoOf(const std::string& path, int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return SystemError(path, "stat", errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  return FileInfo{static_cast<uint64_t>(info.st_size),
                  info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec};
}

absl::Status WriteAll(const std::string& path, int fd, std::span<const uint8_t> data) {
  while (!data.empty()) {
    const ssize_t written = ::write(fd, data.data(), std::min<size_t>(data.size(), 1u << 30));
    if (written < 0) {
      if (errno == EINTR) continue;
      return SystemError(path, "write", errno);
    }
    data = data.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status WriteAndSync(const std::string& path, int fd,
                          std::span<const std::span<const uint8_t>> chunks) {
  for (std::span<const uint8_t> chunk : chunks) {
    CAIRN_RETURN_IF_ERROR(WriteAll(path, fd, chunk));
  }
  // mkostemp makes files for their owner only; a model is for whoever may read the folder.
  if (::fchmod(fd, 0644) != 0) return SystemError(path, "set the mode of", errno);
  if (::fsync(fd) != 0) return SystemError(path, "sync", errno);
  return absl::OkStatus();
}

absl::Status SyncFolderOf(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder = ".";
  const FileDescriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return SystemError(folder, "sync", errno);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return SystemError(path, "open", errno);
  CAIRN_ASSIGN_OR_RETURN(const FileInfo info, InfoOf(path, fd.get()));
  std::unique_ptr<MappedFile> file(new MappedFile(path, std::move(fd)));
  file->modified_nanos_ = info.modified_nanos;
  if (info.size > 0) {  // mmap refuses a length of zero
    void* address = ::mmap(nullptr, info.size, PROT_READ, MAP_SHARED, file->descriptor_.get(), 0);
    if (address == MAP_FAILED) return SystemError(path, "map", errno);
    file->bytes_ = {static_cast<const uint8_t*>(address), static_cast<size_t>(info.size)};
  }
  return file;
}

void MappedFile::DropPages() const {
  if (!bytes_.empty()) {
    ::madvise(const_cast<uint8_t*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
  }
}

absl::Status MappedFile::ReadAt(uint64_t offset, std::span<uint8_t> out) const {
  while (!out.empty()) {
    const ssize_t got =
        ::pread(descriptor_.get(), out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError(path_, "read", errno);
    if (got == 0) {
      CAIRN_RETURN_IF_ERROR(CheckUnchanged());
      return absl::DataLossError(
          absl::StrCat(path_, ": can be read to byte ", offset, " only, of ", bytes_.size()));
    }
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

absl::Status MappedFile::CheckUnchanged() const {
  CAIRN_ASSIGN_OR_RETURN(const FileInfo info, InfoOf(path_, descriptor_.get()));
  if (info.size == bytes_.size() && info.modified_nanos == modified_nanos_) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(path_, ": was changed while in use (", bytes_.size(), " bytes before, ",
                   info.size, " now); start again, and replace models by rename, never in place"));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, uint64_t bytes_max) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return SystemError(path, "open", errno);
  CAIRN_ASSIGN_OR_RETURN(const FileInfo info, InfoOf(path, fd.get()));
  const uint64_t size = info.size;
  if (size > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", size, " bytes; at most ", bytes_max, " are read"));
  }
  std::string text(size, '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + have, text.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError(path, "read", errno);
    if (got == 0) break;  // shrunk meanwhile
    have += static_cast<size_t>(got);
  }
  text.resize(have);
  return text;
}

absl::Status ReplaceFile(const std::string& path,
                         std::span<const std::span<const uint8_t>> chunks) {
  std::string temporary = path + ".XXXXXX";
  const FileDescriptor fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.valid()) return SystemError(path, "create", errno);
  absl::Status status = WriteAndSync(path, fd.get(), chunks);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = SystemError(path, "rename the finished file to", errno);
  }
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  return SyncFolderOf(path);
}

bool FileExists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

bool IsDirectory(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

}  // namespace cairn::engine
