#include "kernels/cuda/linear.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/linear_job.h"
#include "kernels/cuda/packed_fp4.h"

namespace cairn::kernels::cuda {
namespace {

using internal::LinearJob;
using internal::LinearPlan;
using internal::RowTile;

constexpr int64_t kManyOutputs = 256;
constexpr int kManyRows = 128;
constexpr int kWarpRows = 16;
constexpr int64_t kFewOutputs = 64;
constexpr int64_t kFewRowsMax = 64;
// Of shared memory that Few's parts may take, beside its stages.
constexpr int64_t kPartBytesMax = 128 << 10;
constexpr int64_t kClusterMax = 8;
constexpr int64_t kExpertsMax = 1024;
constexpr int64_t kRowsMax = 1 << 24;

constexpr int64_t Tiles(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

absl::Status Aligned(const void* pointer, absl::string_view name) {
  if (reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && pointer != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " must be aligned to 16 bytes, and be there"));
}

absl::Status CheckWeights(const DeviceMatrix& w, int64_t k_unit) {
  CAIRN_RETURN_IF_ERROR(Aligned(w.values, "w.values"));
  const int64_t n_unit = w.format == WeightFormat::kFp4 ? 64 : w.count > 1 ? 128 : 8;
  if (w.n <= 0 || w.n % n_unit != 0 || w.count * w.n > INT32_MAX || w.count <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("w.n ", w.n, " of ", w.count, " matrices: must be a multiple of ", n_unit));
  }
  if (w.k <= 0 || w.k % k_unit != 0 || w.k > INT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("w.k ", w.k, ": must be a multiple of ", k_unit));
  }
  if (w.format != WeightFormat::kBf16 && w.scales == nullptr) {
    return absl::InvalidArgumentError("w.scales is null");
  }
  return absl::OkStatus();
}

absl::Status CheckOutput(const LinearOutput& y, int64_t n) {
  CAIRN_RETURN_IF_ERROR(Aligned(y.data, "y"));
  if (y.stride < n || y.stride % 8 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("y.stride ", y.stride, ": at least ", n, ", a multiple of 8"));
  }
  return absl::OkStatus();
}

// The power of two of blocks that share k of a tile: until two fifths of the multiprocessors have
// one (the next kernel's weights come through the others meanwhile), or all where each has much of
// k; if there is room for the parts.
int ClusterFor(int64_t tiles, int64_t k_blocks, int rows_a_tile) {
  const int64_t processors = MultiprocessorCount();
  const auto wants_more = [&](int64_t cluster) {
    const int64_t blocks = tiles * cluster;
    return blocks * 5 < processors * 2 || (blocks * 2 <= processors && k_blocks > 32 * cluster);
  };
  int64_t cluster = 1;
  while (cluster < kClusterMax && k_blocks >= 4 * cluster && wants_more(cluster)) cluster *= 2;
  while (internal::PartBytes(k_blocks, rows_a_tile, cluster) > kPartBytesMax) cluster /= 2;
  return static_cast<int>(cluster);
}

// Rows of x in a tile: what most of `rows` fill.
int RowsATile(int64_t rows) {
  int tile = 8;
  while (tile < kFewRowsMax && tile < rows) tile *= 2;
  return tile;
}

void CutForFew(LinearPlan& plan, int rows_a_tile, int64_t row_tiles) {
  LinearJob& job = plan.job;
  plan.rows_a_tile = rows_a_tile;
  job.output_tiles = static_cast<int32_t>(Tiles(job.n, kFewOutputs));
  job.row_tiles = static_cast<int32_t>(row_tiles);
  if (job.tiles == nullptr) {
    plan.cluster = ClusterFor(job.output_tiles * row_tiles, job.k_blocks, rows_a_tile);
  }
}

void CutForMany(LinearPlan& plan, int64_t row_tiles) {
  LinearJob& job = plan.job;
  plan.many = true;
  plan.rows_a_tile = kManyRows;
  job.output_tiles = static_cast<int32_t>(Tiles(job.n, kManyOutputs));
  job.row_tiles = static_cast<int32_t>(row_tiles);
}

void Cut(LinearPlan& plan) {
  const int64_t rows = plan.job.rows;
  const int64_t many_tiles = Tiles(plan.job.n, kManyOutputs) * Tiles(rows, kManyRows);
  if (rows > kFewRowsMax && many_tiles * 3 >= MultiprocessorCount()) {
    CutForMany(plan, Tiles(rows, kManyRows));
    if (plan.job.row_tiles > 1) plan.cluster = 2;
    return;
  }
  const int rows_a_tile = RowsATile(rows);
  CutForFew(plan, rows_a_tile, Tiles(rows, rows_a_tile));
}

LinearJob JobOf(const DeviceMatrix& w, int64_t rows, int64_t block_k, const LinearOutput& y) {
  LinearJob job;
  job.n = static_cast<int32_t>(w.n);
  job.rows = static_cast<int32_t>(rows);
  job.k_blocks = static_cast<int32_t>(Tiles(w.k, block_k));
  job.group_outputs = job.n;
  job.w = w.values;
  job.w_block_rows = static_cast<int32_t>(w.count * w.n / kFp4BlockOutputs);
  job.w_scales = w.scales;
  job.y = y.data;
  job.y_stride = y.stride;
  job.y_f32 = y.f32 ? 1 : 0;
  return job;
}

