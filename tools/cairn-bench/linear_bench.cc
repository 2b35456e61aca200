// The matrix kernels: many rows beside OpenBLAS, one row beside the memory's read bandwidth, what
// more rows cost than one, and PairLinear with AMX or AVX-512's BF16 beside Linear. Shapes are
// DeepSeek-V4-Flash's.
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_path.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/large_pages.h"
#include "kernels/cpu/linear.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/openblas.h"

namespace cairn::bench {
namespace {

using kernels::CpuPath;
using kernels::PackedMatrix;
using kernels::PairPath;
using kernels::ThreadPool;
using kernels::WeightFormat;

constexpr int64_t kMeasureNanos = 400'000'000;
// Several times the last cache.
constexpr int64_t kStreamBytes = 256 << 20;

// Seconds a call, over calls that take kMeasureNanos together, after one that is not counted.
double SecondsACall(const std::function<void()>& call) {
  call();
  const int64_t start = RealClock().NowNanos();
  int64_t calls = 0, now = start;
  for (; now - start < kMeasureNanos; ++calls, now = RealClock().NowNanos()) call();
  return static_cast<double>(now - start) * 1e-9 / static_cast<double>(calls);
}

// The same with AVX2 instead, where the processor has more.
void AddNarrower(std::vector<Contender>& contenders, size_t which) {
  if (kernels::ChosenCpuPath() == CpuPath::kAvx2) return;
  const Contender ours = contenders[which];
  contenders.push_back({absl::StrCat(ours.name, ", AVX2"), Role::kRival, [ours] {
                          const CpuPath chosen = kernels::ChosenCpuPath();
                          kernels::ChooseCpuPath(CpuPath::kAvx2);
                          absl::StatusOr<double> figure = ours.measure();
                          kernels::ChooseCpuPath(chosen);
                          return figure;
                        }});
}

std::vector<float> RandomFloats(int64_t n, uint64_t seed) {
  SeededRandom random(seed);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& v : out) v = static_cast<float>(random.Next() >> 40) * 0x1p-24f - 0.5f;
  return out;
}

int64_t BytesAValue(WeightFormat format, int64_t values) {
  switch (format) {
    case WeightFormat::kF32:
      return values * 4;
    case WeightFormat::kBf16:
      return values * 2;
    case WeightFormat::kFp8:
      return values;
    case WeightFormat::kFp4:
      return values / 2;
  }
  return 0;
}

// Weights in a format, hardly any of them subnormal, as in a model: those cost a processor up to
// 150 cycles each. FP8 codes are of values spread up to the largest, but 0; F32 and BF16 are from
// 0.5 to 2, of either sign; FP4 is any bytes.
PackedMatrix RandomMatrix(WeightFormat format, int64_t n, int64_t k) {
  SeededRandom random(7);
  std::vector<uint8_t> values(static_cast<size_t>(BytesAValue(format, n * k)));
  random.Fill(values);
  uint8_t codes[256];
  for (int i = 0; i < 256; ++i) {
    const float root = i == 128 ? 1.0f : static_cast<float>(i) - 128.0f;
    codes[i] = kernels::F32ToE4m3(root * std::abs(root) * 0.02f);
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (format == WeightFormat::kFp8) values[i] = codes[values[i]];
    const bool exponent = (format == WeightFormat::kBf16 && i % 2 == 1) ||
                          (format == WeightFormat::kF32 && i % 4 == 3);
    if (exponent) values[i] = static_cast<uint8_t>((values[i] & 0x80) | 0x3f);
  }
  const std::vector<uint8_t> scales(static_cast<size_t>(n * ((k + 31) / 32)), 120);
  return PackedMatrix({format, n, k, values.data(), scales.data()}, 0, n);
}

// ---- many rows ----

struct Shape {
  const char* name;
  const char* what;
  int64_t m, n, k;
};
constexpr Shape kShapes[] = {
    {"square", "2048 x 2048 x 2048", 2048, 2048, 2048},
    {"wq-a", "512 rows, 4096 to 1024", 512, 1024, 4096},
    {"wq-b", "512 rows, 1024 to 8192 (a quarter of the heads)", 512, 8192, 1024},
    {"expert", "512 rows, 4096 to 2048", 512, 2048, 4096},
};

struct Product {
  Shape shape;
  std::vector<float> x, w, y, blas_y;
  PackedMatrix packed;
  double flops() const {
    return 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) *
           static_cast<double>(shape.k);
  }
};

