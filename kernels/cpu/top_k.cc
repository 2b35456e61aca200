#include "kernels/cpu/top_k.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>

namespace cairn::kernels {
namespace {

constexpr int kBins = 2048;
constexpr int kBinShift = 21;

// Order-preserving: a < b as floats exactly if Key(a) < Key(b) as numbers (with -0 equal to +0).
inline uint32_t Key(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// The larger, the better: by the score, then by the lower index. No two are equal.
inline uint64_t Rank(float score, int64_t i) {
  return uint64_t{Key(score)} << 32 | ~static_cast<uint32_t>(i);
}

}  // namespace

void TopK(const float* scores, int64_t n, int64_t k, std::vector<int32_t>& out) {
  out.clear();
  if (k >= n) {
    out.resize(static_cast<size_t>(n));
    std::iota(out.begin(), out.end(), 0);
    return;
  }
  if (k <= 0) return;
  std::vector<uint64_t> edge;  // ranks of those that are not known to be among them, or not to be
  const auto least_of = [&edge](int64_t count) {
    const auto last = edge.begin() + (count - 1);
    std::nth_element(edge.begin(), last, edge.end(), std::greater<>());
    return *last;
  };
  if (n < kBins) {
    edge.resize(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) edge[static_cast<size_t>(i)] = Rank(scores[i], i);
    const uint64_t least = least_of(k);
    out.resize(static_cast<size_t>(k) + 1);  // one more, as each is written before it is looked at
    int32_t* to = out.data();
    for (int64_t i = 0; i < n; ++i) {
      *to = static_cast<int32_t>(i);
      if (Rank(scores[i], i) >= least) ++to;
    }
    out.pop_back();
    return;
  }
  // The k-th largest lies in the bin where the count from above first reaches k; only that bin is
  // sorted.
  int32_t histogram[kBins] = {};
  for (int64_t i = 0; i < n; ++i) ++histogram[Key(scores[i]) >> kBinShift];
  int bin = kBins - 1;
  int64_t above = 0;
  while (above + histogram[bin] < k) above += histogram[bin--];
  for (int64_t i = 0; i < n; ++i) {
    const int b = static_cast<int>(Key(scores[i]) >> kBinShift);
    if (b > bin) out.push_back(static_cast<int32_t>(i));
    if (b == bin) edge.push_back(Rank(scores[i], i));
  }
  const uint64_t least = least_of(k - above);
  for (const uint64_t rank : edge) {
    if (rank >= least) out.push_back(static_cast<int32_t>(~static_cast<uint32_t>(rank)));
  }
  std::sort(out.begin(), out.end());
}

}  // namespace cairn::kernels
