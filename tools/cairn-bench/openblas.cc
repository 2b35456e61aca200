#include "tools/cairn-bench/openblas.h"

#include <dlfcn.h>

#include <cstdlib>

namespace cairn::bench {
namespace {

// From cblas.h.
constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;

}  // namespace

absl::StatusOr<OpenBlas> OpenBlas::Load() {
  // Debian's release takes processors newer than itself for ones without AVX.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) {
    ::setenv("OPENBLAS_CORETYPE", "SkylakeX", /*overwrite=*/0);
  }
  // Never closed: its threads do not end.
  void* library = ::dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::NotFoundError("OpenBLAS: not installed (Debian's libopenblas0-pthread)");
  }
  OpenBlas blas;
  blas.sgemm_ = reinterpret_cast<Sgemm>(::dlsym(library, "cblas_sgemm"));
  blas.set_threads_ = reinterpret_cast<void (*)(int)>(::dlsym(library, "openblas_set_num_threads"));
  if (blas.sgemm_ == nullptr || blas.set_threads_ == nullptr) {
    return absl::NotFoundError("OpenBLAS: libopenblas.so.0 lacks cblas_sgemm");
  }
  return blas;
}

void OpenBlas::Multiply(int m, int n, int k, const float* x, const float* w, float* y) const {
  sgemm_(kRowMajor, kNoTrans, kTrans, m, n, k, 1.0f, x, k, w, k, 0.0f, y, n);
}

}  // namespace cairn::bench
