// Attention on the GPU at the shapes of DeepSeek-V4: bytes of rows read beside a copy, and products
// beside the tensor cores alone. Inputs change from launch to launch, so that a row is in the L2
// only where tokens of one launch share it, as in prefilling.
#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/kv_rows.h"
#include "kernels/cuda/attention.h"
#include "store/base/random.h"
#include "tools/cairn-bench/gpu_benches.h"
#include "tools/cairn-bench/gpu_tensor_limit.h"
#include "tools/cairn-bench/gpu_timing.h"

namespace cairn::bench {
namespace {

using kernels::cuda::AttentionBatch;
using kernels::cuda::AttentionList;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::OwnedStream;

constexpr int64_t kDim = kernels::cuda::kAttentionDim;
constexpr int64_t kWindow = 128;
constexpr int64_t kRowBytes = 584;
// Decoding: each sequence has so many compressed rows of its own to choose from.
constexpr int64_t kSequences = 128, kOwnRows = 4096;
// Prefilling: one sequence of 128k tokens.
constexpr int64_t kContextRows = 32768;
// More than the L2 is read before a launch's inputs come again.
constexpr int64_t kBytesBetween = int64_t{256} << 20;

struct Shape {
  const char* name;
  const char* what;
  int64_t tokens, heads, far;
  bool dense, prefill;

  int64_t rows() const { return kWindow + far; }
  double bytes() const { return static_cast<double>(tokens * rows() * kRowBytes); }
  double flops() const { return 4.0 * static_cast<double>(tokens * heads * rows() * kDim); }
  int64_t sets() const {
    return prefill ? 1 : std::max<int64_t>(2, kBytesBetween / (tokens * rows() * kRowBytes));
  }
};

constexpr Shape kShapes[] = {
    {"decode-1-flash", "1 token of Flash, 128 + 512 rows", 1, 64, 512, false, false},
    {"decode-32-flash", "32 tokens of Flash, 128 + 512 rows", 32, 64, 512, false, false},
    {"decode-128-flash", "128 tokens of Flash, 128 + 512 rows", 128, 64, 512, false, false},
    {"decode-512-flash", "512 tokens of Flash, 128 + 512 rows", 512, 64, 512, false, false},
    {"decode-1-pro", "1 token of Pro, 128 + 1024 rows", 1, 128, 1024, false, false},
    {"decode-32-pro", "32 tokens of Pro, 128 + 1024 rows", 32, 128, 1024, false, false},
    {"decode-128-pro", "128 tokens of Pro, 128 + 1024 rows", 128, 128, 1024, false, false},
    {"prefill-4096-flash", "4096 tokens of Flash, 128 + 512 rows", 4096, 64, 512, false, true},
    {"prefill-4096-hca", "4096 tokens of Flash, 128 + 1024 rows of HCA", 4096, 64, 1024, true,
     true},
};

struct Inputs {
  Shape shape;
  OwnedStream stream;
  DeviceBuffer<uint8_t> near_data, near_scales, far_data, far_scales;
  DeviceBuffer<uint16_t> q, out;
  DeviceBuffer<AttentionList> lists;
  DeviceBuffer<int32_t> indices;
  DeviceBuffer<float> sink, angles;
  DeviceBuffer<uint8_t> scratch;

  absl::Status Launch(int64_t i, bool shared) const {
    const int64_t set = i % shape.sets(), first = set * shape.tokens;
    return kernels::cuda::Attend(
        {.tokens = shape.tokens,
         .heads = shape.heads,
         .q = q.get() + first * shape.heads * kDim,
         .window = {near_data.get(), near_scales.get()},
         .compressed = {far_data.get(), far_scales.get()},
         .ring = shape.prefill ? 0 : static_cast<int32_t>(kWindow),
         .lists = lists.get() + first,
         .indices = shape.dense ? nullptr : indices.get() + first * shape.far,
         .index_stride = shape.far,
         .sink = sink.get(),
         .angles = angles.get(),
         .out = out.get(),
         .scratch = shared ? scratch.get() : nullptr,
         .rows_max = shape.rows()},
        stream.get());
  }
  absl::StatusOr<double> Seconds(bool shared) const {
    return SecondsALaunch(stream.get(), [&](int64_t i) { return Launch(i, shared); });
  }
};

std::vector<float> Uniform(int64_t count, Random& random, float magnitude) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) {
    v = (static_cast<float>(random.Next() >> 40) * 0x1p-24f - 0.5f) * magnitude;
  }
  return values;
}

// What is made is short; the rest repeats its first `distinct` values.
template <typename T>
void Repeat(std::vector<T>& values, int64_t distinct) {
  for (size_t i = static_cast<size_t>(distinct); i < values.size(); ++i) {
    values[i] = values[i - static_cast<size_t>(distinct)];
  }
}

struct StoredRows {
  std::vector<uint8_t> data, scales;

  StoredRows(int64_t count, Random& random) {
    const int64_t distinct = std::min<int64_t>(count, 1024);
    const kernels::RowCodec codec(kernels::RowEncoding::kFp8Bf16, kDim, 64);
    data.resize(static_cast<size_t>(count * codec.data_bytes()));
    scales.resize(static_cast<size_t>(count * codec.scale_bytes()));
    for (int64_t r = 0; r < distinct; ++r) {
      codec.Encode(Uniform(kDim, random, 2.0f).data(), data.data() + r * codec.data_bytes(),
                   scales.data() + r * codec.scale_bytes());
    }
    Repeat(data, distinct * codec.data_bytes());
    Repeat(scales, distinct * codec.scale_bytes());
  }
};

