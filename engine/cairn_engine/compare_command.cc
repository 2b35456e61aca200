#include "engine/cairn_engine/compare_command.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "engine/cairn_engine/failure.h"
#include "engine/model/safetensors.h"
#include "store/base/exit_codes.h"

namespace cairn::engine {
namespace {

absl::Status CompareTensor(const std::string& name, const TensorView& a, const TensorView& b) {
  if (a.dtype != b.dtype || a.shape != b.shape) {
    return absl::FailedPreconditionError(absl::StrCat(name, " has another type or shape"));
  }
  const auto [x, y] = std::mismatch(a.bytes.begin(), a.bytes.end(), b.bytes.begin());
  if (x == a.bytes.end()) return absl::OkStatus();
  const auto element = static_cast<uint64_t>(x - a.bytes.begin()) / DTypeBytes(a.dtype);
  return absl::FailedPreconditionError(absl::StrCat(name, " differs, first at element ", element));
}

}  // namespace

int RunCompareCommand(const CompareOptions& options) {
  absl::StatusOr<std::unique_ptr<TensorFile>> first = TensorFile::Open(options.first);
  if (!first.ok()) return Fail(first.status(), kExitBadTokens);
  absl::StatusOr<std::unique_ptr<TensorFile>> second = TensorFile::Open(options.second);
  if (!second.ok()) return Fail(second.status(), kExitBadTokens);
  if ((*first)->tensors().size() != (*second)->tensors().size()) {
    return Fail(absl::FailedPreconditionError("the files have different tensors"), kExitMismatch);
  }
  for (const auto& [name, view] : (*first)->tensors()) {
    const auto other = (*second)->tensors().find(name);
    if (other == (*second)->tensors().end()) {
      return Fail(
          absl::FailedPreconditionError(absl::StrCat(name, " is missing in ", options.second)),
          kExitMismatch);
    }
    if (const absl::Status status = CompareTensor(name, view, other->second); !status.ok()) {
      return Fail(status, kExitMismatch);
    }
  }
  std::printf("identical to the bit: %zu tensors\n", (*first)->tensors().size());
  return kExitOk;
}

}  // namespace cairn::engine
