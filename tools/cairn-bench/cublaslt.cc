#include "tools/cairn-bench/cublaslt.h"

#include <dlfcn.h>

#include <memory>

#include "absl/strings/str_cat.h"

namespace cairn::bench {
namespace {

using kernels::cuda::DeviceBuffer;
using kernels::cuda::Stream;

// From cublasLt.h, cublas_api.h and library_types.h.
constexpr int kCompute32F = 68, kOpN = 0, kOpT = 1;
constexpr int kR32F = 0, kR16Bf = 14, kR8E4m3 = 28;
constexpr int kDescTransA = 3, kDescTransB = 4, kDescFastAccumulation = 25;
constexpr int kPrefMaxWorkspace = 1;

struct Algorithm {
  uint64_t data[8];
};
struct HeuristicResult {
  Algorithm algorithm;
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};

constexpr size_t kWorkspaceBytes = 64 << 20;

// Kept for as long as the program runs, as the library is.
struct Plan {
  void *desc = nullptr, *w = nullptr, *x = nullptr, *y = nullptr;
  HeuristicResult chosen = {};
  DeviceBuffer<uint8_t> workspace;
};

}  // namespace

absl::StatusOr<CublasLt> CublasLt::Load() {
  // Never closed: graphs may hold its kernels.
  void* const library = ::dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::NotFoundError("cuBLASLt: no libcublasLt.so.13 on LD_LIBRARY_PATH");
  }
  CublasLt blas;
  for (size_t i = 0; i < kFunctions; ++i) {
    blas.functions_[i] = ::dlsym(library, kNames[i]);
    if (blas.functions_[i] == nullptr) {
      return absl::NotFoundError(absl::StrCat("cuBLASLt: libcublasLt.so.13 lacks ", kNames[i]));
    }
  }
  CAIRN_RETURN_IF_ERROR(blas.Call(kCreate, &blas.handle_));
  return blas;
}

template <typename... Args>
absl::Status CublasLt::Call(Function function, Args... args) const {
  const int status = reinterpret_cast<int (*)(Args...)>(functions_[function])(args...);
  if (status == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(kNames[function], ": cuBLAS status ", status));
}

absl::StatusOr<CublasLt::Product> CublasLt::Prepare(const Shape& shape) const {
  const int type = shape.inputs == BlasInputs::kFp8 ? kR8E4m3 : kR16Bf;
  const auto m = static_cast<uint64_t>(shape.m), n = static_cast<uint64_t>(shape.n),
             k = static_cast<uint64_t>(shape.k);
  const auto plan = std::make_shared<Plan>();
  // Column after column: y^T [n, m] = (w^T)^T . x^T.
  CAIRN_RETURN_IF_ERROR(Call(kDescCreate, &plan->desc, kCompute32F, kR32F));
  CAIRN_RETURN_IF_ERROR(Call(kDescSet, plan->desc, kDescTransA, &kOpT, sizeof(kOpT)));
  CAIRN_RETURN_IF_ERROR(Call(kDescSet, plan->desc, kDescTransB, &kOpN, sizeof(kOpN)));
  const int8_t fast = shape.inputs == BlasInputs::kFp8 ? 1 : 0;
  CAIRN_RETURN_IF_ERROR(Call(kDescSet, plan->desc, kDescFastAccumulation, &fast, sizeof(fast)));
  CAIRN_RETURN_IF_ERROR(Call(kLayoutCreate, &plan->w, type, k, n, shape.k));
  CAIRN_RETURN_IF_ERROR(Call(kLayoutCreate, &plan->x, type, k, m, shape.k));
  CAIRN_RETURN_IF_ERROR(Call(kLayoutCreate, &plan->y, kR16Bf, n, m, shape.n));
  void* preference = nullptr;
  CAIRN_RETURN_IF_ERROR(Call(kPrefCreate, &preference));
  CAIRN_RETURN_IF_ERROR(
      Call(kPrefSet, preference, kPrefMaxWorkspace, &kWorkspaceBytes, sizeof(kWorkspaceBytes)));
  int found = 0;
  CAIRN_RETURN_IF_ERROR(Call(kHeuristic, handle_, plan->desc, plan->w, plan->x, plan->y, plan->y,
                             preference, 1, &plan->chosen, &found));
  if (found == 0) return absl::NotFoundError("cuBLASLt: no algorithm for the shape");
  CAIRN_ASSIGN_OR_RETURN(plan->workspace, DeviceBuffer<uint8_t>::Create(kWorkspaceBytes));
  return [plan, blas = *this](Stream stream, const void* x, const void* w, uint16_t* y) {
    const float one = 1.0f, zero = 0.0f;
    return blas.Call(kMatmul, blas.handle_, plan->desc, &one, w, plan->w, x, plan->x, &zero, y,
                     plan->y, y, plan->y, &plan->chosen.algorithm, plan->workspace.get(),
                     kWorkspaceBytes, stream);
  };
}

}  // namespace cairn::bench
