#include "kernels/cuda/tensor_map.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {
namespace {

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) &&
              alignof(TensorMap) >= alignof(CUtensorMap));

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver is found through the runtime, so that programs start where there is none.
absl::StatusOr<Encode> FindEncode() {
  CAIRN_RETURN_IF_ERROR(DevicePresent());
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                  cudaEnableDefault, &result),
                 "looking for cuTensorMapEncodeTiled"));
  if (result != cudaDriverEntryPointSuccess || found == nullptr) {
    return absl::UnavailableError("the CUDA driver has no cuTensorMapEncodeTiled: it is too old");
  }
  return reinterpret_cast<Encode>(found);
}

CUtensorMapDataType TypeOf(TensorElement element) {
  switch (element) {
    case TensorElement::kBf16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case TensorElement::kF32:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    case TensorElement::kByte:
      break;
  }
  return CU_TENSOR_MAP_DATA_TYPE_UINT8;
}

}  // namespace

absl::StatusOr<TensorMap> MakeTensorMap(const TensorBoxes& boxes) {
  static const absl::StatusOr<Encode>* const encode = new absl::StatusOr<Encode>(FindEncode());
  CAIRN_RETURN_IF_ERROR(encode->status());
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(boxes.columns),
                               static_cast<cuuint64_t>(boxes.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(boxes.row_bytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(boxes.box_columns),
                             static_cast<cuuint32_t>(boxes.box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  CUtensorMap map;
  const CUresult result =
      (**encode)(&map, TypeOf(boxes.element), 2, const_cast<void*>(boxes.data), sizes, strides, box,
                 steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                 boxes.swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("no tensor map (CUDA error ", static_cast<int>(result), ") for ", boxes.rows,
                     " x ", boxes.columns, " elements in rows of ", boxes.row_bytes, " bytes at ",
                     absl::Hex(reinterpret_cast<uintptr_t>(boxes.data)), ", boxes ", boxes.box_rows,
                     " x ", boxes.box_columns));
  }
  TensorMap out;
  std::memcpy(out.opaque, &map, sizeof(map));
  return out;
}

}  // namespace cairn::kernels::cuda
