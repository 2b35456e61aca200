// tensor_map.h: what the bulk copy engine (TMA) must know of a matrix in device memory to bring
// boxes of it into shared memory: CUDA's CUtensorMap without CUDA's headers.
//
// A matrix has `rows` rows of `columns` elements, `row_bytes` apart. A box is box_rows x
// box_columns; what of it lies outside of the matrix arrives as zeros, and its bytes are counted.
//
// Threads:   pure. A map is passed to kernels by value (__grid_constant__).
// Ownership: refers to the memory by address only.
// Errors:    INVALID_ARGUMENT: what the engine cannot do (it wants an address and a row distance
//            of whole 16 bytes, boxes of up to 256 x 256, swizzled ones 128 bytes wide).
//            UNAVAILABLE: no driver.
#ifndef CAIRN_KERNELS_CUDA_TENSOR_MAP_H_
#define CAIRN_KERNELS_CUDA_TENSOR_MAP_H_

#include <cstdint>

#include "store/base/status.h"

namespace cairn::kernels::cuda {

struct alignas(128) TensorMap {
  uint64_t opaque[16] = {};
};

enum class TensorElement : uint8_t { kByte, kBf16, kF32 };

struct TensorBoxes {
  TensorElement element = TensorElement::kByte;
  const void* data = nullptr;
  int64_t rows = 0, columns = 0, row_bytes = 0;
  int64_t box_rows = 0, box_columns = 0;
  // Rows of 128 bytes whose 16-byte pieces are exchanged within 8 rows, as wgmma wants them.
  bool swizzled = false;
};

absl::StatusOr<TensorMap> MakeTensorMap(const TensorBoxes& boxes);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_TENSOR_MAP_H_
