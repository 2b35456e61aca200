#include "store/device/uring_file_system.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "store/device/errno_status.h"
#include "store/device/io_ring.h"
#include "store/device/posix_file.h"

namespace cairn::store {
namespace {

constexpr size_t kIdleRingsMax = 8;

class PosixLock final : public FileLock {
 public:
  explicit PosixLock(FileDescriptor descriptor) : descriptor_(std::move(descriptor)) {}

 private:
  FileDescriptor descriptor_;  // flock ends with it
};

int FlagsOf(OpenMode mode) {
  switch (mode) {
    case OpenMode::kReadOnly:
      return O_RDONLY;
    case OpenMode::kReadWrite:
      return O_RDWR;
    case OpenMode::kCreate:
      return O_RDWR | O_CREAT | O_EXCL;
  }
  return O_RDONLY;
}

}  // namespace

UringFileSystem::UringFileSystem(const Options& options) : options_(options) {
  if (!options.use_uring) return;
  if (absl::StatusOr<std::unique_ptr<IoRing>> ring = IoRing::Create(options.use_bounce);
      ring.ok()) {
    uses_uring_ = true;
    idle_rings_.push_back(*std::move(ring));
  }
}

UringFileSystem::~UringFileSystem() = default;

absl::StatusOr<std::unique_ptr<File>> UringFileSystem::Open(const std::string& path,
                                                            OpenMode mode) {
  const int flags = FlagsOf(mode) | O_CLOEXEC;
  FileDescriptor fd(::open(path.c_str(), flags | (options_.use_direct ? O_DIRECT : 0), 0600));
  if (!fd.valid() && errno == EINVAL && options_.use_direct) {
    // No direct I/O on this file system. The refused open may have made the file already.
    fd = FileDescriptor(::open(path.c_str(), flags & ~O_EXCL, 0600));
  }
  if (!fd.valid()) return ErrnoStatus(errno, "open", path);
  return std::make_unique<PosixFile>(std::move(fd), path);
}

std::unique_ptr<IoRing> UringFileSystem::TakeRing() {
  if (!uses_uring_) return nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_rings_.empty()) {
      std::unique_ptr<IoRing> ring = std::move(idle_rings_.back());
      idle_rings_.pop_back();
      return ring;
    }
  }
  // A kernel that is out of locked memory for one more ring still has pread.
  absl::StatusOr<std::unique_ptr<IoRing>> ring = IoRing::Create(options_.use_bounce);
  return ring.ok() ? *std::move(ring) : nullptr;
}

void UringFileSystem::Run(std::span<IoRequest> requests, const IoFinished& finished) {
  if (requests.empty()) return;
  std::unique_ptr<IoRing> ring = TakeRing();
  if (ring == nullptr) {
    std::vector<IoPiece> pieces = SplitIntoPieces(requests);
    FinishWithoutPieces(requests, finished);
    for (IoPiece& piece : pieces) {
      while (AdvancePiece(piece, PosixFile::Transfer(piece))) {
      }
      FinishPiece(piece, finished);
    }
    return;
  }
  ring->Run(requests, finished);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (idle_rings_.size() < kIdleRingsMax) idle_rings_.push_back(std::move(ring));
}

absl::Status UringFileSystem::MakeDirectory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) return ErrnoStatus(errno, "make the directory", path);
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return absl::OkStatus();
  return ErrnoStatus(ENOTDIR, "make the directory", path);
}

absl::StatusOr<std::vector<std::string>> UringFileSystem::List(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(directory, error);
  while (!error && entry != std::filesystem::directory_iterator()) {
    names.push_back(entry->path().filename().string());
    entry.increment(error);
  }
  if (error) return ErrnoStatus(error.value(), "list", directory);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status UringFileSystem::SyncDirectory(const std::string& directory) {
  const FileDescriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "open", directory);
  while (::fsync(fd.get()) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "sync", directory);
  }
  return absl::OkStatus();
}

absl::Status UringFileSystem::Rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("rename ", from, " to"), to);
}

absl::Status UringFileSystem::Unlink(const std::string& path) {
  return ::unlink(path.c_str()) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "remove", path);
}

absl::StatusOr<bool> UringFileSystem::Exists(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0) return true;
  if (errno == ENOENT) return false;
  return ErrnoStatus(errno, "look at", path);
}

absl::StatusOr<std::unique_ptr<FileLock>> UringFileSystem::Lock(const std::string& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, "open", path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock", path);
    char holder[32] = {};
    const bool known = ::pread(fd.get(), holder, sizeof(holder) - 1, 0) > 0;
    return absl::FailedPreconditionError(absl::StrCat(path, " is locked by process ",
                                                      known ? holder : "(unknown)",
                                                      "; stop it or use another directory"));
  }
  // For the message above only; the lock itself is the kernel's, and holds without it. A part of a
  // number would be another process's.
  const std::string pid = absl::StrCat(::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    [[maybe_unused]] const int emptied = ::ftruncate(fd.get(), 0);
  }
  return std::make_unique<PosixLock>(std::move(fd));
}

absl::StatusOr<uint64_t> UringFileSystem::FreeBytes(const std::string& directory) {
  struct statvfs info {};
  if (::statvfs(directory.c_str(), &info) != 0) return ErrnoStatus(errno, "look at", directory);
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

}  // namespace cairn::store
