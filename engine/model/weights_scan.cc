// The two passes over all bytes of a model: its identity, and that every number is one.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>

#include "engine/model/weights.h"

namespace cairn::engine {
namespace {

constexpr char kIdentityDomain[] = "cairn.weights.v1";

using Item = std::pair<const std::string*, const TensorView*>;

// `work(i, item)` for every tensor, in name order by i; large ones are started first, so that none
// is left for the end.
void ForEachTensor(const TensorFile& file, int threads,
                   const std::function<void(size_t, const Item&)>& work) {
  std::vector<std::pair<size_t, Item>> items;
  for (const auto& [name, view] : file.tensors()) items.push_back({items.size(), {&name, &view}});
  std::stable_sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
    return a.second.second->bytes.size() > b.second.second->bytes.size();
  });
  std::atomic<size_t> next = 0;
  const auto run = [&] {
    for (size_t i = next++; i < items.size(); i = next++) work(items[i].first, items[i].second);
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(run);
  run();
  for (std::thread& helper : helpers) helper.join();
}

void AppendWord(std::vector<uint8_t>& out, uint64_t word) {
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<uint8_t>(word >> shift));
}

void AppendText(std::vector<uint8_t>& out, const std::string& text) {
  AppendWord(out, text.size());
  out.insert(out.end(), text.begin(), text.end());
}

// Whether any `Word` of `bytes` has all bits of `mask`: the exponent field of a NaN or an infinity.
template <typename Word>
bool AnyHasAll(std::span<const uint8_t> bytes, Word mask) {
  const size_t count = bytes.size() / sizeof(Word);
  unsigned found = 0;
  for (size_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, bytes.data() + i * sizeof(Word), sizeof(Word));
    found |= static_cast<unsigned>((word & mask) == mask);
  }
  return found != 0;
}

bool IsFinite(const TensorView& view) {
  switch (view.dtype) {
    case DType::kF32:
      return !AnyHasAll<uint32_t>(view.bytes, 0x7f800000u);
    case DType::kBF16:
      return !AnyHasAll<uint16_t>(view.bytes, 0x7f80u);
    case DType::kF8E4M3:
      return !AnyHasAll<uint8_t>(view.bytes, 0x7fu);
    case DType::kF8E8M0:
      return !AnyHasAll<uint8_t>(view.bytes, 0xffu);
    case DType::kI8:
    case DType::kU8:
    case DType::kI32:
    case DType::kI64:
      break;
  }
  return true;
}

}  // namespace

Digest Weights::Identity(int threads) const {
  std::vector<Digest> digests(file->tensors().size());
  ForEachTensor(*file, threads,
                [&](size_t i, const Item& item) { digests[i] = Sha256(item.second->bytes); });
  std::vector<uint8_t> text;
  AppendText(text, kIdentityDomain);
  size_t i = 0;
  for (const auto& [name, view] : file->tensors()) {
    AppendText(text, name);
    AppendText(text, DTypeName(view.dtype));
    AppendWord(text, view.shape.size());
    for (int64_t dimension : view.shape) AppendWord(text, static_cast<uint64_t>(dimension));
    const Digest& digest = digests[i++];
    text.insert(text.end(), digest.bytes.begin(), digest.bytes.end());
  }
  return Sha256(text);
}

absl::Status Weights::CheckFinite(int threads) const {
  std::vector<uint8_t> finite(file->tensors().size());
  ForEachTensor(*file, threads, [&](size_t i, const Item& item) {
    finite[i] = static_cast<uint8_t>(IsFinite(*item.second));
  });
  size_t i = 0;
  for (const auto& [name, view] : file->tensors()) {
    if (finite[i++] == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("weights: tensor ", name, " holds a NaN or an infinity"));
    }
  }
  return absl::OkStatus();
}

}  // namespace cairn::engine
