// Random weights made on the device: uniform codes and scales by which products keep their size.
// For benchmarks: what matters is the shape, and that values are finite and not all alike.
#include <utility>

#include "engine/cuda/weight_source.h"

namespace cairn::engine {
namespace {

using kernels::WeightFormat;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::LaunchStatus;

constexpr int kThreads = 256;
constexpr int kBlocks = 2048;

enum class Kind : int { kBytes, kFp8, kBf16, kF32 };

// SplitMix64's finaliser: a word for every index.
__device__ uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Eight bytes a word. BF16 and F32: uniform in +-scale around `middle`.
__global__ void FillKernel(Kind kind, uint64_t seed, float scale, float middle, uint64_t* out,
                           int64_t words) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < words;
       i += step) {
    uint64_t word = Mix(seed + static_cast<uint64_t>(i));
    const auto value = [&](int lane, int bits) {
      const uint32_t part = static_cast<uint32_t>(word >> (lane * bits)) & 0xffffu;
      return middle + scale * (static_cast<float>(part) * 0x1p-15f - 1.0f);
    };
    if (kind == Kind::kFp8) {
      word &= 0xf7f7f7f7f7f7f7f7ull;  // no code is NaN's
    } else if (kind == Kind::kBf16) {
      uint64_t made = 0;
      for (int lane = 0; lane < 4; ++lane) {
        made |= static_cast<uint64_t>(__float_as_uint(value(lane, 16)) >> 16) << (lane * 16);
      }
      word = made;
    } else if (kind == Kind::kF32) {
      word = static_cast<uint64_t>(__float_as_uint(value(0, 16))) |
             static_cast<uint64_t>(__float_as_uint(value(1, 16))) << 32;
    }
    out[i] = word;
  }
}

class RandomSource final : public WeightSource {
 public:
  explicit RandomSource(uint64_t seed) : seed_(seed) {}

  absl::StatusOr<CudaMatrix> Matrix(const MatrixRequest& request) override {
    if (request.format == WeightFormat::kFp4) return Fp4(request);
    CudaMatrix matrix;
    const size_t values = static_cast<size_t>(request.n * request.k * request.count);
    const bool fp8 = request.format == WeightFormat::kFp8;
    // Sums over k of products with values of about 1 have a size of about 1.
    const float size = 1.7f / sqrtf(static_cast<float>(request.k));
    CAIRN_ASSIGN_OR_RETURN(matrix.values, DeviceBuffer<uint8_t>::Create(values * (fp8 ? 1 : 2)));
    CAIRN_RETURN_IF_ERROR(Fill(fp8 ? Kind::kFp8 : Kind::kBf16, size, 0.0f, matrix.values.get(),
                               matrix.values.count()));
    if (fp8) {
      const int64_t rows = (request.n * request.count + 127) / 128;
      CAIRN_ASSIGN_OR_RETURN(matrix.scales, DeviceBuffer<uint8_t>::Create(
                                                static_cast<size_t>(rows * (request.k / 128))));
      // Uniform codes have a root mean square of about 2^6.
      CAIRN_RETURN_IF_ERROR(matrix.scales.Fill(127 - 6 - Log2(request.k) / 2));
    }
    matrix.SetView(request);
    return matrix;
  }

  absl::StatusOr<DeviceBuffer<float>> Floats(const TensorView&, int64_t count, float) override {
    CAIRN_ASSIGN_OR_RETURN(DeviceBuffer<float> made,
                           DeviceBuffer<float>::Create(static_cast<size_t>((count + 1) / 2 * 2)));
    CAIRN_RETURN_IF_ERROR(Fill(Kind::kF32, 0.02f, 0.0f, made.get(), made.count() * sizeof(float)));
    return made;
  }

  absl::StatusOr<DeviceBuffer<uint16_t>> Bf16(const TensorView&, int64_t count,
                                              bool norm) override {
    CAIRN_ASSIGN_OR_RETURN(DeviceBuffer<uint16_t> made, DeviceBuffer<uint16_t>::Create(
                                                            static_cast<size_t>((count + 3) / 4 * 4)));
    CAIRN_RETURN_IF_ERROR(Fill(Kind::kBf16, norm ? 0.1f : 1.7f, norm ? 1.0f : 0.0f, made.get(),
                               made.count() * sizeof(uint16_t)));
    return made;
  }

  absl::StatusOr<DeviceBuffer<int32_t>> Table(const TensorView&, int64_t count,
                                              int64_t experts) override {
    std::vector<int32_t> ids(static_cast<size_t>(count));
    for (size_t i = 0; i < ids.size(); ++i) {
      // A row's are neighbours, so that no expert comes twice.
      ids[i] = static_cast<int32_t>((i * 7919 / 64 + i) % static_cast<size_t>(experts));
    }
    return DeviceBuffer<int32_t>::Of(ids);
  }

 private:
  static int Log2(int64_t value) {
    int log = 0;
    while ((value >>= 1) != 0) ++log;
    return log;
  }

  absl::Status Fill(Kind kind, float scale, float middle, void* out, size_t bytes) {
    seed_ = seed_ * 0x5851f42d4c957f2dull + 0x14057b7ef767814full;
    FillKernel<<<kBlocks, kThreads>>>(kind, seed_, scale, middle, static_cast<uint64_t*>(out),
                                      static_cast<int64_t>(bytes / sizeof(uint64_t)));
    return LaunchStatus("random weights");
  }

  absl::StatusOr<CudaMatrix> Fp4(const MatrixRequest& request) {
    CAIRN_ASSIGN_OR_RETURN(Fp4Packer packer, Fp4Packer::Create(request));
    // Uniform codes have a root mean square of about 3.
    CAIRN_RETURN_IF_ERROR(packer.scales().Fill(127 - 2 - Log2(request.k) / 2));
    for (int64_t i = 0; i < request.count; ++i) {
      CAIRN_RETURN_IF_ERROR(
          Fill(Kind::kBytes, 0.0f, 0.0f, packer.values().get(), packer.values().count()));
      CAIRN_RETURN_IF_ERROR(packer.Pack(i));
    }
    return std::move(packer).Take();
  }

  uint64_t seed_;
};

}  // namespace

std::unique_ptr<WeightSource> RandomWeightSource(uint64_t seed) {
  return std::make_unique<RandomSource>(seed);
}

}  // namespace cairn::engine
