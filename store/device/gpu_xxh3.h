// gpu_xxh3.h: XXH3-64 (seed 0, its own secret) cut so that eight threads of a GPU make one: each
// keeps one of the eight sums that XXH3 runs side by side. Compiled for the device and, to be
// tested against xxhash.h on any machine, for the host.
//
// A lane sees the input in stripes of 64 bytes, its own 8 bytes of each and its neighbour's
// (lane ^ 1). 16 stripes are a block; after a block that is not the last the sums are scrambled.
// Up to kXxh3ShortMax bytes XXH3 is another function, made by one thread.
//
// Threads: pure functions. Units: bytes.
#ifndef CAIRN_STORE_DEVICE_GPU_XXH3_H_
#define CAIRN_STORE_DEVICE_GPU_XXH3_H_

#include <cstdint>

#ifdef __CUDACC__
#define CAIRN_HOST_AND_DEVICE __host__ __device__
#else
#define CAIRN_HOST_AND_DEVICE
#endif

namespace cairn::store::xxh3 {

inline constexpr uint32_t kLanes = 8;
inline constexpr uint32_t kStripeBytes = 64;
inline constexpr uint32_t kBlockStripes = 16;
inline constexpr uint32_t kShortMax = 240;
inline constexpr uint32_t kSecretBytes = 192;

inline constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F,
                          kPrime3 = 0x165667B19E3779F9, kPrime4 = 0x85EBCA77C2B2AE63,
                          kPrime5 = 0x27D4EB2F165667C5;
inline constexpr uint64_t kPrime32_1 = 0x9E3779B1, kPrime32_2 = 0x85EBCA77, kPrime32_3 = 0xC2B2AE3D;

// Eight bytes of the secret from `offset` on. REQUIRES: offset <= kSecretBytes - 8.
CAIRN_HOST_AND_DEVICE inline uint64_t Secret(uint32_t offset) {
  static constexpr uint64_t kWords[kSecretBytes / 8] = {
      0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072,
      0x78e5c0cc4ee679cb, 0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0,
      0xcb00c391bb52283c, 0xa32e531b8b65d088, 0x4ef90da297486471, 0xd8acdea946ef1938,
      0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a, 0x647378d9c97e9fc8,
      0xc3ebd33483acc5ea, 0xeb6313faffa081c5, 0x49daf0b751dd0d17, 0x9e68d429265516d3,
      0xfca1477d58be162b, 0xce31d07ad1b8f88f, 0x280416958f3acb45, 0x7e404bbbcafbd7af};
  const uint32_t word = offset / 8, bits = offset % 8 * 8;
  if (bits == 0) return kWords[word];
  return (kWords[word] >> bits) | (kWords[word + 1] << (64 - bits));
}

// Of any alignment. Little-endian, as both machines are.
template <typename Word>
CAIRN_HOST_AND_DEVICE inline uint64_t Read(const uint8_t* at) {
  Word word = 0;
  for (uint32_t i = 0; i < sizeof(Word); ++i) word |= static_cast<Word>(Word{at[i]} << (8 * i));
  return word;
}

CAIRN_HOST_AND_DEVICE inline uint64_t Fold(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return (a * b) ^ __umul64hi(a, b);
#else
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
#endif
}

CAIRN_HOST_AND_DEVICE inline uint64_t Avalanche(uint64_t h) {
  h ^= h >> 37;
  h *= 0x165667919E3779F9;
  return h ^ (h >> 32);
}

CAIRN_HOST_AND_DEVICE inline uint64_t Mix(const uint8_t* at, uint32_t secret) {
  return Fold(Read<uint64_t>(at) ^ Secret(secret), Read<uint64_t>(at + 8) ^ Secret(secret + 8));
}

CAIRN_HOST_AND_DEVICE inline uint64_t Upto16(const uint8_t* data, uint32_t bytes) {
  if (bytes > 8) {
    const uint64_t low = Read<uint64_t>(data) ^ Secret(24) ^ Secret(32);
    const uint64_t high = Read<uint64_t>(data + bytes - 8) ^ Secret(40) ^ Secret(48);
    uint64_t swapped = 0;
    for (uint32_t i = 0; i < 8; ++i) swapped |= (low >> (8 * i) & 0xff) << (56 - 8 * i);
    return Avalanche(bytes + swapped + high + Fold(low, high));
  }
  if (bytes >= 4) {
    const uint64_t both = Read<uint32_t>(data + bytes - 4) + (Read<uint32_t>(data) << 32);
    uint64_t h = both ^ Secret(8) ^ Secret(16);
    h ^= (h << 49 | h >> 15) ^ (h << 24 | h >> 40);
    h *= 0x9FB21C651E98DF25;
    h ^= (h >> 35) + bytes;
    h *= 0x9FB21C651E98DF25;
    return h ^ (h >> 28);
  }
  uint64_t h = (Secret(0) ^ Secret(4)) & 0xffffffff;
  if (bytes == 0) {
    h = Secret(56) ^ Secret(64);
  } else {
    h ^= uint64_t{data[0]} << 16 | uint64_t{data[bytes >> 1]} << 24 | data[bytes - 1] |
         uint64_t{bytes} << 8;
  }
  h ^= h >> 33;
  h *= kPrime2;
  h ^= h >> 29;
  h *= kPrime3;
  return h ^ (h >> 32);
}

// The whole of it. REQUIRES: bytes <= kShortMax.
CAIRN_HOST_AND_DEVICE inline uint64_t Short(const uint8_t* data, uint32_t bytes) {
  if (bytes <= 16) return Upto16(data, bytes);
  uint64_t sum = bytes * kPrime1;
  if (bytes <= 128) {
    // Pairs from both ends inwards.
    for (uint32_t i = 0; i <= (bytes - 1) / 32; ++i) {
      sum += Mix(data + 16 * i, 32 * i) + Mix(data + bytes - 16 * (i + 1), 32 * i + 16);
    }
    return Avalanche(sum);
  }
  for (uint32_t i = 0; i < 8; ++i) sum += Mix(data + 16 * i, 16 * i);
  sum = Avalanche(sum);
  for (uint32_t i = 8; i < bytes / 16; ++i) sum += Mix(data + 16 * i, 16 * (i - 8) + 3);
  return Avalanche(sum + Mix(data + bytes - 16, 136 - 17));
}

CAIRN_HOST_AND_DEVICE inline uint64_t LaneBegin(uint32_t lane) {
  static constexpr uint64_t kBegin[kLanes] = {kPrime32_3, kPrime1,    kPrime2, kPrime3,
                                              kPrime4,    kPrime32_2, kPrime5, kPrime32_1};
  return kBegin[lane];
}
// A lane's key for stripe i of a block is LaneKey(lane, i); the last stripe, which ends where the
// input ends, and the scrambling have their own.
CAIRN_HOST_AND_DEVICE inline uint64_t LaneKey(uint32_t lane, uint32_t stripe) {
  return Secret(8 * (lane + stripe));
}
CAIRN_HOST_AND_DEVICE inline uint64_t LaneKeyLast(uint32_t lane) {
  return Secret(kSecretBytes - kStripeBytes - 7 + 8 * lane);
}
CAIRN_HOST_AND_DEVICE inline uint64_t LaneKeyScramble(uint32_t lane) {
  return Secret(kSecretBytes - kStripeBytes + 8 * lane);
}
CAIRN_HOST_AND_DEVICE inline uint64_t LaneAdd(uint64_t sum, uint64_t own, uint64_t neighbours,
                                              uint64_t key) {
  const uint64_t keyed = own ^ key;
  return sum + neighbours + (keyed & 0xffffffff) * (keyed >> 32);
}
CAIRN_HOST_AND_DEVICE inline uint64_t LaneScramble(uint64_t sum, uint64_t key) {
  return (sum ^ sum >> 47 ^ key) * kPrime32_1;
}
// Of an even lane and its neighbour: what it adds to the result.
CAIRN_HOST_AND_DEVICE inline uint64_t PairResult(uint32_t even_lane, uint64_t even, uint64_t odd) {
  return Fold(even ^ Secret(11 + 8 * even_lane), odd ^ Secret(19 + 8 * even_lane));
}
// Of the four pairs' sum.
CAIRN_HOST_AND_DEVICE inline uint64_t Result(uint64_t pairs, uint64_t bytes) {
  return Avalanche(pairs + bytes * kPrime1);
}

}  // namespace cairn::store::xxh3

#endif  // CAIRN_STORE_DEVICE_GPU_XXH3_H_
