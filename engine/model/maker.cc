#include "engine/model/maker.h"

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "engine/model/file_io.h"
#include "engine/model/random_weights.h"
#include "engine/model/safetensors.h"
#include "engine/model/schema.h"

namespace cairn::engine {
namespace {

// FP8 activations are quantised 128 at a time along the input, for FP8 and for FP4 weights.
constexpr int64_t kActivationGroup = 128;

uint64_t BytesOf(DType type, const std::vector<int64_t>& shape) {
  uint64_t bytes = shape.empty() ? 0 : DTypeBytes(type);
  for (int64_t dimension : shape) bytes *= static_cast<uint64_t>(dimension);
  return bytes;
}

uint64_t SlotBytes(const TensorSlot& slot, WeightFormat format) {
  const DType type = MadeType(slot.role, format);
  return BytesOf(type, StoredShape(type, slot.shape)) +
         BytesOf(DType::kF8E8M0, ScaleShape(type, slot.shape));
}

using Shard = std::vector<TensorSlot>;

// The slots point into `binding`, which must outlive the plan.
std::vector<Shard> Plan(const MakeOptions& options, Weights& binding) {
  std::vector<Shard> shards(1);
  uint64_t bytes = 0;
  binding.config = options.config;
  VisitTensors(binding, [&](const TensorSlot& slot) {
    const uint64_t more = SlotBytes(slot, options.format);
    if (bytes + more > options.shard_bytes && !shards.back().empty()) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += more;
    shards.back().push_back(slot);
  });
  return shards;
}

absl::Status CheckFormat(const MakeOptions& options, const std::vector<Shard>& shards) {
  if (options.format != WeightFormat::kFp8Fp4) return absl::OkStatus();
  for (const Shard& shard : shards) {
    for (const TensorSlot& slot : shard) {
      if (ScaleShape(MadeType(slot.role, options.format), slot.shape).empty()) continue;
      if (slot.shape[1] % kActivationGroup == 0) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "format fp8fp4 needs the inputs of every quantised linear to be a multiple of ",
          kActivationGroup, "; ", slot.name, " has ", slot.shape[1]));
    }
  }
  return absl::OkStatus();
}

absl::Status PrepareFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat(folder, ": cannot create the folder: ", error.message()));
  }
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json"}) {
    if (FileExists(absl::StrCat(folder, "/", name))) {
      return absl::FailedPreconditionError(
          absl::StrCat(folder, ": holds a model already (", name, "); name another folder"));
    }
  }
  return absl::OkStatus();
}

std::vector<MadeTensor> MakeShard(const Shard& shard, const MakeOptions& options) {
  std::vector<std::vector<MadeTensor>> by_slot(shard.size());
  std::atomic<size_t> next = 0;
  const auto run = [&] {
    for (size_t i = next++; i < shard.size(); i = next++) {
      by_slot[i] = MakeTensor(shard[i], options.config, options.format, options.seed);
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < options.threads; ++i) helpers.emplace_back(run);
  run();
  for (std::thread& helper : helpers) helper.join();
  std::vector<MadeTensor> made;
  for (std::vector<MadeTensor>& tensors : by_slot) {
    for (MadeTensor& tensor : tensors) made.push_back(std::move(tensor));
  }
  return made;
}

std::string ShardName(size_t shard, size_t shards) {
  if (shards == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
  return name;
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  return ReplaceFile(path, std::span(&bytes, 1));
}

}  // namespace

std::optional<WeightFormat> ParseWeightFormat(const std::string& name) {
  if (name == "bf16") return WeightFormat::kBf16;
  if (name == "fp8fp4") return WeightFormat::kFp8Fp4;
  return std::nullopt;
}

absl::Status MakeModel(const MakeOptions& options, const std::string& folder) {
  CAIRN_RETURN_IF_ERROR(CheckConfig(options.config, "config"));
  Weights binding;
  const std::vector<Shard> shards = Plan(options, binding);
  CAIRN_RETURN_IF_ERROR(CheckFormat(options, shards));
  CAIRN_RETURN_IF_ERROR(PrepareFolder(folder));
  nlohmann::json weight_map = nlohmann::json::object();
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = ShardName(i, shards.size());
    const std::vector<MadeTensor> made = MakeShard(shards[i], options);
    std::vector<NamedTensor> tensors;
    for (const MadeTensor& tensor : made) {
      tensors.push_back({tensor.name, {tensor.dtype, tensor.shape, tensor.bytes}});
      weight_map[tensor.name] = name;
      total += tensor.bytes.size();
    }
    CAIRN_RETURN_IF_ERROR(WriteTensors(absl::StrCat(folder, "/", name), tensors));
  }
  if (shards.size() > 1) {
    const nlohmann::json index = {{"metadata", {{"total_size", total}}},
                                  {"weight_map", weight_map}};
    CAIRN_RETURN_IF_ERROR(WriteText(folder + "/model.safetensors.index.json", index.dump(1)));
  }
  return WriteText(folder + "/config.json",
                   ModelCardJson(options.config, options.format == WeightFormat::kFp8Fp4));
}

}  // namespace cairn::engine
