#include "engine/model/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "engine/model/json.h"

namespace cairn::engine {
namespace {

using nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit
constexpr uint64_t kIndexBytesMax = 100'000'000;
constexpr size_t kShardsMax = 4096;
constexpr size_t kNameBytesMax = 256;
constexpr size_t kDimensionsMax = 8;
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";

struct DTypeInfo {
  DType type;
  const char* name;
  uint64_t bytes;
};
constexpr std::array<DTypeInfo, 8> kDTypes = {{{DType::kF32, "F32", 4},
                                               {DType::kBF16, "BF16", 2},
                                               {DType::kF8E4M3, "F8_E4M3", 1},
                                               {DType::kF8E8M0, "F8_E8M0", 1},
                                               {DType::kI8, "I8", 1},
                                               {DType::kU8, "U8", 1},
                                               {DType::kI32, "I32", 4},
                                               {DType::kI64, "I64", 8}}};

const DTypeInfo& InfoOf(DType type) { return kDTypes[static_cast<size_t>(type)]; }

static_assert([] {
  for (size_t i = 0; i < kDTypes.size(); ++i) {
    if (static_cast<size_t>(kDTypes[i].type) != i) return false;
  }
  return true;
}());

// Names appear in errors and logs, so only printable ASCII passes.
bool IsGoodName(const std::string& name) {
  return !name.empty() && name.size() <= kNameBytesMax &&
         std::all_of(name.begin(), name.end(), [](char c) { return c >= 0x21 && c <= 0x7e; });
}

// Bytes of a tensor; nullopt when the product overflows or a dimension is negative.
std::optional<uint64_t> BytesOf(DType type, std::span<const int64_t> shape) {
  uint64_t bytes = DTypeBytes(type);
  for (int64_t dimension : shape) {
    if (dimension < 0) return std::nullopt;
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dimension), &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

// One header, checked tensor by tensor; offsets are relative to the end of the header.
class HeaderReader {
 public:
  HeaderReader(const std::string& path, std::span<const uint8_t> data) : path_(path), data_(data) {}

  absl::Status Read(const json& header, std::map<std::string, TensorView>& out) {
    std::vector<Extent> extents;
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") continue;
      if (!IsGoodName(name)) {
        return absl::InvalidArgumentError(absl::StrCat(path_, ": a tensor name is empty, over ",
                                                       kNameBytesMax, " bytes or not printable"));
      }
      CAIRN_RETURN_IF_ERROR(ReadTensor(name, entry, extents, out[name]));
    }
    return CheckCoverage(std::move(extents));
  }

 private:
  struct Extent {
    uint64_t begin, end;
    std::string name;
  };

  absl::Status Bad(const std::string& name, const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": tensor ", name, ": ", what));
  }

  absl::Status ReadType(const std::string& name, const json& entry, DType& out) const {
    const auto dtype = entry.find("dtype");
    if (dtype == entry.end() || !dtype->is_string()) return Bad(name, "has no \"dtype\"");
    const std::string& text = dtype->get_ref<const std::string&>();
    for (const DTypeInfo& info : kDTypes) {
      if (text == info.name) {
        out = info.type;
        return absl::OkStatus();
      }
    }
    return Bad(name, absl::StrCat("dtype ", IsGoodName(text) ? text : "?",
                                  " is not supported (F32, BF16, F8_E4M3, F8_E8M0, I8, U8, I32, "
                                  "I64 are)"));
  }

  absl::Status ReadShape(const std::string& name, const json& entry,
                         std::vector<int64_t>& out) const {
    const auto shape = entry.find("shape");
    if (shape == entry.end() || !shape->is_array()) return Bad(name, "has no \"shape\"");
    if (shape->size() > kDimensionsMax) {
      return Bad(name, absl::StrCat("has ", shape->size(), " dimensions; at most ", kDimensionsMax,
                                    " are read"));
    }
    for (const json& dimension : *shape) {
      if (!dimension.is_number_unsigned() ||
          dimension.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Bad(name, "\"shape\" holds something that is not a count");
      }
      out.push_back(dimension.get<int64_t>());
    }
    return absl::OkStatus();
  }

