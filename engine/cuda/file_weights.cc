// Tensors of files, put together and padded in host memory, one at a time.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/cuda/weight_source.h"
#include "engine/forward/linear_op.h"
#include "kernels/cpu/formats.h"

namespace cairn::engine {
namespace {

using kernels::RawMatrix;
using kernels::RawValue;
using kernels::WeightFormat;
using kernels::cuda::DeviceBuffer;

constexpr int64_t kFp8Block = 128;

absl::Status WrongFormat(const RawMatrix& raw, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat("a weight of ", raw.rows, " x ", raw.k, " is not ",
                                                 wanted, ", which is what the CUDA engine takes"));
}

RawMatrix VectorOf(const TensorView& tensor) {
  RawMatrix raw{FormatOf(tensor.dtype), 1, 1, tensor.bytes.data(), nullptr};
  for (const int64_t d : tensor.shape) raw.k *= d;
  return raw;
}

// The rows of `parts` below one another, as stored; then zeros.
struct HostMatrix {
  std::vector<uint8_t> values, scales;
};

absl::Status AppendBf16(const RawMatrix& raw, HostMatrix& out) {
  std::vector<uint16_t> rows(static_cast<size_t>(raw.rows * raw.k));
  for (int64_t r = 0; r < raw.rows; ++r) {
    for (int64_t i = 0; i < raw.k; ++i) {
      rows[static_cast<size_t>(r * raw.k + i)] = kernels::F32ToBf16(RawValue(raw, r, i));
    }
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(rows.data());
  out.values.insert(out.values.end(), bytes, bytes + rows.size() * sizeof(uint16_t));
  return absl::OkStatus();
}

absl::Status AppendFp8(const RawMatrix& raw, HostMatrix& out) {
  if (raw.format != WeightFormat::kFp8) return WrongFormat(raw, "FP8");
  if (out.values.size() % static_cast<size_t>(kFp8Block * raw.k) != 0) {
    return absl::InvalidArgumentError(
        "matrices of FP8 that lie in one must have a multiple of 128 outputs");
  }
  out.values.insert(out.values.end(), raw.values, raw.values + raw.rows * raw.k);
  const int64_t blocks = (raw.rows + kFp8Block - 1) / kFp8Block * (raw.k / kFp8Block);
  out.scales.insert(out.scales.end(), raw.scales, raw.scales + blocks);
  return absl::OkStatus();
}

class FileSource final : public WeightSource {
 public:
  absl::StatusOr<CudaMatrix> Matrix(const MatrixRequest& request) override {
    if (request.format == WeightFormat::kFp4) return Fp4(request);
    HostMatrix host;
    for (const LinearWeight* part : request.parts) {
      const RawMatrix raw = RawOf(*part);
      CAIRN_RETURN_IF_ERROR(request.format == WeightFormat::kFp8 ? AppendFp8(raw, host)
                                                                 : AppendBf16(raw, host));
    }
    const int64_t bytes = request.format == WeightFormat::kFp8 ? 1 : 2;
    host.values.resize(static_cast<size_t>(request.n * request.k * bytes), 0);
    CudaMatrix matrix;
    CAIRN_ASSIGN_OR_RETURN(matrix.values, DeviceBuffer<uint8_t>::Of(host.values));
    if (request.format == WeightFormat::kFp8) {
      const int64_t blocks = (request.n + kFp8Block - 1) / kFp8Block * (request.k / kFp8Block);
      host.scales.resize(static_cast<size_t>(blocks), 127);
      CAIRN_ASSIGN_OR_RETURN(matrix.scales, DeviceBuffer<uint8_t>::Of(host.scales));
    }
    matrix.SetView(request);
    return matrix;
  }

  absl::StatusOr<DeviceBuffer<float>> Floats(const TensorView& tensor, int64_t count,
                                             float padding) override {
    const RawMatrix raw = VectorOf(tensor);
    std::vector<float> values(static_cast<size_t>(count), padding);
    for (int64_t i = 0; i < std::min(raw.k, count); ++i) {
      values[static_cast<size_t>(i)] = RawValue(raw, 0, i);
    }
    return DeviceBuffer<float>::Of(values);
  }

  absl::StatusOr<DeviceBuffer<uint16_t>> Bf16(const TensorView& tensor, int64_t count,
                                              bool) override {
    const RawMatrix raw = VectorOf(tensor);
    std::vector<uint16_t> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      values[static_cast<size_t>(i)] = kernels::F32ToBf16(RawValue(raw, 0, i));
    }
    return DeviceBuffer<uint16_t>::Of(values);
  }

  absl::StatusOr<DeviceBuffer<int32_t>> Table(const TensorView& tensor, int64_t count,
                                              int64_t experts) override {
    const size_t size = static_cast<size_t>(DTypeBytes(tensor.dtype));
    std::vector<int32_t> ids(static_cast<size_t>(count));
    for (size_t i = 0; i < ids.size(); ++i) {
      int64_t wide = 0;  // little-endian
      std::memcpy(&wide, tensor.bytes.data() + i * size, size);
      if (wide < 0 || wide >= experts) {
        return absl::InvalidArgumentError(
            absl::StrCat("ffn.gate.tid2eid names expert ", wide, "; the model has ", experts));
      }
      ids[i] = static_cast<int32_t>(wide);
    }
    return DeviceBuffer<int32_t>::Of(ids);
  }

 private:
  static absl::StatusOr<CudaMatrix> Fp4(const MatrixRequest& request) {
    CAIRN_ASSIGN_OR_RETURN(Fp4Packer packer, Fp4Packer::Create(request));
    const size_t each = request.parts.size() / static_cast<size_t>(request.count);
    for (int64_t i = 0; i < request.count; ++i) {
      std::vector<uint8_t> values, scales;
      for (size_t p = 0; p < each; ++p) {
        const RawMatrix raw = RawOf(*request.parts[static_cast<size_t>(i) * each + p]);
        if (raw.format != WeightFormat::kFp4) return WrongFormat(raw, "FP4");
        values.insert(values.end(), raw.values, raw.values + raw.rows * raw.k / 2);
        scales.insert(scales.end(), raw.scales, raw.scales + raw.rows * raw.k / 32);
      }
      CAIRN_RETURN_IF_ERROR(packer.values().Write(values));
      CAIRN_RETURN_IF_ERROR(packer.scales().Write(scales));
      CAIRN_RETURN_IF_ERROR(packer.Pack(i));
    }
    return std::move(packer).Take();
  }
};

}  // namespace

std::unique_ptr<WeightSource> FileWeightSource() { return std::make_unique<FileSource>(); }

}  // namespace cairn::engine
