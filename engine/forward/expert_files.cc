#include "engine/forward/expert_files.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/device/uring_file_system.h"

namespace cairn::engine {
namespace {

using Bytes = TensorReader::Bytes;

// Six tensors, or three where there are no scales.
std::vector<Bytes> BytesOf(std::span<const Bytes> all) {
  std::vector<Bytes> found;
  std::copy_if(all.begin(), all.end(), std::back_inserter(found),
               [](Bytes bytes) { return !bytes.empty(); });
  return found;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertFiles>> ExpertFiles::Open(store::FileSystem* system,
                                                               const Weights& weights,
                                                               Numerics numerics) {
  auto files = std::make_unique<ExpertFiles>();
  if (system == nullptr) {
    // Rooms are in huge pages themselves, so the rings need no memory in some.
    files->own_system_ = std::make_unique<store::UringFileSystem>(
        store::UringFileSystem::Options{.use_bounce = false});
    system = files->own_system_.get();
  }
  CAIRN_ASSIGN_OR_RETURN(files->reader_, TensorReader::Open(*system, weights.file));
  files->experts_per_layer_ = weights.config.experts;
  const auto add = [&](const MoeWeights& moe) {
    for (const ExpertWeights& expert : moe.experts) {
      CAIRN_RETURN_IF_ERROR(files->Add(expert, numerics));
    }
    return absl::OkStatus();
  };
  for (const BlockWeights& block : weights.layers) CAIRN_RETURN_IF_ERROR(add(block.ffn));
  for (const MtpWeights& mtp : weights.mtp) CAIRN_RETURN_IF_ERROR(add(mtp.block.ffn));
  return files;
}

absl::Status ExpertFiles::Add(const ExpertWeights& weights, Numerics numerics) {
  Expert expert;
  uint64_t packed = 0;
  std::vector<Bytes> parts;
  for (size_t i = 0; i < expert.size(); ++i) {
    const LinearWeight& w = *std::array{&weights.w1, &weights.w2, &weights.w3}[i];
    Matrix& matrix = expert[i];
    matrix.shape = RawOf(w);
    matrix.values = w.weight.bytes;
    matrix.scales = w.scale.bytes;
    CAIRN_ASSIGN_OR_RETURN(matrix.kind, KindOf(w, numerics));
    packed += static_cast<uint64_t>(kernels::PackedMatrix::PackedBytes(matrix.shape));
    parts.insert(parts.end(), {matrix.values, matrix.scales});
  }
  parts = BytesOf(parts);
  packed_bytes_ = std::max(packed_bytes_, packed);
  room_bytes_ = std::max(room_bytes_, TensorReader::RoomBytes(parts));
  for (const Bytes part : parts) stored_bytes_ += part.size();
  experts_.push_back(expert);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ExpertFiles::Load(int64_t layer, int64_t expert, ReadRoom& room,
                                           ExpertOp& into) const {
  const Expert& stored = experts_[static_cast<size_t>(layer * experts_per_layer_ + expert)];
  std::vector<Bytes> parts;
  for (const Matrix& matrix : stored) parts.insert(parts.end(), {matrix.values, matrix.scales});
  const absl::StatusOr<std::vector<Bytes>> read = reader_->Read(BytesOf(parts), room);
  if (!read.ok()) {
    return absl::Status(read.status().code(), absl::StrCat("expert ", expert, " of layer ", layer,
                                                           ": ", read.status().message()));
  }
  uint64_t bytes = 0;
  for (const Bytes part : *read) bytes += part.size();
  auto part = read->begin();
  for (size_t i = 0; i < stored.size(); ++i) {
    kernels::RawMatrix raw = stored[i].shape;
    raw.values = part++->data();
    if (raw.scales != nullptr) raw.scales = part++->data();
    LinearOp& op = *std::array{&into.w1, &into.w2, &into.w3}[i];
    op.w.Pack(raw, 0, raw.rows);
    static_cast<LinearKind&>(op) = stored[i].kind;
  }
  return bytes;
}

absl::StatusOr<int64_t> ExpertPlaces(const ExpertFiles& files, int64_t experts_per_token,
                                     const ExpertBudget& budget) {
  const uint64_t rooms = kExpertReaders * files.room_bytes();
  const auto all = static_cast<uint64_t>(files.layers() * files.experts());
  const uint64_t least = rooms + static_cast<uint64_t>(experts_per_token) * files.packed_bytes();
  uint64_t bytes = 0;
  if (budget.asked.has_value()) {
    bytes = *budget.asked;
    if (bytes < least) {
      return absl::ResourceExhaustedError(
          absl::StrCat("--expert-cache ", bytes, ": a token's step of a layer takes ", least,
                       " bytes: ", experts_per_token, " experts of ", files.packed_bytes(), " and ",
                       kExpertReaders, " readers of ", files.room_bytes()));
    }
  } else {
    // What the caller has planned is a bound that it may never come near, so half is for experts
    // in any case; an eighth of it all stays free.
    const uint64_t left = budget.available - std::min(budget.available, budget.dense);
    const uint64_t unplanned = left - std::min(left, budget.reserved);
    bytes = std::max(unplanned, left / 2) / 8 * 7;
    if (bytes < least) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "of ", budget.available, " bytes of memory that are left, ", budget.dense,
          " are for the dense weights; that leaves ", bytes, " for routed experts, of which a ",
          "token's step of a layer takes ", least, "; have more memory, or give --expert-cache"));
    }
  }
  return static_cast<int64_t>(std::min(all, (bytes - rooms) / files.packed_bytes()));
}

}  // namespace cairn::engine