  absl::Status ReadTensor(const std::string& name, const json& entry, std::vector<Extent>& extents,
                          TensorView& view) const {
    if (!entry.is_object()) return Bad(name, "its entry is not an object");
    CAIRN_RETURN_IF_ERROR(ReadType(name, entry, view.dtype));
    CAIRN_RETURN_IF_ERROR(ReadShape(name, entry, view.shape));
    const auto offsets = entry.find("data_offsets");
    if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 ||
        !(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned()) {
      return Bad(name, "\"data_offsets\" is not a pair of offsets");
    }
    const uint64_t begin = (*offsets)[0].get<uint64_t>();
    const uint64_t end = (*offsets)[1].get<uint64_t>();
    if (begin > end)
      return Bad(name, absl::StrCat("ends at ", end, " before it begins at ", begin));
    const std::optional<uint64_t> bytes = BytesOf(view.dtype, view.shape);
    if (!bytes || *bytes != end - begin) {
      return Bad(name, absl::StrCat("its shape and dtype need ",
                                    bytes ? std::to_string(*bytes) : "over 2^64",
                                    " bytes, its offsets give ", end - begin));
    }
    if (end > data_.size()) {
      return absl::DataLossError(absl::StrCat(path_, ": truncated: tensor ", name,
                                              " ends at data byte ", end, ", the file at ",
                                              data_.size(), "; fetch the file again"));
    }
    view.bytes = data_.subspan(begin, end - begin);
    extents.push_back({begin, end, name});
    return absl::OkStatus();
  }

  absl::Status CheckCoverage(std::vector<Extent> extents) const {
    std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    uint64_t at = 0;
    for (const Extent& extent : extents) {
      if (extent.begin < at) {
        return Bad(extent.name, absl::StrCat("overlaps the tensor before it: begins at ",
                                             extent.begin, ", that one ends at ", at));
      }
      if (extent.begin > at) {
        return Bad(extent.name, absl::StrCat("leaves a gap: begins at ", extent.begin,
                                             ", the tensor before it ends at ", at));
      }
      at = extent.end;
    }
    if (at != data_.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path_, ": ", data_.size() - at, " bytes after the last tensor belong to none"));
    }
    return absl::OkStatus();
  }

  const std::string& path_;
  std::span<const uint8_t> data_;
};

absl::Status ReadHeader(const MappedFile& file, std::map<std::string, TensorView>& out) {
  const std::span<const uint8_t> bytes = file.bytes();
  if (bytes.size() < kLengthBytes) {
    return absl::DataLossError(
        absl::StrCat(file.path(), ": truncated: ", bytes.size(), " bytes; fetch the file again"));
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > kHeaderBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(),
                                                   ": not a safetensors file: it begins with a "
                                                   "header length of ",
                                                   length));
  }
  if (length > bytes.size() - kLengthBytes) {
    return absl::DataLossError(absl::StrCat(file.path(), ": truncated: its header takes ", length,
                                            " bytes, the file has ", bytes.size() - kLengthBytes,
                                            " after the length; fetch the file again"));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data() + kLengthBytes), length);
  CAIRN_ASSIGN_OR_RETURN(const json header,
                         ParseJsonObject(text, absl::StrCat(file.path(), ": header")));
  return HeaderReader(file.path(), bytes.subspan(kLengthBytes + length)).Read(header, out);
}

class MappedTensors final : public TensorFile {
 public:
  explicit MappedTensors(std::string path) : path_(std::move(path)) {}

  const std::map<std::string, TensorView>& tensors() const override { return tensors_; }

  absl::StatusOr<TensorView> Get(const std::string& name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      return absl::NotFoundError(absl::StrCat(path_, ": no tensor ", name));
    }
    return found->second;
  }

  std::span<const std::unique_ptr<MappedFile>> files() const override { return files_; }

  absl::Status AddFile(const std::string& path) {
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
    std::map<std::string, TensorView> found;
    CAIRN_RETURN_IF_ERROR(ReadHeader(*file, found));
    files_.push_back(std::move(file));
    for (auto& [name, view] : found) {
      if (!tensors_.emplace(name, std::move(view)).second) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": tensor ", name, " is in another shard too"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddShards(const std::string& folder, const std::string& index_path) {
    CAIRN_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(index_path, kIndexBytesMax));
    CAIRN_ASSIGN_OR_RETURN(const json index, ParseJsonObject(text, index_path));
    const auto weight_map = index.find("weight_map");
    if (weight_map == index.end() || !weight_map->is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(index_path, ": no \"weight_map\""));
    }
    std::map<std::string, std::set<std::string>> shards;
    for (const auto& [name, shard] : weight_map->items()) {
      // A shard is a file of this folder: a path would let an index read what it likes.
      if (!shard.is_string() || !IsGoodName(shard.get_ref<const std::string&>()) ||
          shard.get_ref<const std::string&>().find('/') != std::string::npos) {
        return absl::InvalidArgumentError(
            absl::StrCat(index_path, ": tensor ", IsGoodName(name) ? name : "?",
                         " is mapped to something that is not a file name"));
      }
      shards[shard.get<std::string>()].insert(name);
    }
    if (shards.size() > kShardsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": ", shards.size(), " shards; at most ", kShardsMax));
    }
    for (const auto& [shard, names] : shards) {
      CAIRN_RETURN_IF_ERROR(AddFile(absl::StrCat(folder, "/", shard)));
    }
    return CheckIndex(index_path, *weight_map, shards);
  }

 private:
  absl::Status CheckIndex(const std::string& index_path, const json& weight_map,
                          const std::map<std::string, std::set<std::string>>& shards) const {
    for (const auto& [shard, names] : shards) {
      for (const std::string& name : names) {
        if (!tensors_.contains(name)) {
          return absl::InvalidArgumentError(absl::StrCat(index_path, ": tensor ",
                                                         IsGoodName(name) ? name : "?",
                                                         " is not in its shard ", shard));
        }
      }
    }
    for (const auto& [name, view] : tensors_) {
      if (!weight_map.contains(name)) {
        return absl::InvalidArgumentError(
            absl::StrCat(index_path, ": tensor ", name, " of a shard is not in the index"));
      }
    }
    return absl::OkStatus();
  }

  std::string path_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, TensorView> tensors_;
};

