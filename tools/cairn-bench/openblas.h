// openblas.h: OpenBLAS as a rival, where it is installed (Debian: libopenblas0-pthread). It is
// looked for when it is asked for, so nothing here is built against it.
//
// Threads:   one caller; OpenBLAS has threads of its own.
// Errors:    NOT_FOUND when it is not installed.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_OPENBLAS_H_
#define CAIRN_TOOLS_CAIRN_BENCH_OPENBLAS_H_

#include "store/base/status.h"

namespace cairn::bench {

class OpenBlas {
 public:
  static absl::StatusOr<OpenBlas> Load();

  void SetThreads(int threads) const { set_threads_(threads); }
  // y [m, n] = x [m, k] . w [n, k]^T, all F32 and row after row.
  void Multiply(int m, int n, int k, const float* x, const float* w, float* y) const;

 private:
  using Sgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                         const float* a, int lda, const float* b, int ldb, float beta, float* c,
                         int ldc);
  Sgemm sgemm_ = nullptr;
  void (*set_threads_)(int) = nullptr;
};

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_OPENBLAS_H_
