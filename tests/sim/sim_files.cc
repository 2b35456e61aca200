#include "tests/sim/sim_files.h"

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <vector>

#include "store/base/limits.h"
#include "store/device/errno_status.h"
#include "tests/faults/campaign.h"
#include "tests/sim/fibers.h"

namespace cairn::sim {

using store::File;
using store::IoKind;
using store::IoRequest;

namespace {

// One call in this many is struck, where the fault is active.
constexpr uint64_t kErrorIn = 60;
constexpr uint64_t kNoSpaceIn = 40;
constexpr uint64_t kBadReadIn = 40;
constexpr uint64_t kLateTurnsMax = 6;
// FORMAT, and its successor while it is replaced.
constexpr uint64_t kOtherFilesBytes = 2 * kIoAlignment;

bool IsSegment(const std::string& path) { return path.ends_with(".seg"); }

}  // namespace

class SimFile final : public File {
 public:
  SimFile(SimFiles& owner, std::unique_ptr<File> base) : owner_(owner), base_(std::move(base)) {}
  File& base() { return *base_; }

  const std::string& path() const override { return base_->path(); }
  absl::StatusOr<uint64_t> Size() const override { return base_->Size(); }
  absl::Status Sync() override {
    const Undisturbed device;
    CAIRN_RETURN_IF_ERROR(owner_.Strike(path(), /*takes_room=*/false));
    if (owner_.options_.canary == Canary::kLostSync && IsSegment(path())) return absl::OkStatus();
    return base_->Sync();
  }
  absl::Status Allocate(uint64_t bytes) override {
    const Undisturbed device;
    CAIRN_RETURN_IF_ERROR(owner_.Strike(path(), /*takes_room=*/true));
    const absl::Status allocated = base_->Allocate(bytes);
    owner_.CheckCapacity();
    return allocated;
  }
  absl::Status Truncate(uint64_t bytes) override {
    const Undisturbed device;
    CAIRN_RETURN_IF_ERROR(owner_.Strike(path(), /*takes_room=*/false));
    return base_->Truncate(bytes);
  }

 private:
  SimFiles& owner_;
  const std::unique_ptr<File> base_;
};

void SimFiles::PowerOff(bool cut) {
  off_ = true;
  if (cut) memory_.Crash(random_);
}

absl::Status SimFiles::Strike(const std::string& path, bool takes_room) {
  if (off_) return absl::UnavailableError(path + ": the power is off");
  if (Toss(options_.faults.io_errors, kErrorIn)) {
    ++errors_;
    return store::ErrnoStatus(EIO, "use", path);
  }
  if (takes_room && Toss(options_.faults.no_space, kNoSpaceIn)) {
    ++errors_;
    return store::ErrnoStatus(ENOSPC, "write", path);
  }
  return absl::OkStatus();
}

void SimFiles::CheckCapacity() const {
  const uint64_t used = memory_.UsedBytes();
  faults::Expect(
      used <= options_.capacity_bytes + kOtherFilesBytes,
      absl::StrCat("P7: files of ", used, " bytes, the capacity is ", options_.capacity_bytes));
}

void SimFiles::Run(std::span<IoRequest> requests, const store::IoFinished& finished) {
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.Next() % i]);
  for (const size_t i : order) {
    if (Fibers::inside()) {
      const uint64_t turns =
          options_.faults.slow_io && !quiet_ ? random_.Next() % kLateTurnsMax : 1;
      for (uint64_t turn = 0; turn < turns; ++turn) Fibers::instance()->Yield();
    }
    One(requests[i]);
    if (finished) finished(requests[i]);
  }
}

void SimFiles::One(IoRequest& request) {
  const Undisturbed device;
  const bool is_write = request.kind == IoKind::kWrite;
  IoRequest inner = request;
  inner.file = &static_cast<SimFile*>(request.file)->base();
  request.status = Strike(request.file->path(), is_write);
  request.bytes_done = 0;
  if (!request.status.ok()) {
    if (is_write && random_.Next() % 2 == 0) {
      // The first slice arrived, or a part of the only one.
      std::span<uint8_t>& last = inner.slices[inner.slices[1].empty() ? 0 : 1];
      last = last.first(last.size() / 2 / kIoAlignment * kIoAlignment);
      memory_.Submit({&inner, 1});
    }
    return;
  }
  memory_.Submit({&inner, 1});
  request.status = inner.status;
  request.bytes_done = inner.bytes_done;
  if (is_write) {
    CheckCapacity();
  } else if (request.bytes_done > 0 && Toss(options_.faults.bad_reads, kBadReadIn)) {
    Spoil(request);
  }
}

void SimFiles::Spoil(IoRequest& request) {
  std::span<uint8_t>& slice = request.slices[request.slices[1].empty() ? 0 : 1];
  slice[random_.Next() % slice.size()] ^= static_cast<uint8_t>(1u << random_.Next() % 8);
  options_.bad_read(request.file->path(), request.offset, request.bytes());
}

absl::StatusOr<std::unique_ptr<File>> SimFiles::Open(const std::string& path,
                                                     store::OpenMode mode) {
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Strike(path, mode == store::OpenMode::kCreate));
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<File> file, memory_.Open(path, mode));
  return std::make_unique<SimFile>(*this, std::move(file));
}

absl::Status SimFiles::MakeDirectory(const std::string& path) {
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Strike(path, /*takes_room=*/true));
  return memory_.MakeDirectory(path);
}

absl::StatusOr<std::vector<std::string>> SimFiles::List(const std::string& directory) {
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Strike(directory, /*takes_room=*/false));
  return memory_.List(directory);
}

absl::Status SimFiles::SyncDirectory(const std::string& directory) {
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Strike(directory, /*takes_room=*/false));
  return memory_.SyncDirectory(directory);
}

absl::Status SimFiles::Rename(const std::string& from, const std::string& to) {
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Strike(from, /*takes_room=*/false));
  return memory_.Rename(from, to);
}

absl::Status SimFiles::Unlink(const std::string& path) {
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Strike(path, /*takes_room=*/false));
  return memory_.Unlink(path);
}

absl::StatusOr<bool> SimFiles::Exists(const std::string& path) {
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Strike(path, /*takes_room=*/false));
  return memory_.Exists(path);
}

absl::StatusOr<std::unique_ptr<store::FileLock>> SimFiles::Lock(const std::string& path) {
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Strike(path, /*takes_room=*/true));
  return memory_.Lock(path);
}

absl::StatusOr<uint64_t> SimFiles::FreeBytes(const std::string& directory) {
  return memory_.FreeBytes(directory);
}

}  // namespace cairn::sim
