// sim_files.h: the disk of the simulation: files in memory that fail, lag, decay and lose power.
//
// Threads: one, in fibers. Errors: file_system.h; UNAVAILABLE while the power is off.
#ifndef CAIRN_TESTS_SIM_SIM_FILES_H_
#define CAIRN_TESTS_SIM_SIM_FILES_H_

#include <functional>
#include <memory>
#include <string>

#include "store/device/memory_file_system.h"
#include "tests/sim/faults.h"

namespace cairn::sim {

class SimFiles final : public store::FileSystem {
 public:
  struct Options {
    Faults faults;
    Canary canary = Canary::kNone;
    uint64_t capacity_bytes = 0;  // that all files together must never exceed
    // Told of a read that was given out with a wrong bit: file, first byte and count.
    std::function<void(const std::string&, uint64_t, uint64_t)> bad_read;
  };
  SimFiles(const Options& options, Random& random) : options_(options), random_(random) {}

  store::MemoryFileSystem& memory() { return memory_; }
  // Faults come only while it is not quiet.
  void set_quiet(bool quiet) { quiet_ = quiet; }
  bool quiet() const { return quiet_; }
  // From here on every call fails, those on their way included. With `cut`, what was not synced is
  // lost.
  void PowerOff(bool cut);
  void PowerOn() { off_ = false; }
  bool off() const { return off_; }
  uint64_t errors() const { return errors_; }

  // The error that strikes a call that changes the disk, if one does; a catalog asks too.
  absl::Status Strike(const std::string& path, bool takes_room);

  absl::StatusOr<std::unique_ptr<store::File>> Open(const std::string& path,
                                                    store::OpenMode mode) override;
  absl::Status MakeDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override;
  absl::Status SyncDirectory(const std::string& directory) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Unlink(const std::string& path) override;
  absl::StatusOr<bool> Exists(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<store::FileLock>> Lock(const std::string& path) override;
  absl::StatusOr<uint64_t> FreeBytes(const std::string& directory) override;

 private:
  friend class SimFile;
  void Run(std::span<store::IoRequest> requests, const store::IoFinished& finished) override;
  void One(store::IoRequest& request);
  void Spoil(store::IoRequest& request);
  bool Toss(bool active, uint64_t in) { return active && !quiet_ && random_.Next() % in == 0; }
  void CheckCapacity() const;

  const Options options_;
  Random& random_;
  store::MemoryFileSystem memory_;
  bool quiet_ = true;
  bool off_ = false;
  uint64_t errors_ = 0;
};

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_SIM_FILES_H_
