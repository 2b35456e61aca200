#include "kernels/cpu/top_k.h"

#include <algorithm>
#include <bit>
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

}  // namespace

void TopK(const float* scores, int64_t n, int64_t k, std::vector<int32_t>& out) {
  out.clear();
  if (k >= n) {
    out.resize(static_cast<size_t>(n));
    std::iota(out.begin(), out.end(), 0);
    return;
  }
  if (k <= 0) return;
  std::vector<int32_t> edge;  // those that are not known to be among them, or not to be
  int64_t above = 0;
  if (n < kBins) {
    edge.resize(static_cast<size_t>(n));
    std::iota(edge.begin(), edge.end(), 0);
  } else {
    // The k-th largest lies in the bin where the count from above first reaches k; only that bin is
    // sorted.
    int32_t histogram[kBins] = {};
    for (int64_t i = 0; i < n; ++i) ++histogram[Key(scores[i]) >> kBinShift];
    int bin = kBins - 1;
    while (above + histogram[bin] < k) above += histogram[bin--];
    for (int64_t i = 0; i < n; ++i) {
      const int b = static_cast<int>(Key(scores[i]) >> kBinShift);
      if (b > bin) out.push_back(static_cast<int32_t>(i));
      if (b == bin) edge.push_back(static_cast<int32_t>(i));
    }
  }
  const auto wanted = edge.begin() + (k - above);
  const auto before = [scores](int32_t a, int32_t b) {
    const uint32_t key_a = Key(scores[a]);
    const uint32_t key_b = Key(scores[b]);
    return key_a != key_b ? key_a > key_b : a < b;
  };
  if (wanted != edge.end()) std::nth_element(edge.begin(), wanted, edge.end(), before);
  out.insert(out.end(), edge.begin(), wanted);
  std::sort(out.begin(), out.end());
}

}  // namespace cairn::kernels
