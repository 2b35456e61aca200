#include "engine/model/tensor_reader.h"

#include <sys/mman.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "store/base/limits.h"
#include "store/base/out_of_memory.h"

namespace cairn::engine {
namespace {

using Bytes = TensorReader::Bytes;
using store::IoRequest;

constexpr uint64_t kHugePageBytes = 2 << 20;

// I/O is of whole units: a tensor that begins and ends within some needs both of them.
uint64_t RoomOf(Bytes bytes) { return RoundUpToIo(bytes.size()) + kIoAlignment; }

uint64_t RoomOf(std::span<const Bytes> all) {
  uint64_t bytes = 0;
  for (const Bytes one : all) bytes += RoomOf(one);
  return bytes;
}

absl::Status InFile(const absl::Status& status, const std::string& path) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace

uint64_t ReadRoom::BytesFor(uint64_t bytes) {
  const uint64_t unit = bytes < kHugePageBytes ? kIoAlignment : kHugePageBytes;
  return (bytes + unit - 1) / unit * unit;
}

std::span<uint8_t> ReadRoom::Take(uint64_t bytes) {
  if (size_ < bytes) {
    data_.reset();  // not both at once
    size_ = BytesFor(bytes);
    const uint64_t alignment = size_ % kHugePageBytes == 0 ? kHugePageBytes : kIoAlignment;
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(alignment, size_)));
    if (data_ == nullptr) OutOfMemory();
    if (alignment == kHugePageBytes) ::madvise(data_.get(), size_, MADV_HUGEPAGE);
  }
  return {data_.get(), size_};
}

void ReadRoom::Free::operator()(uint8_t* data) const { std::free(data); }

absl::StatusOr<std::unique_ptr<TensorReader>> TensorReader::Open(
    store::FileSystem& system, std::shared_ptr<const TensorFile> tensors) {
  std::unique_ptr<TensorReader> reader(new TensorReader(system, std::move(tensors)));
  for (const std::unique_ptr<MappedFile>& file : reader->tensors_->files()) {
    auto opened = system.Open(file->door(), store::OpenMode::kReadOnly);
    if (!opened.ok()) return InFile(opened.status(), file->path());
    reader->files_.push_back(*std::move(opened));
  }
  return reader;
}

uint64_t TensorReader::RoomBytes(std::span<const Bytes> wanted) {
  return ReadRoom::BytesFor(RoomOf(wanted));
}

absl::StatusOr<std::vector<Bytes>> TensorReader::Read(std::span<const Bytes> wanted,
                                                      ReadRoom& room) const {
  const std::span<uint8_t> taken = room.Take(RoomOf(wanted));
  const auto mapped = tensors_->files();
  std::vector<IoRequest> requests;
  std::vector<size_t> file_of;
  std::vector<Bytes> found;
  uint64_t at = 0;
  for (const Bytes one : wanted) {
    const size_t file = FileIndexOf(*tensors_, one);
    const uint64_t offset = OffsetIn(*mapped[file], one);
    const uint64_t skipped = offset % kIoAlignment;
    const std::span<uint8_t> to = taken.subspan(at, RoundUpToIo(skipped + one.size()));
    requests.push_back(IoRequest::Read(*files_[file], offset - skipped, to));
    file_of.push_back(file);
    found.push_back(to.subspan(skipped, one.size()));
    at += RoomOf(one);
  }
  system_.Submit(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    const MappedFile& file = *mapped[file_of[i]];
    if (!requests[i].status.ok()) return InFile(requests[i].status, file.path());
    CAIRN_RETURN_IF_ERROR(file.CheckUnchanged());
    const uint64_t end = requests[i].offset + requests[i].bytes_done;
    if (end < OffsetIn(file, wanted[i]) + wanted[i].size()) {
      return absl::DataLossError(absl::StrCat(file.path(), ": can be read to byte ", end,
                                              " only, of ", file.bytes().size()));
    }
  }
  return found;
}

}  // namespace cairn::engine