// OpenBLAS sums in another order; wrong weights or rows are off by far more.
absl::Status CheckEqual(const Product& p) {
  for (size_t i = 0; i < p.y.size(); ++i) {
    if (std::abs(p.y[i] - p.blas_y[i]) > 1e-2f) {
      return absl::InternalError(
          absl::StrCat("element ", i, " is ", p.y[i], ", OpenBLAS has ", p.blas_y[i]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Prepared> PrepareProduct(const Shape& shape, int threads) {
  Prepared prepared;
  const auto p = std::make_shared<Product>();
  p->shape = shape;
  p->x = RandomFloats(shape.m * shape.k, 1);
  p->w = RandomFloats(shape.n * shape.k, 2);
  p->y.resize(static_cast<size_t>(shape.m * shape.n));
  p->blas_y.resize(p->y.size());
  p->packed = PackedMatrix({WeightFormat::kF32, shape.n, shape.k,
                            reinterpret_cast<const uint8_t*>(p->w.data()), nullptr},
                           0, shape.n);
  const auto pool = std::make_shared<ThreadPool>(threads);
  const auto ours = [p, pool] {
    kernels::Linear(*pool, p->packed, p->x.data(), p->shape.k, p->shape.m, p->y.data(), p->shape.n);
  };
  prepared.contenders.push_back({"Linear", Role::kOurs, [p, ours]() -> absl::StatusOr<double> {
                                   return p->flops() / SecondsACall(ours) * 1e-9;
                                 }});
  AddNarrower(prepared.contenders, 0);
  const absl::StatusOr<OpenBlas> blas = OpenBlas::Load();
  if (!blas.ok()) {
    prepared.left_out.push_back(std::string(blas.status().message()));
    return prepared;
  }
  const auto theirs = [p, blas = *blas, threads] {
    blas.SetThreads(threads);
    blas.Multiply(static_cast<int>(p->shape.m), static_cast<int>(p->shape.n),
                  static_cast<int>(p->shape.k), p->x.data(), p->w.data(), p->blas_y.data());
  };
  ours();
  theirs();
  CAIRN_RETURN_IF_ERROR(CheckEqual(*p));
  prepared.contenders.push_back(
      {"OpenBLAS sgemm", Role::kLimit, [p, theirs]() -> absl::StatusOr<double> {
         return p->flops() / SecondsACall(theirs) * 1e-9;
       }});
  return prepared;
}

// ---- one row, and a few ----

struct Format {
  const char* name;
  const char* what;
  WeightFormat format;
};
constexpr Format kFormats[] = {{"f32", "F32", WeightFormat::kF32},
                               {"bf16", "BF16", WeightFormat::kBf16},
                               {"fp8", "FP8 with a scale for 128 x 128", WeightFormat::kFp8},
                               {"fp4", "FP4 with a scale for 1 x 32", WeightFormat::kFp4}};
constexpr int64_t kInputs = 4096;
constexpr int64_t kRowsMax = 32;

struct Stream {
  PackedMatrix w;
  std::vector<float> x = RandomFloats(kRowsMax * kInputs, 3);
  std::vector<float> y;
  ThreadPool pool{static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u))};

  explicit Stream(WeightFormat format) {
    const int64_t n = kStreamBytes / BytesAValue(format, kInputs);
    w = RandomMatrix(format, n, kInputs);
    y.resize(static_cast<size_t>(kRowsMax * n));
  }
  double SecondsFor(int64_t rows, decltype(&kernels::Linear) product = kernels::Linear) {
    return SecondsACall([&] { product(pool, w, x.data(), kInputs, rows, y.data(), w.n()); });
  }
};

// A piece, as two streams side by side: of one, two and four the fastest on a Zen 5, by up to
// twice. Each is asked for ahead of its use, as the processor's own prefetching loses it at page
// ends.
constexpr int64_t kPieceBytes = 1 << 20;
constexpr int64_t kStreams = 2;

uint64_t ReadPiece(const uint8_t* bytes) {
  constexpr int64_t kLength = kPieceBytes / kStreams, kAhead = 1024;
  __m256i sum[kStreams] = {};
  for (int64_t i = 0; i < kLength; i += 64) {
    for (int64_t s = 0; s < kStreams; ++s) {
      const uint8_t* at = bytes + s * kLength + i;
      const auto* from = reinterpret_cast<const __m256i*>(at);
      _mm_prefetch(at + kAhead, _MM_HINT_T0);
      sum[s] = _mm256_add_epi64(
          sum[s], _mm256_add_epi64(_mm256_load_si256(from), _mm256_load_si256(from + 1)));
    }
  }
  const __m256i all = _mm256_add_epi64(sum[0], sum[1]);
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0)) +
         static_cast<uint64_t>(_mm256_extract_epi64(all, 3));
}

// GB/s of reading by as many threads as there are processors, each taking the next piece, from
// pages like those that weights lie in.
Contender ReadLimit() {
  using Bytes = std::vector<uint8_t, kernels::LargePages<uint8_t>>;
  const auto bytes = std::make_shared<const Bytes>(kStreamBytes, uint8_t{1});
  return {"reading, every processor", Role::kLimit, [bytes]() -> absl::StatusOr<double> {
            constexpr int64_t kPieces = kStreamBytes / kPieceBytes;
            constexpr int64_t kTimes = 32;
            std::atomic<int64_t> next{0};
            std::atomic<uint64_t> kept{0};
            const int64_t start = RealClock().NowNanos();
            std::vector<std::thread> readers;
            for (unsigned t = 0; t < std::max(std::thread::hardware_concurrency(), 1u); ++t) {
              readers.emplace_back([&] {
                uint64_t sum = 0;
                for (int64_t i = next++; i < kPieces * kTimes; i = next++) {
                  sum += ReadPiece(bytes->data() + i % kPieces * kPieceBytes);
                }
                kept += sum;
              });
            }
            for (std::thread& reader : readers) reader.join();
            return static_cast<double>(kStreamBytes * kTimes) /
                   static_cast<double>(RealClock().NowNanos() - start);
          }};
}

Prepared PrepareOneRow(WeightFormat format) {
  const auto stream = std::make_shared<Stream>(format);
  const auto measure = [stream]() -> absl::StatusOr<double> {
    return static_cast<double>(stream->w.bytes()) / stream->SecondsFor(1) * 1e-9;
  };
  Prepared prepared;
  prepared.contenders = {{"Linear, one row", Role::kOurs, measure}, ReadLimit()};
  AddNarrower(prepared.contenders, 0);
  if (stream->w.takes_pairs() && kernels::ChosenPairPath() != PairPath::kVectors) {
    kernels::SimulateFp8(stream->x, 128);
    prepared.contenders.push_back(
        {"PairLinear, one row", Role::kRival, [stream]() -> absl::StatusOr<double> {
           const double seconds = stream->SecondsFor(1, kernels::PairLinear);
           return static_cast<double>(stream->w.bytes()) / seconds * 1e-9;
         }});
  }
  return prepared;
}

Prepared PrepareFewRows(WeightFormat format) {
  const auto stream = std::make_shared<Stream>(format);
  Prepared prepared;
  for (const int64_t rows : {16, 1, 2, 4, 8, 32}) {
    prepared.contenders.push_back({absl::StrCat(rows, rows == 1 ? " row" : " rows"),
                                   rows == 16 ? Role::kOurs : Role::kRival,
                                   [stream, rows]() -> absl::StatusOr<double> {
                                     return static_cast<double>(rows) / stream->SecondsFor(rows);
                                   }});
  }
  for (const size_t which : {size_t{0}, size_t{1}}) AddNarrower(prepared.contenders, which);
  return prepared;
}

// ---- PairLinear, beside Linear ----

enum class Order : uint8_t { kLinear, kPairs, kPairsByVectors };

struct PairStream {
  PackedMatrix w;
  std::vector<float> x, y;
  ThreadPool pool{static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u))};

  PairStream(WeightFormat format, int64_t n, int64_t rows_max)
      : w(RandomMatrix(format, n, kInputs)),
        x(RandomFloats(rows_max * kInputs, 3)),
        y(static_cast<size_t>(rows_max * n)) {
    kernels::SimulateFp8(x, 128);
  }
  double SecondsFor(int64_t rows, Order order) {
    const PairPath chosen = kernels::ChosenPairPath();
    if (order == Order::kPairsByVectors) kernels::ChoosePairPath(PairPath::kVectors);
    const auto product = order == Order::kLinear ? kernels::Linear : kernels::PairLinear;
    const double seconds =
        SecondsACall([&] { product(pool, w, x.data(), kInputs, rows, y.data(), w.n()); });
    kernels::ChoosePairPath(chosen);
    return seconds;
  }
};

