// safetensors.h: reading and writing the safetensors format, one file or shards with
// model.safetensors.index.json.
//
// Reading maps the files; nothing is copied. The header is checked whole (length, JSON, types,
// shapes, offsets inside of the file, no gaps, no overlaps) before any view is given out.
//
// Threads:   a TensorFile is immutable after Open. Ownership: TensorViews are valid while their
// TensorFile lives. Errors:    INVALID_ARGUMENT or DATA_LOSS naming the file and the tensor;
// NOT_FOUND for a missing file.
#ifndef CAIRN_ENGINE_MODEL_SAFETENSORS_H_
#define CAIRN_ENGINE_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model/file_io.h"
#include "store/base/status.h"

namespace cairn::engine {

enum class DType : uint8_t { kF32, kBF16, kF8E4M3, kF8E8M0, kI8, kU8, kI32, kI64 };

// "F32", "BF16", "F8_E4M3", "F8_E8M0", "I8", "U8", "I32", "I64".
const char* DTypeName(DType type);
uint64_t DTypeBytes(DType type);

struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const uint8_t> bytes;  // little-endian, row-major; may be unaligned
  bool empty() const { return bytes.data() == nullptr; }
};

class TensorFile {
 public:
  // A .safetensors file, or a directory with model.safetensors or model.safetensors.index.json.
  static absl::StatusOr<std::unique_ptr<TensorFile>> Open(const std::string& path);
  virtual ~TensorFile() = default;
  // By name, sorted.
  virtual const std::map<std::string, TensorView>& tensors() const = 0;
  // NOT_FOUND names the tensor and the file.
  virtual absl::StatusOr<TensorView> Get(const std::string& name) const = 0;
  // What the views point into.
  virtual std::span<const std::unique_ptr<MappedFile>> files() const = 0;
};

// Which of tensors.files() these bytes of a view lie in, and where in it.
size_t FileIndexOf(const TensorFile& tensors, std::span<const uint8_t> bytes);
inline const MappedFile& FileOf(const TensorFile& tensors, std::span<const uint8_t> bytes) {
  return *tensors.files()[FileIndexOf(tensors, bytes)];
}
inline uint64_t OffsetIn(const MappedFile& file, std::span<const uint8_t> bytes) {
  return static_cast<uint64_t>(bytes.data() - file.bytes().data());
}

struct NamedTensor {
  std::string name;
  TensorView view;
};

// Writes to a temporary name beside `path`, syncs, renames: a reader finds the old file or the
// whole new one.
absl::Status WriteTensors(const std::string& path, std::span<const NamedTensor> tensors);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_SAFETENSORS_H_
