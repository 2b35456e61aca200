#include "store/device/faulty_file_system.h"

#include <algorithm>

#include "store/base/limits.h"

namespace cairn::store {

class FaultyFile final : public File {
 public:
  FaultyFile(FaultyFileSystem& owner, std::unique_ptr<File> base)
      : owner_(owner), base_(std::move(base)) {}
  File& base() { return *base_; }

  const std::string& path() const override { return base_->path(); }
  absl::StatusOr<uint64_t> Size() const override { return base_->Size(); }
  absl::Status Sync() override {
    CAIRN_RETURN_IF_ERROR(owner_.CountOperation());
    return base_->Sync();
  }
  absl::Status Allocate(uint64_t bytes) override {
    CAIRN_RETURN_IF_ERROR(owner_.CountOperation());
    CAIRN_ASSIGN_OR_RETURN(const uint64_t size, base_->Size());
    CAIRN_RETURN_IF_ERROR(owner_.TakeRoom(bytes > size ? bytes - size : 0));
    return base_->Allocate(bytes);
  }
  absl::Status Truncate(uint64_t bytes) override {
    CAIRN_RETURN_IF_ERROR(owner_.CountOperation());
    return base_->Truncate(bytes);
  }

 private:
  FaultyFileSystem& owner_;
  const std::unique_ptr<File> base_;
};

void FaultyFileSystem::SetPlan(const FaultPlan& plan) {
  const std::lock_guard<std::mutex> lock(mutex_);
  plan_ = plan;
  operations_ = 0;
  written_bytes_ = 0;
}

uint64_t FaultyFileSystem::operations() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return operations_;
}

absl::Status FaultyFileSystem::CountOperation() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++operations_;
  const bool fails =
      plan_.fail_for_ever ? operations_ >= plan_.fail_at : operations_ == plan_.fail_at;
  return fails ? plan_.status : absl::OkStatus();
}

absl::Status FaultyFileSystem::TakeRoom(uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (plan_.write_bytes_max - written_bytes_ < bytes) {
    return absl::ResourceExhaustedError("write: No space left on device");
  }
  if (plan_.write_bytes_max != FaultPlan::kNever) written_bytes_ += bytes;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<File>> FaultyFileSystem::Open(const std::string& path,
                                                             OpenMode mode) {
  CAIRN_RETURN_IF_ERROR(CountOperation());
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<File> file, base_.Open(path, mode));
  return std::make_unique<FaultyFile>(*this, std::move(file));
}

void FaultyFileSystem::SubmitOne(IoRequest& request) {
  absl::Status fault = CountOperation();
  IoRequest inner = request;
  inner.file = &static_cast<FaultyFile*>(request.file)->base();
  if (fault.ok() && request.kind == IoKind::kWrite) {
    const absl::StatusOr<uint64_t> size = inner.file->Size();
    const uint64_t end = request.offset + request.bytes();
    fault = size.ok() ? TakeRoom(end > *size ? end - *size : 0) : size.status();
  }
  uint64_t number = 0;
  uint64_t flip_at = 0;
  bool flip_write = false;
  bool tear = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    number = operations_;
    flip_at = plan_.flip_read_at;
    flip_write = request.kind == IoKind::kWrite && !request.parts.empty() &&
                 operations_ == plan_.flip_write_at;
    tear = plan_.tear_failed_write && operations_ == plan_.fail_at;
  }
  if (!fault.ok()) {
    if (tear && inner.kind == IoKind::kWrite) {
      // The header arrives and half of the payload, or half of a single slice.
      std::span<uint8_t>& last = inner.slices[inner.slices[1].empty() ? 0 : 1];
      last = last.first(last.size() / 2 / kIoAlignment * kIoAlignment);
      base_.Submit({&inner, 1});
    }
    request.status = fault;
    request.bytes_done = 0;
    return;
  }
  IoBuffer hurt;
  if (flip_write) {
    std::span<uint8_t>& payload = inner.slices[inner.slices[1].empty() ? 0 : 1];
    hurt = IoBuffer(payload.size());
    std::copy(payload.begin(), payload.end(), hurt.bytes().begin());
    hurt.bytes()[0] ^= 0x40;
    payload = hurt.bytes();
  }
  base_.Submit({&inner, 1});
  request.status = inner.status;
  request.bytes_done = inner.bytes_done;
  // Else parts_seen stays kNothing: what was checked below may be hurt here.
  if (flip_write) request.parts_seen = PartsSeen::kDiffer;
  if (request.kind == IoKind::kRead && number == flip_at && request.bytes_done > 0) {
    std::span<uint8_t>& slice = request.slices[request.slices[1].empty() ? 0 : 1];
    slice[slice.size() / 2] ^= 0x40;
  }
}

void FaultyFileSystem::Run(std::span<IoRequest> requests, const IoFinished& finished) {
  for (IoRequest& request : requests) {
    SubmitOne(request);
    if (finished) finished(request);
  }
}

absl::Status FaultyFileSystem::MakeDirectory(const std::string& path) {
  CAIRN_RETURN_IF_ERROR(CountOperation());
  return base_.MakeDirectory(path);
}

absl::StatusOr<std::vector<std::string>> FaultyFileSystem::List(const std::string& directory) {
  CAIRN_RETURN_IF_ERROR(CountOperation());
  return base_.List(directory);
}

absl::Status FaultyFileSystem::SyncDirectory(const std::string& directory) {
  CAIRN_RETURN_IF_ERROR(CountOperation());
  return base_.SyncDirectory(directory);
}

absl::Status FaultyFileSystem::Rename(const std::string& from, const std::string& to) {
  CAIRN_RETURN_IF_ERROR(CountOperation());
  return base_.Rename(from, to);
}

absl::Status FaultyFileSystem::Unlink(const std::string& path) {
  CAIRN_RETURN_IF_ERROR(CountOperation());
  return base_.Unlink(path);
}

absl::StatusOr<bool> FaultyFileSystem::Exists(const std::string& path) {
  return base_.Exists(path);
}

absl::StatusOr<std::unique_ptr<FileLock>> FaultyFileSystem::Lock(const std::string& path) {
  return base_.Lock(path);
}

absl::StatusOr<uint64_t> FaultyFileSystem::FreeBytes(const std::string& directory) {
  return base_.FreeBytes(directory);
}

}  // namespace cairn::store
