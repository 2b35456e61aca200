// The model's linears on the GPU: many rows beside cuBLASLt, few rows beside what the memory gives.
// Shapes are DeepSeek-V4-Flash's.
#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/linear.h"
#include "tools/cairn-bench/cublaslt.h"
#include "tools/cairn-bench/gpu_benches.h"
#include "tools/cairn-bench/gpu_graph.h"
#include "tools/cairn-bench/gpu_inputs.h"
#include "tools/cairn-bench/gpu_timing.h"

namespace cairn::bench {
namespace {

using kernels::WeightFormat;
using kernels::cuda::Bf16Rows;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::DeviceMatrix;
using kernels::cuda::LinearOutput;
using kernels::cuda::QuantisedRows;
using kernels::cuda::ScaleCount;
using kernels::cuda::ScaleStride;
using kernels::cuda::Stream;

struct Shape {
  const char* name;
  int64_t n, k;
};
constexpr Shape kFp8Shapes[] = {
    {"wq-b", 32768, 1024}, {"wo-b", 4096, 8192}, {"w2", 4096, 2048}, {"wq-a", 1024, 4096}};
constexpr Shape kBf16Shapes[] = {{"compressor", 1024, 4096}, {"head", 129280, 4096}};

// Several times the last cache (60 MiB).
constexpr int64_t kStreamBytes = 256 << 20;

// A product with `copies` of W in turn, so that few rows read it from memory.
struct Product {
  Shape shape = {};
  WeightFormat format = WeightFormat::kFp8;
  int64_t rows = 0, copies = 1;
  DeviceBuffer<uint8_t> w, w_scales, x;
  DeviceBuffer<float> x_scales;
  DeviceBuffer<uint16_t> y;

  int64_t value_bytes() const { return format == WeightFormat::kBf16 ? 2 : 1; }
  int64_t w_bytes() const { return shape.n * shape.k * value_bytes(); }
  const uint8_t* weights(int64_t i) const { return w.get() + i % copies * w_bytes(); }
  double flops() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(shape.n) *
           static_cast<double>(shape.k);
  }
  // Each input read once, each output written once.
  double bytes() const {
    return static_cast<double>(w_bytes() + rows * shape.k * value_bytes() + rows * shape.n * 2);
  }

  absl::Status Ours(Stream stream, int64_t i) const {
    const DeviceMatrix matrix{format, shape.n, shape.k, 1, weights(i), w_scales.get()};
    const LinearOutput to(y.get(), shape.n);
    if (format == WeightFormat::kBf16) {
      const Bf16Rows from{reinterpret_cast<const uint16_t*>(x.get()), rows, shape.k};
      return kernels::cuda::Linear(stream, matrix, from, to);
    }
    const QuantisedRows from{x.get(), x_scales.get(), rows, shape.k, ScaleStride(rows)};
    return kernels::cuda::Linear(stream, matrix, from, to);
  }
};

absl::StatusOr<std::shared_ptr<Product>> MakeProduct(const Shape& shape, WeightFormat format,
                                                     int64_t rows, int64_t copies) {
  const auto p = std::make_shared<Product>();
  p->shape = shape;
  p->format = format;
  p->rows = rows;
  p->copies = copies;
  CAIRN_ASSIGN_OR_RETURN(p->w, RandomWeights(format, p->w_bytes() * copies));
  CAIRN_ASSIGN_OR_RETURN(p->x, RandomWeights(format, rows * shape.k * p->value_bytes()));
  CAIRN_ASSIGN_OR_RETURN(p->y, DeviceBuffer<uint16_t>::Create(static_cast<size_t>(rows * shape.n)));
  if (format == WeightFormat::kBf16) return p;
  const std::vector<float> ones(static_cast<size_t>(ScaleCount(rows, shape.k)), 1.0f);
  CAIRN_ASSIGN_OR_RETURN(p->x_scales, DeviceBuffer<float>::Of(ones));
  const std::vector<uint8_t> scales(static_cast<size_t>((shape.n + 127) / 128 * (shape.k / 128)),
                                    uint8_t{127});
  CAIRN_ASSIGN_OR_RETURN(p->w_scales, DeviceBuffer<uint8_t>::Of(scales));
  return p;
}

constexpr int64_t kLaunches = 32;

absl::StatusOr<Prepared> PrepareMany(const Shape& shape, WeightFormat format, int64_t rows) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Product> p, MakeProduct(shape, format, rows, 1));
  Prepared prepared;
  prepared.contenders.push_back(
      {"Linear", Role::kOurs, [p]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(
             const double seconds,
             SecondsInGraph(kLaunches, [&](Stream s, int64_t i) { return p->Ours(s, i); }));
         return p->flops() / seconds * 1e-12;
       }});
  const absl::StatusOr<CublasLt> blas = CublasLt::Load();
  if (!blas.ok()) {
    prepared.left_out.push_back(std::string(blas.status().message()));
    return prepared;
  }
  const BlasInputs inputs = format == WeightFormat::kBf16 ? BlasInputs::kBf16 : BlasInputs::kFp8;
  CAIRN_ASSIGN_OR_RETURN(const CublasLt::Product product,
                         blas->Prepare({inputs, rows, shape.n, shape.k}));
  prepared.contenders.push_back(
      {"cuBLASLt", Role::kLimit, [p, product]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(const double seconds,
                                SecondsInGraph(kLaunches, [&](Stream s, int64_t i) {
                                  return product(s, p->x.get(), p->weights(i), p->y.get());
                                }));
         return p->flops() / seconds * 1e-12;
       }});
  return prepared;
}

