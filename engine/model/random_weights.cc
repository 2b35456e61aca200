#include "engine/model/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/formats.h"
#include "store/base/digest.h"

namespace cairn::engine {
namespace {

struct Spread {
  float mean;
  float deviation;
};

// Chosen so that activations stay of order one through any number of layers, and so that no term is
// so small that leaving it out would go unnoticed: gates and scores are sharper than the linears,
// norms and biases are all different.
Spread SpreadOf(TensorRole role, int64_t inputs) {
  const float root = std::sqrt(static_cast<float>(inputs));
  switch (role) {
    case TensorRole::kEmbedding:
      return {0.0f, 1.0f};
    case TensorRole::kHead:
    case TensorRole::kScorer:
      return {0.0f, 2.0f / root};
    case TensorRole::kLinear:
    case TensorRole::kExpert:
    case TensorRole::kPlain:
    case TensorRole::kRouter:
      return {0.0f, 0.8f / root};
    case TensorRole::kNorm:
      return {1.0f, 0.15f};
    case TensorRole::kSink:
      return {0.5f, 0.5f};
    case TensorRole::kPosition:
    case TensorRole::kHyperBase:
      return {0.0f, 0.5f};
    case TensorRole::kRouterBias:
      return {0.0f, 0.1f};
    case TensorRole::kHyperFn:
      return {0.0f, 0.7f / root};
    case TensorRole::kHyperScale:
      return {0.4f, 0.03f};
    case TensorRole::kTokenTable:
      break;
  }
  return {0.0f, 0.0f};
}

int64_t ElementsOf(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (int64_t dimension : shape) count *= dimension;
  return count;
}

std::vector<float> Values(const TensorSlot& slot, uint64_t seed) {
  const Spread spread = SpreadOf(slot.role, slot.shape.back());
  NormalStream stream(seed, slot.tensor_name());
  std::vector<float> values(static_cast<size_t>(ElementsOf(slot.shape)));
  for (float& value : values) value = spread.mean + spread.deviation * stream.Next();
  return values;
}

template <typename T>
std::vector<uint8_t> AsBytes(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// `experts_per_token` different experts for every token id.
std::vector<int64_t> TokenTable(const TensorSlot& slot, int64_t experts, uint64_t seed) {
  NormalStream stream(seed, slot.tensor_name());
  std::vector<int64_t> table;
  table.reserve(static_cast<size_t>(ElementsOf(slot.shape)));
  for (int64_t token = 0; token < slot.shape[0]; ++token) {
    const auto row = static_cast<std::ptrdiff_t>(table.size());
    while (std::ssize(table) - row < slot.shape[1]) {
      const auto id = static_cast<int64_t>(stream.NextWord() % static_cast<uint64_t>(experts));
      if (std::find(table.begin() + row, table.end(), id) == table.end()) table.push_back(id);
    }
  }
  return table;
}

// Largest magnitude of rows [row, row + rows) x columns [column, column + columns), clipped to the
// matrix.
float MaxMagnitude(const std::vector<float>& values, int64_t out, int64_t in, int64_t row,
                   int64_t rows, int64_t column, int64_t columns) {
  float most = 0.0f;
  for (int64_t r = row; r < std::min(row + rows, out); ++r) {
    for (int64_t c = column; c < std::min(column + columns, in); ++c) {
      most = std::max(most, std::fabs(values[static_cast<size_t>(r * in + c)]));
    }
  }
  return most;
}

MadeTensor ToFp8(const TensorSlot& slot, const std::vector<float>& values,
                 std::vector<uint8_t>& scales) {
  const int64_t out = slot.shape[0], in = slot.shape[1];
  MadeTensor made{slot.tensor_name(), DType::kF8E4M3, slot.shape, {}};
  made.bytes.resize(values.size());
  for (int64_t row = 0; row < out; row += kFp8Block) {
    for (int64_t column = 0; column < in; column += kFp8Block) {
      const uint8_t scale =
          kernels::ScaleE8m0Fp8(MaxMagnitude(values, out, in, row, kFp8Block, column, kFp8Block));
      scales.push_back(scale);
      for (int64_t r = row; r < std::min(row + kFp8Block, out); ++r) {
        for (int64_t c = column; c < std::min(column + kFp8Block, in); ++c) {
          const auto i = static_cast<size_t>(r * in + c);
          made.bytes[i] = kernels::F32ToE4m3(values[i] / kernels::E8m0ToF32(scale));
        }
      }
    }
  }
  return made;
}

MadeTensor ToFp4(const TensorSlot& slot, const std::vector<float>& values,
                 std::vector<uint8_t>& scales) {
  const int64_t out = slot.shape[0], in = slot.shape[1];
  MadeTensor made{slot.tensor_name(), DType::kI8, StoredShape(DType::kI8, slot.shape), {}};
  made.bytes.resize(values.size() / 2);
  for (int64_t row = 0; row < out; ++row) {
    for (int64_t column = 0; column < in; column += kFp4Group) {
      const uint8_t scale =
          kernels::ScaleE8m0Fp4(MaxMagnitude(values, out, in, row, 1, column, kFp4Group));
      scales.push_back(scale);
      for (int64_t c = column; c < column + kFp4Group; ++c) {
        const auto i = static_cast<size_t>(row * in + c);
        const uint8_t nibble = kernels::F32ToE2m1(values[i] / kernels::E8m0ToF32(scale));
        made.bytes[i / 2] = static_cast<uint8_t>(made.bytes[i / 2] | (nibble << (i % 2 * 4)));
      }
    }
  }
  return made;
}

}  // namespace

NormalStream::NormalStream(uint64_t seed, const std::string& name) {
  std::vector<uint8_t> text;
  for (int shift = 0; shift < 64; shift += 8) text.push_back(static_cast<uint8_t>(seed >> shift));
  text.insert(text.end(), name.begin(), name.end());
  const Digest digest = Sha256(text);
  std::memcpy(&state_, digest.bytes.data(), sizeof(state_));
}

// SplitMix64 (Steele, Lea, Flood 2014).
uint64_t NormalStream::NextWord() {
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

float NormalStream::Next() {
  int32_t sum = -393210;  // twelve times the mean, 32767.5
  for (int i = 0; i < 3; ++i) {
    const uint64_t word = NextWord();
    for (int shift = 0; shift < 64; shift += 16) {
      sum += static_cast<int32_t>((word >> shift) & 0xffffu);
    }
  }
  return static_cast<float>(sum) * 0x1p-16f;  // both exact
}

DType MadeType(TensorRole role, WeightFormat format) {
  const bool quantised = format == WeightFormat::kFp8Fp4;
  if (quantised && role == TensorRole::kLinear) return DType::kF8E4M3;
  if (quantised && role == TensorRole::kExpert) return DType::kI8;
  return TypesOf(role)[0];
}

std::vector<MadeTensor> MakeTensor(const TensorSlot& slot, const ModelConfig& config,
                                   WeightFormat format, uint64_t seed) {
  const DType type = MadeType(slot.role, format);
  if (type == DType::kI64) {
    return {
        {slot.tensor_name(), type, slot.shape, AsBytes(TokenTable(slot, config.experts, seed))}};
  }
  const std::vector<float> values = Values(slot, seed);
  if (type == DType::kF32) return {{slot.tensor_name(), type, slot.shape, AsBytes(values)}};
  if (type == DType::kBF16) {
    std::vector<uint16_t> rounded(values.size());
    std::transform(values.begin(), values.end(), rounded.begin(), kernels::F32ToBf16);
    return {{slot.tensor_name(), type, slot.shape, AsBytes(rounded)}};
  }
  std::vector<MadeTensor> made(1);
  std::vector<uint8_t> scales;
  made[0] = type == DType::kI8 ? ToFp4(slot, values, scales) : ToFp8(slot, values, scales);
  made.push_back(
      {slot.name + ".scale", DType::kF8E8M0, ScaleShape(type, slot.shape), std::move(scales)});
  return made;
}

}  // namespace cairn::engine