// As many rows a second as there are rows times `scale`.
Contender PairContender(const std::shared_ptr<PairStream>& stream, int64_t rows, Order order,
                        double scale, Role role) {
  const char* names[] = {"Linear", "PairLinear", "PairLinear by vectors of F32"};
  return {absl::StrCat(names[static_cast<size_t>(order)], ", rows: ", rows), role,
          [=]() -> absl::StatusOr<double> {
            return static_cast<double>(rows) * scale / stream->SecondsFor(rows, order);
          }};
}

absl::StatusOr<Prepared> PreparePairs(WeightFormat format, int64_t bytes,
                                      const std::vector<int64_t>& rows, bool flops) {
  if (kernels::ChosenPairPath() == PairPath::kVectors) {
    return absl::FailedPreconditionError("neither AMX nor AVX-512's BF16 here");
  }
  const int64_t n = bytes / BytesAValue(format, kInputs);
  const auto stream = std::make_shared<PairStream>(format, n, rows.back());
  const double scale = flops ? 2e-9 * static_cast<double>(n * kInputs) : 1.0;
  Prepared prepared;
  for (const int64_t count : rows) {
    const Role role = count == rows.front() ? Role::kOurs : Role::kRival;
    prepared.contenders.push_back(PairContender(stream, count, Order::kPairs, scale, role));
  }
  for (const int64_t count : rows) {
    prepared.contenders.push_back(
        PairContender(stream, count, Order::kLinear, scale, Role::kRival));
  }
  prepared.contenders.push_back(
      PairContender(stream, rows.front(), Order::kPairsByVectors, scale, Role::kRival));
  return prepared;
}

}  // namespace