// Where Many's BF16 results go; so many rows at a time.
absl::Status MapOutput(LinearPlan& plan, int64_t rows_a_store) {
  const LinearJob& job = plan.job;
  if (!plan.many || job.y_f32 != 0) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(plan.y, MakeTensorMap({.element = TensorElement::kBf16,
                                                .data = job.y,
                                                .rows = job.rows,
                                                .columns = job.n,
                                                .row_bytes = job.y_stride * 2,
                                                .box_rows = rows_a_store,
                                                .box_columns = kFewOutputs,
                                                .swizzled = true}));
  return absl::OkStatus();
}

int64_t WeightBoxRows(const LinearPlan& plan) { return plan.many ? kManyOutputs / 2 : kFewOutputs; }

absl::Status LaunchQuantised(Stream stream, LinearPlan& plan, const DeviceMatrix& w,
                             const QuantisedRows& x) {
  CAIRN_RETURN_IF_ERROR(MapOutput(plan, w.format == WeightFormat::kFp8 ? kWarpRows : kManyRows));
  plan.job.x_scales = x.scales;
  plan.job.x_scale_stride = x.scale_stride;
  if (w.format == WeightFormat::kFp8) {
    CAIRN_ASSIGN_OR_RETURN(plan.w, MakeTensorMap({.element = TensorElement::kByte,
                                                  .data = w.values,
                                                  .rows = w.count * w.n,
                                                  .columns = w.k,
                                                  .row_bytes = w.k,
                                                  .box_rows = WeightBoxRows(plan),
                                                  .box_columns = 128,
                                                  .swizzled = true}));
  }
  CAIRN_ASSIGN_OR_RETURN(plan.x, MakeTensorMap({.element = TensorElement::kByte,
                                                .data = x.codes,
                                                .rows = x.rows,
                                                .columns = x.k,
                                                .row_bytes = x.k,
                                                .box_rows = plan.rows_a_tile,
                                                .box_columns = 128,
                                                .swizzled = true}));
  CAIRN_ASSIGN_OR_RETURN(plan.x_scales, MakeTensorMap({.element = TensorElement::kF32,
                                                       .data = x.scales,
                                                       .rows = x.k / kQuantGroup,
                                                       .columns = x.rows,
                                                       .row_bytes = x.scale_stride * 4,
                                                       .box_rows = 1,
                                                       .box_columns = plan.rows_a_tile + 4}));
  return w.format == WeightFormat::kFp8 ? internal::LaunchFp8(stream, plan)
                                        : internal::LaunchFp4(stream, plan);
}

absl::Status CheckQuantised(const DeviceMatrix& w, const QuantisedRows& x) {
  if (w.format != WeightFormat::kFp8 && w.format != WeightFormat::kFp4) {
    return absl::InvalidArgumentError("w.format: quantised rows are for FP8 and FP4 weights");
  }
  CAIRN_RETURN_IF_ERROR(CheckWeights(w, kQuantGroup));
  CAIRN_RETURN_IF_ERROR(Aligned(x.codes, "x.codes"));
  CAIRN_RETURN_IF_ERROR(Aligned(x.scales, "x.scales"));
  if (x.k != w.k || x.rows < 0 || x.rows > INT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("x [", x.rows, ", ", x.k, "] for W [", w.n, ", ", w.k, "]"));
  }
  return absl::OkStatus();
}

// Scratch: how many tiles there are, then the tiles.
constexpr int64_t kTilesAt = 16;
int32_t* TileCountOf(const ExpertRows& rows) { return reinterpret_cast<int32_t*>(rows.scratch); }
RowTile* TilesOf(const ExpertRows& rows) {
  return reinterpret_cast<RowTile*>(rows.scratch + kTilesAt);
}

// By what an expert has on average: that of all is known here, that of each is not.
int ExpertRowsATile(int64_t rows, int64_t experts) {
  const int64_t average = rows / experts;
  return average > kFewRowsMax / 2 ? kManyRows : RowsATile(average);
}

int64_t ExpertTilesMax(int64_t rows, int64_t experts) {
  return std::min(rows, experts + rows / ExpertRowsATile(rows, experts));
}

