// cublaslt.h: cuBLASLt as a rival, where it is installed. It is looked for when it is asked for
// (LD_LIBRARY_PATH), so nothing here is built against it.
//
// Threads:   one caller.
// Ownership: a product owns its descriptors and its workspace; matrices are the caller's.
// Errors:    NOT_FOUND when it is not installed, or has no algorithm for a shape.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_CUBLASLT_H_
#define CAIRN_TOOLS_CAIRN_BENCH_CUBLASLT_H_

#include <array>
#include <cstdint>
#include <functional>

#include "kernels/cuda/device.h"
#include "store/base/status.h"

namespace cairn::bench {

enum class BlasInputs : uint8_t { kFp8, kBf16 };

class CublasLt {
 public:
  static absl::StatusOr<CublasLt> Load();

  struct Shape {
    BlasInputs inputs = BlasInputs::kFp8;
    int64_t m = 0, n = 0, k = 0;
  };
  // y [m, n] = x [m, k] . w [n, k]^T: all row after row, y BF16, one scale (1) for each of x and w;
  // FP8 sums in the tensor cores alone (fast accumulation). The heuristic's first algorithm.
  using Product =
      std::function<absl::Status(kernels::cuda::Stream, const void* x, const void* w, uint16_t* y)>;
  absl::StatusOr<Product> Prepare(const Shape& shape) const;

 private:
  enum Function {
    kCreate,
    kDescCreate,
    kDescSet,
    kLayoutCreate,
    kPrefCreate,
    kPrefSet,
    kHeuristic,
    kMatmul,
    kFunctions
  };
  static constexpr std::array<const char*, kFunctions> kNames = {
      "cublasLtCreate",
      "cublasLtMatmulDescCreate",
      "cublasLtMatmulDescSetAttribute",
      "cublasLtMatrixLayoutCreate",
      "cublasLtMatmulPreferenceCreate",
      "cublasLtMatmulPreferenceSetAttribute",
      "cublasLtMatmulAlgoGetHeuristic",
      "cublasLtMatmul"};

  template <typename... Args>
  absl::Status Call(Function function, Args... args) const;

  std::array<void*, kFunctions> functions_ = {};
  void* handle_ = nullptr;
};

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_CUBLASLT_H_