void AddLinearBenches(std::vector<Bench>& benches) {
  for (const Shape& shape : kShapes) {
    for (const int threads : {1, 2}) {
      benches.push_back({.name = absl::StrCat("gemm-", shape.name, "-", threads),
                         .what = absl::StrCat(shape.what, ", F32, threads: ", threads),
                         .unit = "GFLOP/s",
                         .ratio_bound = 0.75,
                         .prepare = [&shape, threads](const BenchContext&) {
                           return PrepareProduct(shape, threads);
                         }});
    }
  }
  for (const Format& format : kFormats) {
    benches.push_back({.name = absl::StrCat("gemv-", format.name),
                       .what = absl::StrCat("one row against 256 MiB of ", format.what,
                                            "; bytes of packed weights read"),
                       .unit = "GB/s",
                       .ratio_bound = 0.7,
                       .prepare = [&format](const BenchContext&) -> absl::StatusOr<Prepared> {
                         return PrepareOneRow(format.format);
                       }});
    benches.push_back({.name = absl::StrCat("few-rows-", format.name),
                       .what = absl::StrCat("rows together against 256 MiB of ", format.what),
                       .unit = "rows/s",
                       .prepare = [&format](const BenchContext&) -> absl::StatusOr<Prepared> {
                         return PrepareFewRows(format.format);
                       }});
    if (format.format == WeightFormat::kF32) continue;
    benches.push_back({.name = absl::StrCat("pairs-", format.name),
                       .what = absl::StrCat(
                           "inputs rounded to FP8, rows together against 256 MiB of ", format.what),
                       .unit = "rows/s",
                       .prepare = [&format](const BenchContext&) -> absl::StatusOr<Prepared> {
                         return PreparePairs(format.format, kStreamBytes, {1, 4, 16, 64}, false);
                       }});
    benches.push_back({.name = absl::StrCat("pairs-gemm-", format.name),
                       .what = absl::StrCat("inputs rounded to FP8, 4096 to 4096, ", format.what),
                       .unit = "GFLOP/s",
                       .prepare = [&format](const BenchContext&) -> absl::StatusOr<Prepared> {
                         return PreparePairs(format.format, BytesAValue(format.format, 4096 * 4096),
                                             {64, 512, 2048}, true);
                       }});
  }
}

}  // namespace cairn::bench
