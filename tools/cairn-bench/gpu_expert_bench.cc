// The products of routed experts on the GPU (FP4 weights, 6 of 256 experts a token), and the
// rounding of their inputs. Shapes are DeepSeek-V4-Flash's.
#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/packed_fp4.h"
#include "store/base/random.h"
#include "tools/cairn-bench/cublaslt.h"
#include "tools/cairn-bench/gpu_benches.h"
#include "tools/cairn-bench/gpu_graph.h"
#include "tools/cairn-bench/gpu_inputs.h"
#include "tools/cairn-bench/gpu_timing.h"

namespace cairn::bench {
namespace {

using kernels::WeightFormat;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::DeviceMatrix;
using kernels::cuda::ExpertRows;
using kernels::cuda::LinearOutput;
using kernels::cuda::QuantisedRows;
using kernels::cuda::ScaleCount;
using kernels::cuda::ScaleStride;
using kernels::cuda::Stream;

constexpr int64_t kExperts = 256, kExpertsAToken = 6;
// Gate and up side by side.
constexpr int64_t kN = 4096, kK = 4096;
// Routings that are taken in turn, so that few rows find no weights in the cache.
constexpr int64_t kRoutings = 16;

struct Experts {
  DeviceBuffer<uint8_t> blocks, scales, codes;
  DeviceBuffer<float> x_scales;
  DeviceBuffer<uint16_t> y;
  std::vector<DeviceBuffer<int32_t>> offsets;
  std::vector<DeviceBuffer<uint8_t>> scratch;
  int64_t rows = 0;
  int64_t taken = 0;  // experts with rows, over all routings

  DeviceMatrix matrix() const {
    return {WeightFormat::kFp4, kN, kK, kExperts, blocks.get(), scales.get()};
  }
  ExpertRows Routing(int64_t i) const {
    const auto at = static_cast<size_t>(i % kRoutings);
    return {offsets[at].get(), kExperts, rows, scratch[at].get()};
  }
  absl::Status Multiply(Stream stream, int64_t i) const {
    return ExpertLinear(stream, matrix(),
                        {codes.get(), x_scales.get(), rows, kK, ScaleStride(rows)}, Routing(i),
                        LinearOutput(y.get(), kN));
  }
};

absl::Status PackWeights(Experts& experts) {
  constexpr int64_t kRows = kExperts * kN;
  CAIRN_ASSIGN_OR_RETURN(const DeviceBuffer<uint8_t> values,
                         RandomWeights(WeightFormat::kFp4, kRows * kK / 2));
  SeededRandom random(3);
  std::vector<uint8_t> piece(1 << 20);
  for (uint8_t& scale : piece) scale = static_cast<uint8_t>(116 + random.Next() % 4);
  CAIRN_ASSIGN_OR_RETURN(const DeviceBuffer<uint8_t> value_scales,
                         Repeated(piece, kRows * kK / 32));
  const int64_t blocks = kernels::cuda::Fp4Blocks(kRows, kK);
  CAIRN_ASSIGN_OR_RETURN(
      experts.blocks,
      DeviceBuffer<uint8_t>::Create(static_cast<size_t>(blocks * kernels::cuda::kFp4BlockBytes)));
  CAIRN_ASSIGN_OR_RETURN(experts.scales,
                         DeviceBuffer<uint8_t>::Create(static_cast<size_t>(blocks)));
  CAIRN_ASSIGN_OR_RETURN(const DeviceBuffer<int32_t> unfit, DeviceBuffer<int32_t>::Create(1));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::PackFp4(nullptr, values.get(), value_scales.get(), kRows, kK,
                                               experts.blocks.get(), experts.scales.get(),
                                               unfit.get()));
  CAIRN_ASSIGN_OR_RETURN(const std::vector<int32_t> told, unfit.Read());
  return kernels::cuda::Fp4Fits(told[0]);
}

// Each token's experts are distinct and evenly chosen.
absl::Status AddRouting(Experts& experts, int64_t tokens, uint64_t seed) {
  SeededRandom random(seed);
  std::vector<int32_t> counts(kExperts);
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<size_t> chosen;
    while (std::ssize(chosen) < kExpertsAToken) {
      const size_t e = random.Next() % kExperts;
      if (std::find(chosen.begin(), chosen.end(), e) == chosen.end()) chosen.push_back(e);
    }
    for (const size_t e : chosen) ++counts[e];
  }
  std::vector<int32_t> offsets = {0};
  for (const int32_t count : counts) {
    experts.taken += count > 0 ? 1 : 0;
    offsets.push_back(offsets.back() + count);
  }
  CAIRN_ASSIGN_OR_RETURN(DeviceBuffer<int32_t> device, DeviceBuffer<int32_t>::Of(offsets));
  CAIRN_ASSIGN_OR_RETURN(DeviceBuffer<uint8_t> scratch,
                         DeviceBuffer<uint8_t>::Create(static_cast<size_t>(
                             kernels::cuda::ExpertScratchBytes(experts.rows, kExperts))));
  experts.offsets.push_back(std::move(device));
  experts.scratch.push_back(std::move(scratch));
  return CutExpertRows(nullptr, experts.Routing(static_cast<int64_t>(seed)));
}

