#include "store/base/random.h"

#include <sys/random.h>

#include <cstdio>
#include <cstdlib>

namespace cairn {
namespace {

class KernelRandom final : public Random {
 public:
  void Fill(std::span<uint8_t> out) override {
    while (!out.empty()) {
      const ssize_t got = getrandom(out.data(), out.size(), 0);
      if (got <= 0) {
        std::perror("cairn: getrandom");
        std::abort();
      }
      out = out.subspan(static_cast<size_t>(got));
    }
  }
};

}  // namespace

Random& SystemRandom() {
  static KernelRandom& random = *new KernelRandom;  // as RealClock
  return random;
}

}  // namespace cairn
