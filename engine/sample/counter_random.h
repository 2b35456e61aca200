// counter_random.h: random numbers by place instead of by turn: the number at (seed, position) is
// the same whoever else draws, in whatever order. Philox 4x32, 10 rounds (Salmon et al., "Parallel
// random numbers: as easy as 1, 2, 3", 2011). Not for secrets.
//
// Threads: pure functions. Errors: none.
#ifndef CAIRN_ENGINE_SAMPLE_COUNTER_RANDOM_H_
#define CAIRN_ENGINE_SAMPLE_COUNTER_RANDOM_H_

#include <array>
#include <cstdint>

namespace cairn::engine {

using PhiloxBlock = std::array<uint32_t, 4>;

inline PhiloxBlock Philox(PhiloxBlock counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// In [0, 1), of 53 random bits.
inline double UniformAt(uint64_t seed, uint64_t position) {
  const PhiloxBlock block =
      Philox({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0},
             {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = uint64_t{block[1]} << 32 | block[0];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SAMPLE_COUNTER_RANDOM_H_