absl::StatusOr<Prepared> PrepareFew(const Shape& shape, WeightFormat format, int64_t rows) {
  const int64_t value_bytes = format == WeightFormat::kBf16 ? 2 : 1;
  const int64_t copies = std::max<int64_t>(kStreamBytes / (shape.n * shape.k * value_bytes), 1);
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Product> p,
                         MakeProduct(shape, format, rows, copies));
  Prepared prepared;
  prepared.contenders.push_back(
      {"Linear", Role::kOurs, [p]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(const double seconds,
                                SecondsInGraph(std::max(p->copies, kLaunches),
                                               [&](Stream s, int64_t i) { return p->Ours(s, i); }));
         return p->bytes() / seconds * 1e-9;
       }});
  CAIRN_ASSIGN_OR_RETURN(Contender copy, DeviceCopyLimit());
  prepared.contenders.push_back(std::move(copy));
  return prepared;
}

const char* NameOf(WeightFormat format) { return format == WeightFormat::kBf16 ? "bf16" : "fp8"; }

void AddMany(std::vector<Bench>& benches, const Shape& shape, WeightFormat format, int64_t rows) {
  benches.push_back(
      {.name = absl::StrCat("gpu-linear-", NameOf(format), "-", shape.name, "-", rows),
       .what = absl::StrCat(rows, " rows, ", shape.k, " to ", shape.n),
       .unit = "TFLOP/s",
       .ratio_bound = format == WeightFormat::kFp8 ? 0.7 : 0.0,
       .prepare = [&shape, format, rows](const BenchContext&) {
         return PrepareMany(shape, format, rows);
       }});
}

void AddFew(std::vector<Bench>& benches, const Shape& shape, WeightFormat format, int64_t rows) {
  benches.push_back(
      {.name = absl::StrCat("gpu-linear-few-", NameOf(format), "-", shape.name, "-", rows),
       .what = absl::StrCat(rows, " rows, ", shape.k, " to ", shape.n,
                            "; bytes of W, x and y, each once"),
       .unit = "GB/s",
       .prepare = [&shape, format, rows](const BenchContext&) {
         return PrepareFew(shape, format, rows);
       }});
}

}  // namespace

void AddGpuLinearBenches(std::vector<Bench>& benches) {
  for (const Shape& shape : kFp8Shapes) {
    for (const int64_t rows : {4096, 8192}) AddMany(benches, shape, WeightFormat::kFp8, rows);
    for (const int64_t rows : {1, 16, 64}) AddFew(benches, shape, WeightFormat::kFp8, rows);
  }
  AddMany(benches, kBf16Shapes[0], WeightFormat::kBf16, 4096);
  for (const Shape& shape : kBf16Shapes) AddFew(benches, shape, WeightFormat::kBf16, 1);
}

}  // namespace cairn::bench
