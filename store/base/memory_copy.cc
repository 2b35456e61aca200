#define XXH_INLINE_ALL
#include "store/base/memory_copy.h"

#include <immintrin.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace cairn {
namespace {

// Measured: beyond what the processor fetches ahead by itself, which ends at each page.
constexpr size_t kPrefetchBytes = 2048;
// With which hint, is measured too: on a Xeon copies with the one for bytes that are used once were
// slower (a bare loop of these: 5.3 against 7.0 GB/s); on an EPYC it was the better one.
const bool kPrefetchNear = __builtin_cpu_is("intel") != 0;
constexpr size_t kVector = sizeof(__m256i);
constexpr size_t kStripe = 64;  // XXH3's
constexpr size_t kStripesPerBlock = 16;
constexpr size_t kSecretStep = 8;
constexpr size_t kLastStripeSecret = XXH_SECRET_DEFAULT_SIZE - kStripe - XXH_SECRET_LASTACC_START;
static_assert(kStripesPerBlock == (XXH_SECRET_DEFAULT_SIZE - kStripe) / kSecretStep);

__m256i Load(const uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
void Store(uint8_t* to, __m256i value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), value);
}
void StoreStreaming(uint8_t* to, __m256i value) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), value);
}

// One load, whatever the optimiser thinks of memory: another process may write it.
__m256i LoadOnce(const uint8_t* from) {
  __m256i value = Load(from);
  asm volatile("" : "+x"(value));
  return value;
}

void CopyLine(uint8_t* to, const uint8_t* from) {
  const __m256i low = Load(from), high = Load(from + kVector);
  StoreStreaming(to, low);
  StoreStreaming(to + kVector, high);
}

// XXH3-64's state for inputs of more than 240 bytes: eight lanes in two vectors. The library's own
// loops hash memory; these hash registers.
class Xxh3Lanes {
 public:
  void Add(__m256i low, __m256i high, const uint8_t* secret) {
    low_ = Mixed(low_, low, Load(secret));
    high_ = Mixed(high_, high, Load(secret + kVector));
  }
  void Scramble() {
    const uint8_t* secret = XXH3_kSecret + XXH_SECRET_DEFAULT_SIZE - kStripe;
    low_ = Scrambled(low_, Load(secret));
    high_ = Scrambled(high_, Load(secret + kVector));
  }
  uint64_t Result(uint64_t bytes) const {
    alignas(kStripe) xxh_u64 lanes[8];
    std::memcpy(lanes, &low_, kVector);
    std::memcpy(lanes + 4, &high_, kVector);
    return XXH3_mergeAccs(lanes, XXH3_kSecret + XXH_SECRET_MERGEACCS_START, bytes * XXH_PRIME64_1);
  }

 private:
  static __m256i Mixed(__m256i lanes, __m256i data, __m256i secret) {
    const __m256i keyed = _mm256_xor_si256(data, secret);
    const __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
    const __m256i swapped = _mm256_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2));
    return _mm256_add_epi64(product, _mm256_add_epi64(lanes, swapped));
  }
  static __m256i Scrambled(__m256i lanes, __m256i secret) {
    const __m256i prime = _mm256_set1_epi32(static_cast<int>(XXH_PRIME32_1));
    lanes = _mm256_xor_si256(_mm256_xor_si256(lanes, _mm256_srli_epi64(lanes, 47)), secret);
    const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(lanes, 32), prime);
    return _mm256_add_epi64(_mm256_mul_epu32(lanes, prime), _mm256_slli_epi64(high, 32));
  }

  alignas(kStripe) static constexpr xxh_u64 kStart[8] = XXH3_INIT_ACC;
  __m256i low_ = Load(reinterpret_cast<const uint8_t*>(kStart));
  __m256i high_ = Load(reinterpret_cast<const uint8_t*>(kStart + 4));
};

// Through `to`, which is in the first-level cache.
template <_mm_hint kHint>
void HashAndKeep(Xxh3Lanes& lanes, const uint8_t* from, size_t stripes, uint8_t* to) {
  for (size_t i = 0; i < stripes; ++i) {
    const uint8_t* stripe = from + i * kStripe;
    _mm_prefetch(reinterpret_cast<const char*>(stripe + kPrefetchBytes), kHint);
    const __m256i low = LoadOnce(stripe), high = LoadOnce(stripe + kVector);
    Store(to + i * kStripe, low);
    Store(to + i * kStripe + kVector, high);
    lanes.Add(low, high, XXH3_kSecret + i * kSecretStep);
  }
}

}  // namespace

