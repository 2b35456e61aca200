// faulty_file_system.h: another file system, with faults on demand. For tests.
//
// Every call that changes or reads the disk is one operation: each request of a Submit, Open, Sync,
// Allocate, Truncate, Rename, Unlink, SyncDirectory, MakeDirectory, List. They are counted from 1.
//
// Threads, errors: file_system.h.
#ifndef CAIRN_STORE_DEVICE_FAULTY_FILE_SYSTEM_H_
#define CAIRN_STORE_DEVICE_FAULTY_FILE_SYSTEM_H_

#include <cstdint>
#include <memory>
#include <mutex>

#include "store/device/file_system.h"

namespace cairn::store {

struct FaultPlan {
  static constexpr uint64_t kNever = UINT64_MAX;
  // The operation of this number fails with `status`...
  uint64_t fail_at = kNever;
  absl::Status status = {};
  // ...and so do all after it: the machine is gone. A write that fails this way may have left its
  // first half behind.
  bool fail_for_ever = false;
  bool tear_failed_write = false;
  // Writes and allocations beyond this many bytes in all are RESOURCE_EXHAUSTED.
  uint64_t write_bytes_max = kNever;
  // Reads of this operation number come back with one byte flipped.
  uint64_t flip_read_at = kNever;
  // A write of this operation number that is told its parts comes to the disk with one byte of them
  // flipped, and that is seen on its way (PartsSeen::kDiffer).
  uint64_t flip_write_at = kNever;
};

class FaultyFileSystem final : public FileSystem {
 public:
  explicit FaultyFileSystem(FileSystem& base) : base_(base) {}

  void SetPlan(const FaultPlan& plan);  // also counts from 1 again
  uint64_t operations() const;
  // Counts one operation of something beside this file system (a catalog) by the same plan.
  absl::Status CountOperation();

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
  friend class FaultyFile;
  absl::Status TakeRoom(uint64_t bytes);
  void SubmitOne(IoRequest& request);

  FileSystem& base_;
  mutable std::mutex mutex_;
  FaultPlan plan_;              // guarded by mutex_
  uint64_t operations_ = 0;     // guarded by mutex_
  uint64_t written_bytes_ = 0;  // guarded by mutex_
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_FAULTY_FILE_SYSTEM_H_
