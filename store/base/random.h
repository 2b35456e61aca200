// random.h: the only door to randomness. SystemRandom() is the kernel's; SeededRandom repeats
// itself for tests.
//
// Threads: any for SystemRandom; SeededRandom is externally synchronised.
#ifndef CAIRN_STORE_BASE_RANDOM_H_
#define CAIRN_STORE_BASE_RANDOM_H_

#include <cstdint>
#include <random>
#include <span>

namespace cairn {

class Random {
 public:
  virtual ~Random() = default;
  virtual void Fill(std::span<uint8_t> out) = 0;
  uint64_t Next() {
    uint64_t value = 0;
    Fill({reinterpret_cast<uint8_t*>(&value), sizeof(value)});
    return value;
  }
};

// Lives for the whole process; aborts if the kernel gives no entropy.
Random& SystemRandom();

class SeededRandom final : public Random {
 public:
  explicit SeededRandom(uint64_t seed) : engine_(seed) {}
  void Fill(std::span<uint8_t> out) override {
    for (uint8_t& byte : out) byte = static_cast<uint8_t>(engine_());
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_RANDOM_H_