std::string HeaderOf(std::span<const NamedTensor* const> ordered) {
  json header = json::object();
  uint64_t at = 0;
  for (const NamedTensor* tensor : ordered) {
    const uint64_t end = at + tensor->view.bytes.size();
    header[tensor->name] = {{"dtype", DTypeName(tensor->view.dtype)},
                            {"shape", tensor->view.shape},
                            {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the data starts aligned
  return text;
}

}  // namespace

const char* DTypeName(DType type) { return InfoOf(type).name; }
uint64_t DTypeBytes(DType type) { return InfoOf(type).bytes; }

size_t FileIndexOf(const TensorFile& tensors, std::span<const uint8_t> bytes) {
  const auto files = tensors.files();
  const std::less_equal<const uint8_t*> before;  // of different mappings too
  size_t i = 0;
  while (
      !before(files[i]->bytes().data(), bytes.data()) ||
      !before(bytes.data() + bytes.size(), files[i]->bytes().data() + files[i]->bytes().size())) {
    ++i;
  }
  return i;
}

absl::StatusOr<std::unique_ptr<TensorFile>> TensorFile::Open(const std::string& path) {
  auto tensors = std::make_unique<MappedTensors>(path);
  if (!IsDirectory(path)) {
    CAIRN_RETURN_IF_ERROR(tensors->AddFile(path));
    return tensors;
  }
  const std::string single = absl::StrCat(path, "/", kSingleName);
  const std::string index = absl::StrCat(path, "/", kIndexName);
  const bool has_single = FileExists(single), has_index = FileExists(index);
  if (has_single && has_index) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds both ", kSingleName, " and ",
                                                   kIndexName, "; remove the one that is stale"));
  }
  if (!has_single && !has_index) {
    return absl::NotFoundError(
        absl::StrCat(path, ": neither ", kSingleName, " nor ", kIndexName, " is there"));
  }
  CAIRN_RETURN_IF_ERROR(has_single ? tensors->AddFile(single) : tensors->AddShards(path, index));
  return tensors;
}

absl::Status WriteTensors(const std::string& path, std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> ordered;
  std::set<std::string> names;
  for (const NamedTensor& tensor : tensors) {
    if (!IsGoodName(tensor.name) || tensor.name == "__metadata__" ||
        !names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor name \"", tensor.name, "\" is unusable or used twice"));
    }
    if (BytesOf(tensor.view.dtype, tensor.view.shape) != tensor.view.bytes.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", tensor.name, ": shape and bytes do not agree"));
    }
    ordered.push_back(&tensor);
  }
  // Widest types first: then every tensor starts at a multiple of its own width.
  std::sort(ordered.begin(), ordered.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const uint64_t a_bytes = DTypeBytes(a->view.dtype), b_bytes = DTypeBytes(b->view.dtype);
    return a_bytes != b_bytes ? a_bytes > b_bytes : a->name < b->name;
  });
  const std::string header = HeaderOf(ordered);
  const uint64_t length = header.size();
  const auto as_bytes = [](const void* data, size_t size) {
    return std::span<const uint8_t>(static_cast<const uint8_t*>(data), size);
  };
  std::vector<std::span<const uint8_t>> chunks = {as_bytes(&length, sizeof(length)),
                                                  as_bytes(header.data(), header.size())};
  for (const NamedTensor* tensor : ordered) chunks.push_back(tensor->view.bytes);
  return ReplaceFile(path, chunks);
}

}  // namespace cairn::engine
