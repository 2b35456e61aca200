#include "engine/model/tensor_reader.h"

#include <string>
#include <utility>

#include "store/base/limits.h"

namespace cairn::engine {
namespace {

using Bytes = TensorReader::Bytes;
using store::IoRequest;

// I/O is of whole units: a tensor that begins and ends within some needs both of them.
uint64_t RoomOf(Bytes bytes) { return RoundUpToIo(bytes.size()) + kIoAlignment; }

absl::Status InFile(const absl::Status& status, const std::string& path) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace

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
  uint64_t bytes = 0;
  for (const Bytes one : wanted) bytes += RoomOf(one);
  return bytes;
}

absl::StatusOr<std::vector<Bytes>> TensorReader::Read(std::span<const Bytes> wanted,
                                                      store::IoBuffer& room) const {
  if (room.bytes().size() < RoomBytes(wanted)) {
    room = store::IoBuffer();  // not both at once
    room = store::IoBuffer(RoomBytes(wanted));
  }
  const auto mapped = tensors_->files();
  std::vector<IoRequest> requests;
  std::vector<size_t> file_of;
  std::vector<Bytes> found;
  uint64_t at = 0;
  for (const Bytes one : wanted) {
    const size_t file = FileIndexOf(*tensors_, one);
    const uint64_t offset = OffsetIn(*mapped[file], one);
    const uint64_t skipped = offset % kIoAlignment;
    const std::span<uint8_t> to = room.bytes().subspan(at, RoundUpToIo(skipped + one.size()));
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
