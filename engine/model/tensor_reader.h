// tensor_reader.h: tensors by positioned reads, past their mapping and the page cache.
//
// A mapping is read page by page, leaves its pages behind, and kills the process where the file was
// truncated. Here several tensors are read at once, with many reads in flight, into memory of the
// caller's, and whatever the disk or the file does is a Status. What is given out was in the file
// when it was opened: a file that was written to since is refused.
//
// Threads:   any; a room belongs to one call.
// Ownership: keeps the TensorFile alive; the file system outlives this.
// Errors:    DATA_LOSS (truncated or changed), UNAVAILABLE (the device), naming the file.
#ifndef CAIRN_ENGINE_MODEL_TENSOR_READER_H_
#define CAIRN_ENGINE_MODEL_TENSOR_READER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/safetensors.h"
#include "store/base/status.h"
#include "store/device/file_system.h"

namespace cairn::engine {

// Memory to read into. Where it is large, in huge pages: a device takes each page for a place of
// its own, and a virtual one pays for every place.
class ReadRoom {
 public:
  // What Take takes of memory.
  static uint64_t BytesFor(uint64_t bytes);
  // At least so many, aligned for I/O, until the next call. They hold anything.
  std::span<uint8_t> Take(uint64_t bytes);

 private:
  struct Free {
    void operator()(uint8_t* data) const;
  };
  std::unique_ptr<uint8_t[], Free> data_;
  uint64_t size_ = 0;
};

class TensorReader {
 public:
  using Bytes = std::span<const uint8_t>;

  static absl::StatusOr<std::unique_ptr<TensorReader>> Open(
      store::FileSystem& system, std::shared_ptr<const TensorFile> tensors);

  // The memory that reading these takes.
  static uint64_t RoomBytes(std::span<const Bytes> wanted);
  // Reads `wanted`, which are bytes of the TensorFile's views. The result is where each lies in
  // `room`.
  absl::StatusOr<std::vector<Bytes>> Read(std::span<const Bytes> wanted, ReadRoom& room) const;

 private:
  TensorReader(store::FileSystem& system, std::shared_ptr<const TensorFile> tensors)
      : system_(system), tensors_(std::move(tensors)) {}

  store::FileSystem& system_;
  const std::shared_ptr<const TensorFile> tensors_;
  std::vector<std::unique_ptr<store::File>> files_;  // as tensors_->files()
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_TENSOR_READER_H_
