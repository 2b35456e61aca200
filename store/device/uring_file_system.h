// uring_file_system.h: the machine's files, by io_uring and O_DIRECT.
//
// Where the kernel forbids io_uring (seccomp, sysctl) the same requests go through pread and
// pwrite; where a file system refuses O_DIRECT (tmpfs) its files go through the page cache.
//
// A ring serves one Submit at a time, so a completion can never be somebody else's; idle rings are
// kept for the next call.
//
// Threads, errors: file_system.h.
#ifndef CAIRN_STORE_DEVICE_URING_FILE_SYSTEM_H_
#define CAIRN_STORE_DEVICE_URING_FILE_SYSTEM_H_

#include <memory>
#include <mutex>
#include <vector>

#include "store/device/file_system.h"

namespace cairn::store {

class IoRing;

class UringFileSystem final : public FileSystem {
 public:
  struct Options {
    bool use_uring = true;   // false: pread and pwrite
    bool use_direct = true;  // false: through the page cache
    // Large pieces through memory in huge pages (io_bounce.h), 16 MiB a ring.
    bool use_bounce = true;
  };
  explicit UringFileSystem(const Options& options);
  UringFileSystem() : UringFileSystem(Options{}) {}
  ~UringFileSystem() override;

  // Whether io_uring does the work; false when it is switched off or forbidden here.
  bool uses_uring() const { return uses_uring_; }

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::Status MakeDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override;
  absl::Status SyncDirectory(const std::string& directory) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Unlink(const std::string& path) override;
  absl::StatusOr<bool> Exists(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) override;
  absl::StatusOr<uint64_t> FreeBytes(const std::string& directory) override;

 private:
  void Run(std::span<IoRequest> requests, const IoFinished& finished) override;
  std::unique_ptr<IoRing> TakeRing();

  const Options options_;
  bool uses_uring_ = false;
  std::mutex mutex_;
  std::vector<std::unique_ptr<IoRing>> idle_rings_;  // guarded by mutex_
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_URING_FILE_SYSTEM_H_