absl::StatusOr<std::shared_ptr<Experts>> MakeExperts(int64_t tokens) {
  const auto experts = std::make_shared<Experts>();
  experts->rows = tokens * kExpertsAToken;
  CAIRN_RETURN_IF_ERROR(PackWeights(*experts));
  CAIRN_ASSIGN_OR_RETURN(experts->codes, RandomWeights(WeightFormat::kFp8, experts->rows * kK));
  const std::vector<float> ones(static_cast<size_t>(ScaleCount(experts->rows, kK)), 1.0f);
  CAIRN_ASSIGN_OR_RETURN(experts->x_scales, DeviceBuffer<float>::Of(ones));
  CAIRN_ASSIGN_OR_RETURN(experts->y,
                         DeviceBuffer<uint16_t>::Create(static_cast<size_t>(experts->rows * kN)));
  for (int64_t i = 0; i < kRoutings; ++i) {
    CAIRN_RETURN_IF_ERROR(AddRouting(*experts, tokens, static_cast<uint64_t>(i)));
  }
  return experts;
}

// Bytes of the experts that have rows, and of rows in and out.
absl::StatusOr<Prepared> PrepareFew(int64_t tokens) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Experts> e, MakeExperts(tokens));
  const double weights =
      static_cast<double>(e->taken) / static_cast<double>(kRoutings) *
      static_cast<double>(kernels::cuda::Fp4Blocks(kN, kK) * kernels::cuda::kFp4BlockBytes);
  const double bytes = weights + static_cast<double>(e->rows * (kK + 2 * kN));
  Prepared prepared;
  prepared.contenders.push_back(
      {"ExpertLinear", Role::kOurs, [e, bytes]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(
             const double seconds,
             SecondsInGraph(kRoutings, [&](Stream s, int64_t i) { return e->Multiply(s, i); }));
         return bytes / seconds * 1e-9;
       }});
  CAIRN_ASSIGN_OR_RETURN(Contender copy, DeviceCopyLimit());
  prepared.contenders.push_back(std::move(copy));
  return prepared;
}

absl::StatusOr<Prepared> PrepareMany(int64_t tokens) {
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<Experts> e, MakeExperts(tokens));
  const double flops =
      2.0 * static_cast<double>(e->rows) * static_cast<double>(kN) * static_cast<double>(kK);
  Prepared prepared;
  prepared.contenders.push_back(
      {"ExpertLinear", Role::kOurs, [e, flops]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(
             const double seconds,
             SecondsInGraph(kRoutings, [&](Stream s, int64_t i) { return e->Multiply(s, i); }));
         return flops / seconds * 1e-12;
       }});
  const absl::StatusOr<CublasLt> blas = CublasLt::Load();
  if (!blas.ok()) {
    prepared.left_out.push_back(std::string(blas.status().message()));
    return prepared;
  }
  CAIRN_ASSIGN_OR_RETURN(const CublasLt::Product product,
                         blas->Prepare({BlasInputs::kFp8, e->rows, kN, kK}));
  // Weights of one matrix for all rows; any bytes that are no NaN do.
  prepared.contenders.push_back(
      {"cuBLASLt, FP8, one matrix", Role::kRival, [e, product, flops]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(const double seconds,
                                SecondsInGraph(kRoutings, [&](Stream s, int64_t) {
                                  return product(s, e->codes.get(), e->codes.get(), e->y.get());
                                }));
         return flops / seconds * 1e-12;
       }});
  return prepared;
}

