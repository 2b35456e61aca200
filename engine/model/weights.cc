#include "engine/model/weights.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string_view>
#include <utility>

#include "engine/model/schema.h"

namespace cairn::engine {
namespace {

constexpr size_t kFindingsNamed = 5;

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  const char* separator = "";
  for (int64_t dimension : shape) {
    absl::StrAppend(&text, separator, dimension);
    separator = ",";
  }
  return text + "]";
}

std::string TypesText(std::span<const DType> types) {
  std::string text;
  for (size_t i = 0; i < types.size(); ++i) {
    absl::StrAppend(&text,
                    i == 0                  ? ""
                    : i + 1 == types.size() ? " or "
                                            : ", ",
                    DTypeName(types[i]));
  }
  return text;
}

// The MTP block shares embedding and head with the model; some checkpoints carry copies.
bool IsIgnoredCopy(const std::string& name) {
  return name.starts_with("mtp.") &&
         (name.find("emb") != std::string::npos || name.ends_with("head.weight"));
}

class Binder {
 public:
  explicit Binder(const TensorFile& file) : tensors_(file.tensors()) {}

  void Bind(const TensorSlot& slot) {
    const std::string name = slot.tensor_name();
    const TensorView* view = Take(name);
    const std::span<const DType> types = TypesOf(slot.role);
    if (view == nullptr) {
      Report(absl::StrCat(name, " is missing"));
    } else if (std::find(types.begin(), types.end(), view->dtype) == types.end()) {
      Report(absl::StrCat(name, " is ", DTypeName(view->dtype), ", must be ", TypesText(types)));
    } else {
      CheckShape(name, *view, StoredShape(view->dtype, slot.shape));
      Assign(slot, *view);
      return;
    }
    // Whether its scale is right cannot be told, and one finding for one tensor is enough.
    if (slot.linear != nullptr) seen_.insert(slot.name + ".scale");
  }

  // Call after every slot was bound.
  void ReportUnknown() {
    for (const auto& [name, view] : tensors_) {
      if (!seen_.contains(name) && !IsIgnoredCopy(name)) Report(absl::StrCat(name, " is unknown"));
    }
  }

  void Report(std::string finding) {
    if (findings_.size() < kFindingsNamed) findings_.push_back(std::move(finding));
    ++count_;
  }

  absl::Status Result() const {
    if (count_ == 0) return absl::OkStatus();
    std::string text = absl::StrCat("weights do not fit the config: ", count_,
                                    count_ == 1 ? " tensor: " : " tensors: ");
    const char* separator = "";
    for (const std::string& finding : findings_) {
      absl::StrAppend(&text, separator, finding);
      separator = "; ";
    }
    if (count_ > findings_.size()) {
      absl::StrAppend(&text, "; and ", count_ - findings_.size(), " more");
    }
    return absl::InvalidArgumentError(text);
  }

 private:
  void Assign(const TensorSlot& slot, const TensorView& view) {
    if (slot.linear == nullptr) {
      *slot.vector = view;
      return;
    }
    slot.linear->weight = view;
    slot.linear->out = slot.shape[0];
    slot.linear->in = slot.shape[1];
    BindScale(slot, view.dtype);
  }

  const TensorView* Take(const std::string& name) {
    seen_.insert(name);
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  void CheckShape(const std::string& name, const TensorView& view,
                  const std::vector<int64_t>& shape) {
    if (view.shape == shape) return;
    Report(absl::StrCat(name, " is ", ShapeText(view.shape), ", must be ", ShapeText(shape)));
  }

  void BindScale(const TensorSlot& slot, DType weight_type) {
    const std::string name = slot.name + ".scale";
    const std::vector<int64_t> shape = ScaleShape(weight_type, slot.shape);
    const TensorView* scale = Take(name);
    if (shape.empty()) {
      if (scale != nullptr) {
        Report(absl::StrCat(name, " is there, but its weight is ", DTypeName(weight_type),
                            " and has no scale"));
      }
      return;
    }
    if (weight_type == DType::kI8 && slot.shape[1] % kFp4Group != 0) {
      Report(absl::StrCat(slot.name, ".weight is FP4 with ", slot.shape[1],
                          " inputs, must be a multiple of ", kFp4Group));
    }
    if (scale == nullptr) {
      Report(absl::StrCat(name, " is missing beside its ", DTypeName(weight_type), " weight"));
      return;
    }
    if (scale->dtype != DType::kF8E8M0) {
      Report(absl::StrCat(name, " is ", DTypeName(scale->dtype), ", must be F8_E8M0"));
    } else {
      CheckShape(name, *scale, shape);
    }
    slot.linear->scale = *scale;
  }

  const std::map<std::string, TensorView>& tensors_;
  std::set<std::string> seen_;
  std::vector<std::string> findings_;
  size_t count_ = 0;
};

// The index of the first entry outside of [0, experts), or -1.
template <typename Id>
int64_t FirstBadId(std::span<const uint8_t> bytes, int64_t experts) {
  const size_t count = bytes.size() / sizeof(Id);
  for (size_t i = 0; i < count; ++i) {
    Id id;
    std::memcpy(&id, bytes.data() + i * sizeof(Id), sizeof(Id));
    if (id < 0 || id >= experts) return static_cast<int64_t>(i);
  }
  return -1;
}

// Experts are addressed by these numbers, so a wrong one must not get past loading.
void CheckTokenTables(const Weights& weights, Binder& binder) {
  for (size_t layer = 0; layer < weights.layers.size(); ++layer) {
    const TensorView& table = weights.layers[layer].ffn.tid2eid;
    if (table.empty()) continue;
    const int64_t at = table.dtype == DType::kI64
                           ? FirstBadId<int64_t>(table.bytes, weights.config.experts)
                           : FirstBadId<int32_t>(table.bytes, weights.config.experts);
    if (at < 0) continue;
    binder.Report(absl::StrCat("layers.", layer, ".ffn.gate.tid2eid sends token ",
                               at / weights.config.experts_per_token,
                               " to an expert outside of 0..", weights.config.experts - 1));
  }
}

}  // namespace

absl::StatusOr<Weights> BindWeights(const ModelConfig& config, std::shared_ptr<TensorFile> file) {
  CAIRN_RETURN_IF_ERROR(CheckConfig(config, "config"));
  Weights weights;
  weights.config = config;
  weights.file = std::move(file);
  Binder binder(*weights.file);
  VisitTensors(weights, [&](const TensorSlot& slot) { binder.Bind(slot); });
  binder.ReportUnknown();
  CAIRN_RETURN_IF_ERROR(binder.Result());
  CheckTokenTables(weights, binder);
  CAIRN_RETURN_IF_ERROR(binder.Result());
  return weights;
}

}  // namespace cairn::engine