std::vector<uint16_t> Queries(int64_t count, Random& random) {
  const int64_t distinct = std::min<int64_t>(count, 1 << 20);
  std::vector<uint16_t> q(static_cast<size_t>(count));
  for (int64_t i = 0; i < distinct; ++i) {
    q[static_cast<size_t>(i)] = static_cast<uint16_t>(0x3e00 | (random.Next() & 0x81ff));
  }
  Repeat(q, distinct);
  return q;
}

absl::StatusOr<std::shared_ptr<Inputs>> MakeInputs(const Shape& shape) {
  SeededRandom random(11);
  const int64_t tokens = shape.sets() * shape.tokens;
  const int64_t pool = shape.prefill ? kContextRows : kOwnRows;
  std::vector<AttentionList> lists;
  std::vector<int32_t> indices;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t sequence = shape.prefill ? 0 : t % kSequences;
    lists.push_back({.window_base = shape.prefill ? t : sequence * kWindow,
                     .window_first = shape.prefill ? 0 : static_cast<int32_t>(t % kWindow),
                     .window_count = kWindow,
                     .compressed_base = sequence * pool,
                     .compressed_count = static_cast<int32_t>(shape.far)});
    // Ascending: one of each stretch.
    const int64_t stretch = pool / shape.far;
    for (int64_t j = 0; j < shape.far; ++j) {
      indices.push_back(static_cast<int32_t>(
          j * stretch + static_cast<int64_t>(random.Next() % static_cast<uint64_t>(stretch))));
    }
  }
  const StoredRows near(shape.prefill ? tokens + kWindow : kSequences * kWindow, random);
  const StoredRows far(shape.prefill ? pool : kSequences * pool, random);
  const std::vector<uint16_t> q = Queries(tokens * shape.heads * kDim, random);
  CAIRN_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create());
  CAIRN_ASSIGN_OR_RETURN(auto near_data, DeviceBuffer<uint8_t>::Of(near.data));
  CAIRN_ASSIGN_OR_RETURN(auto near_scales, DeviceBuffer<uint8_t>::Of(near.scales));
  CAIRN_ASSIGN_OR_RETURN(auto far_data, DeviceBuffer<uint8_t>::Of(far.data));
  CAIRN_ASSIGN_OR_RETURN(auto far_scales, DeviceBuffer<uint8_t>::Of(far.scales));
  CAIRN_ASSIGN_OR_RETURN(auto q_device, DeviceBuffer<uint16_t>::Of(q));
  CAIRN_ASSIGN_OR_RETURN(auto out, DeviceBuffer<uint16_t>::Create(
                                       static_cast<size_t>(shape.tokens * shape.heads * kDim)));
  CAIRN_ASSIGN_OR_RETURN(auto lists_device, DeviceBuffer<AttentionList>::Of(lists));
  CAIRN_ASSIGN_OR_RETURN(auto indices_device, DeviceBuffer<int32_t>::Of(indices));
  CAIRN_ASSIGN_OR_RETURN(auto sink, DeviceBuffer<float>::Of(Uniform(shape.heads, random, 2.0f)));
  CAIRN_ASSIGN_OR_RETURN(auto angles,
                         DeviceBuffer<float>::Of(Uniform(shape.tokens * 64, random, 2.0f)));
  const int64_t scratch_bytes =
      kernels::cuda::AttentionScratchBytes(shape.tokens, shape.heads, shape.rows());
  DeviceBuffer<uint8_t> scratch;
  if (scratch_bytes > 0) {
    CAIRN_ASSIGN_OR_RETURN(scratch,
                           DeviceBuffer<uint8_t>::Create(static_cast<size_t>(scratch_bytes)));
  }
  return std::make_shared<Inputs>(Inputs{
      shape, std::move(stream), std::move(near_data), std::move(near_scales), std::move(far_data),
      std::move(far_scales), std::move(q_device), std::move(out), std::move(lists_device),
      std::move(indices_device), std::move(sink), std::move(angles), std::move(scratch)});
}

absl::StatusOr<Prepared> Prepare(const Shape& shape, bool products) {
  CAIRN_ASSIGN_OR_RETURN(const auto inputs, MakeInputs(shape));
  CAIRN_ASSIGN_OR_RETURN(Contender limit, products ? TensorLimit() : DeviceCopyLimit());
  const double amount = products ? shape.flops() * 1e-12 : shape.bytes() * 1e-9;
  Prepared prepared;
  prepared.contenders.push_back(std::move(limit));
  const auto add = [&](const char* name, Role role, bool shared) {
    prepared.contenders.push_back(
        {name, role, [inputs, amount, shared]() -> absl::StatusOr<double> {
           CAIRN_ASSIGN_OR_RETURN(const double seconds, inputs->Seconds(shared));
           return amount / seconds;
         }});
  };
  add("Attend", Role::kOurs, true);
  if (inputs->scratch.count() > 0) add("a block of threads a token", Role::kRival, false);
  return prepared;
}

}  // namespace

void AddGpuAttentionBenches(std::vector<Bench>& benches) {
  for (const Shape& shape : kShapes) {
    if (!shape.prefill) {
      benches.push_back(
          {.name = absl::StrCat("gpu-attention-", shape.name),
           .what = absl::StrCat(shape.what, "; bytes of rows"),
           .unit = "GB/s",
           .prepare = [&shape](const BenchContext&) { return Prepare(shape, false); }});
    }
    benches.push_back(
        {.name = absl::StrCat("gpu-attention-", shape.name, shape.prefill ? "" : "-flops"),
         .what = absl::StrCat(shape.what, "; products in BF16"),
         .unit = "TFLOP/s",
         .prepare = [&shape](const BenchContext&) { return Prepare(shape, true); }});
  }
}

}  // namespace cairn::bench