absl::Status CheckExperts(const ExpertRows& rows) {
  CAIRN_RETURN_IF_ERROR(Aligned(rows.scratch, "rows.scratch"));
  if (rows.experts <= 0 || rows.experts > kExpertsMax || rows.rows < 0 || rows.rows > kRowsMax ||
      rows.offsets == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(rows.rows, " rows of ", rows.experts,
                                                   " experts: at most ", kRowsMax, " and ",
                                                   kExpertsMax, ", with offsets"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Linear(Stream stream, const DeviceMatrix& w, const QuantisedRows& x,
                    const LinearOutput& y) {
  CAIRN_RETURN_IF_ERROR(CheckQuantised(w, x));
  CAIRN_RETURN_IF_ERROR(CheckOutput(y, w.n));
  if (x.rows == 0) return absl::OkStatus();
  LinearPlan plan;
  plan.job = JobOf(w, x.rows, kQuantGroup, y);
  Cut(plan);
  return LaunchQuantised(stream, plan, w, x);
}

absl::Status Linear(Stream stream, const DeviceMatrix& w, const Bf16Rows& x,
                    const LinearOutput& y) {
  constexpr int64_t kBlockK = 64;
  if (w.format != WeightFormat::kBf16) {
    return absl::InvalidArgumentError("w.format: BF16 rows are for BF16 weights");
  }
  CAIRN_RETURN_IF_ERROR(CheckWeights(w, x.groups > 1 ? kBlockK : 8));
  CAIRN_RETURN_IF_ERROR(CheckOutput(y, w.n));
  CAIRN_RETURN_IF_ERROR(Aligned(x.values, "x.values"));
  const bool grouped = x.groups > 1 && w.n % (x.groups * kManyOutputs) == 0;
  if (w.count != 1 || (x.groups != 1 && !grouped)) {
    return absl::InvalidArgumentError(
        absl::StrCat(x.groups, " groups of x for ", w.count, " matrices of ", w.n,
                     " outputs: one matrix, of whole 256 outputs a group"));
  }
  if (x.stride < x.groups * w.k || x.stride % 8 != 0 || x.rows < 0 || x.rows > INT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("x.stride ", x.stride, ": at least ", x.groups * w.k, ", a multiple of 8"));
  }
  if (x.rows == 0) return absl::OkStatus();
  LinearPlan plan;
  plan.job = JobOf(w, x.rows, kBlockK, y);
  plan.job.group_outputs = static_cast<int32_t>(w.n / x.groups);
  Cut(plan);
  CAIRN_ASSIGN_OR_RETURN(plan.w, MakeTensorMap({.element = TensorElement::kBf16,
                                                .data = w.values,
                                                .rows = w.n,
                                                .columns = w.k,
                                                .row_bytes = w.k * 2,
                                                .box_rows = WeightBoxRows(plan),
                                                .box_columns = kBlockK,
                                                .swizzled = true}));
  CAIRN_ASSIGN_OR_RETURN(plan.x, MakeTensorMap({.element = TensorElement::kBf16,
                                                .data = x.values,
                                                .rows = x.rows,
                                                .columns = x.groups * w.k,
                                                .row_bytes = x.stride * 2,
                                                .box_rows = plan.rows_a_tile,
                                                .box_columns = kBlockK,
                                                .swizzled = true}));
  CAIRN_RETURN_IF_ERROR(MapOutput(plan, kManyRows));
  return internal::LaunchBf16(stream, plan);
}

int64_t ExpertScratchBytes(int64_t rows, int64_t experts) {
  return kTilesAt + ExpertTilesMax(rows, experts) * static_cast<int64_t>(sizeof(RowTile));
}

absl::StatusOr<internal::ExpertTiles> internal::ExpertTilesOf(const ExpertRows& rows) {
  CAIRN_RETURN_IF_ERROR(CheckExperts(rows));
  return ExpertTiles{TilesOf(rows), TileCountOf(rows), ExpertRowsATile(rows.rows, rows.experts)};
}

absl::Status CutExpertRows(Stream stream, const ExpertRows& rows) {
  CAIRN_ASSIGN_OR_RETURN(const internal::ExpertTiles tiles, internal::ExpertTilesOf(rows));
  if (rows.rows == 0) return absl::OkStatus();
  return internal::LaunchCut(stream, rows.offsets, rows.experts, tiles);
}

absl::Status ExpertLinear(Stream stream, const DeviceMatrix& w, const QuantisedRows& x,
                          const ExpertRows& rows, const LinearOutput& y) {
  CAIRN_RETURN_IF_ERROR(CheckQuantised(w, x));
  CAIRN_RETURN_IF_ERROR(CheckOutput(y, w.n));
  CAIRN_RETURN_IF_ERROR(CheckExperts(rows));
  if (w.count != rows.experts || x.rows != rows.rows) {
    return absl::InvalidArgumentError(absl::StrCat(w.count, " matrices and ", x.rows,
                                                   " rows of x for ", rows.experts, " experts of ",
                                                   rows.rows, " rows"));
  }
  if (x.rows == 0) return absl::OkStatus();
  LinearPlan plan;
  plan.job = JobOf(w, x.rows, kQuantGroup, y);
  plan.job.tiles = TilesOf(rows);
  plan.job.tile_count = TileCountOf(rows);
  const int rows_a_tile = ExpertRowsATile(rows.rows, rows.experts);
  const int64_t tiles = ExpertTilesMax(rows.rows, rows.experts);
  if (rows_a_tile == kManyRows) {
    CutForMany(plan, tiles);
  } else {
    CutForFew(plan, rows_a_tile, tiles);
  }
  return LaunchQuantised(stream, plan, w, x);
}

}  // namespace cairn::kernels::cuda
