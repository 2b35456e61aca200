// cuda_status.h: what a CUDA call said, as a status. Only for sources that are built where CUDA is.
//
// Threads: pure functions.
// Errors:  RESOURCE_EXHAUSTED: no such memory; UNAVAILABLE: no driver or no GPU; INTERNAL: anything
//          else. A device that has said INTERNAL of work on it is lost to the process.
#ifndef CAIRN_STORE_DEVICE_CUDA_STATUS_H_
#define CAIRN_STORE_DEVICE_CUDA_STATUS_H_

#include "absl/strings/string_view.h"
#include "store/base/status.h"

namespace cairn::store {

// `error` is a cudaError_t; `what` says what was being done.
absl::Status CudaStatus(int error, absl::string_view what);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_CUDA_STATUS_H_