void CopyStreaming(uint8_t* destination, std::span<const uint8_t> source) {
  const size_t off_line = reinterpret_cast<uintptr_t>(destination) % kStripe;
  const size_t head = off_line == 0 ? 0 : std::min(kStripe - off_line, source.size());
  const uint8_t* from = source.data();
  size_t left = source.size() - head;
  if (head != 0) std::memcpy(destination, from, head);
  destination += head;
  from += head;
  for (; left >= kStripe; left -= kStripe, destination += kStripe, from += kStripe) {
    CopyLine(destination, from);
  }
  if (left != 0) std::memcpy(destination, from, left);
  _mm_sfence();
}

StreamingWriter::StreamingWriter(uint8_t* destination)
    : line_(destination - reinterpret_cast<uintptr_t>(destination) % kLine),
      skip_(reinterpret_cast<uintptr_t>(destination) % kLine),
      pending_(skip_) {}

uint64_t StreamingWriter::Append(std::span<const uint8_t> piece) {
  if (piece.size() > XXH3_MIDSIZE_MAX) return AppendLong(piece);
  if (piece.empty()) return XXH3_64bits(nullptr, 0);
  uint8_t* const kept = buffer_ + kLine + pending_;
  std::memcpy(kept, piece.data(), piece.size());
  // Hashed where it was copied to: the source may differ by now.
  asm volatile("" : : : "memory");
  const uint64_t xxh3 = XXH3_64bits(kept, piece.size());
  pending_ += piece.size();
  Flush();
  return xxh3;
}

uint64_t StreamingWriter::AppendLong(std::span<const uint8_t> piece) {
  return kPrefetchNear ? AppendLongBy<_MM_HINT_T0>(piece) : AppendLongBy<_MM_HINT_NTA>(piece);
}

template <int kHint>
uint64_t StreamingWriter::AppendLongBy(std::span<const uint8_t> piece) {
  constexpr auto kPrefetch = static_cast<_mm_hint>(kHint);
  static_assert(kBlock == kStripesPerBlock * kStripe && kLine == kStripe);
  Xxh3Lanes lanes;
  const uint8_t* from = piece.data();
  size_t left = piece.size();
  // The last block is never whole: it ends with a stripe that has a rule of its own.
  for (; left > kBlock; left -= kBlock, from += kBlock) {
    HashAndKeep<kPrefetch>(lanes, from, kStripesPerBlock, buffer_ + kLine + pending_);
    lanes.Scramble();
    pending_ += kBlock;
    Flush();
  }
  const size_t stripes = (left - 1) / kStripe;
  uint8_t* const kept = buffer_ + kLine + pending_;
  HashAndKeep<kPrefetch>(lanes, from, stripes, kept);
  std::memcpy(kept + stripes * kStripe, from + stripes * kStripe, left - stripes * kStripe);
  asm volatile("" : : : "memory");
  const uint8_t* last = kept + left - kStripe;  // may begin in the line before
  lanes.Add(Load(last), Load(last + kVector), XXH3_kSecret + kLastStripeSecret);
  pending_ += left;
  Flush();
  return lanes.Result(piece.size());
}

void StreamingWriter::Flush() {
  const size_t whole = pending_ / kLine * kLine;
  if (whole == 0) return;
  const uint8_t* const lines = buffer_ + kLine;
  size_t at = 0;
  if (skip_ != 0) {
    std::memcpy(line_ + skip_, lines + skip_, kLine - skip_);
    skip_ = 0;
    at = kLine;
  }
  for (; at < whole; at += kLine) CopyLine(line_ + at, lines + at);
  // The last line written stays in front of what is left.
  for (size_t i = 0; i < 2 * kLine; i += kVector) Store(buffer_ + i, Load(buffer_ + whole + i));
  line_ += whole;
  pending_ -= whole;
}

void StreamingWriter::Finish() {
  if (pending_ > skip_) std::memcpy(line_ + skip_, buffer_ + kLine + skip_, pending_ - skip_);
  skip_ = pending_;
  _mm_sfence();
}

uint64_t CopyAndChecksum(uint8_t* destination, std::span<const uint8_t> source) {
  StreamingWriter writer(destination);
  const uint64_t xxh3 = writer.Append(source);
  writer.Finish();
  return xxh3;
}

}  // namespace cairn