// ---- rounding ----

enum class Rounding { kRows, kSwiGlu };

absl::StatusOr<Prepared> PrepareRounding(Rounding rounding) {
  constexpr int64_t kRows = 32768, kWidth = 4096;
  struct Buffers {
    DeviceBuffer<uint8_t> x, codes;
    DeviceBuffer<float> scales;
  };
  const auto b = std::make_shared<Buffers>();
  const int64_t reads = rounding == Rounding::kRows ? 2 : 4;  // bytes for each code
  CAIRN_ASSIGN_OR_RETURN(b->x, RandomWeights(WeightFormat::kBf16, kRows * kWidth * reads));
  CAIRN_ASSIGN_OR_RETURN(b->codes,
                         DeviceBuffer<uint8_t>::Create(static_cast<size_t>(kRows * kWidth)));
  CAIRN_ASSIGN_OR_RETURN(
      b->scales, DeviceBuffer<float>::Create(static_cast<size_t>(ScaleCount(kRows, kWidth))));
  const double bytes = static_cast<double>(kRows * kWidth * (reads + 1) + kRows * kWidth / 32);
  Prepared prepared;
  prepared.contenders.push_back(
      {"ours", Role::kOurs, [b, rounding, bytes]() -> absl::StatusOr<double> {
         const QuantisedRows to{b->codes.get(), b->scales.get(), kRows, kWidth, kRows};
         const auto* const x = reinterpret_cast<const uint16_t*>(b->x.get());
         CAIRN_ASSIGN_OR_RETURN(const double seconds, SecondsInGraph(4, [&](Stream s, int64_t) {
                                  return rounding == Rounding::kRows
                                             ? kernels::cuda::QuantiseRows(s, x, nullptr, to)
                                             : kernels::cuda::QuantiseSwiGlu(s, x, nullptr, 10.0f,
                                                                             to);
                                }));
         return bytes / seconds * 1e-9;
       }});
  CAIRN_ASSIGN_OR_RETURN(Contender copy, DeviceCopyLimit());
  prepared.contenders.push_back(std::move(copy));
  return prepared;
}

}  // namespace

void AddGpuExpertBenches(std::vector<Bench>& benches) {
  for (const int64_t tokens : {1, 16, 64}) {
    benches.push_back({.name = absl::StrCat("gpu-experts-fp4-", tokens),
                       .what = absl::StrCat(tokens,
                                            " tokens, 6 of 256 experts each, 4096 to 4096; "
                                            "bytes of the experts taken, x and y"),
                       .unit = "GB/s",
                       .prepare = [tokens](const BenchContext&) { return PrepareFew(tokens); }});
  }
  for (const int64_t tokens : {4096, 8192}) {
    benches.push_back({.name = absl::StrCat("gpu-experts-fp4-", tokens),
                       .what = absl::StrCat(tokens, " tokens, 6 of 256 experts each, 4096 to 4096"),
                       .unit = "TFLOP/s",
                       .prepare = [tokens](const BenchContext&) { return PrepareMany(tokens); }});
  }
  benches.push_back(
      {.name = "gpu-quantise",
       .what = "32768 rows of 4096 BF16 values to FP8, bytes read and written",
       .unit = "GB/s",
       .ratio_bound = 0.8,
       .prepare = [](const BenchContext&) { return PrepareRounding(Rounding::kRows); }});
  benches.push_back(
      {.name = "gpu-quantise-swiglu",
       .what = "gate and up of 32768 rows of 4096 to FP8, bytes read and written",
       .unit = "GB/s",
       .ratio_bound = 0.8,
       .prepare = [](const BenchContext&) { return PrepareRounding(Rounding::kSwiGlu); }});
}

}  // namespace cairn::bench
