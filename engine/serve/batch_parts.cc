#include "engine/serve/batch_parts.h"

#include <algorithm>
#include <utility>

namespace cairn::engine {
namespace {

bool Wants(const BatchItem* item) { return item->want != WantLogits::kNone; }

}  // namespace

std::vector<BatchPart> PartsOf(std::span<BatchItem> items) {
  BatchPart decoding;
  std::vector<BatchPart> parts;
  for (BatchItem& item : items) {
    if (item.tokens.size() == 1) {
      decoding.items.push_back(&item);
    } else {
      parts.push_back({.items = {&item}});
    }
  }
  std::stable_partition(decoding.items.begin(), decoding.items.end(), Wants);
  if (!decoding.items.empty()) parts.insert(parts.begin(), std::move(decoding));
  for (BatchPart& part : parts) {
    part.wanting = static_cast<size_t>(std::ranges::count_if(part.items, Wants));
  }
  return parts;
}

}  // namespace cairn::engine
