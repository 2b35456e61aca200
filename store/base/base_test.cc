// Goal: the values that are written to disk and hashed into keys never change. Method: published
// vectors.
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "store/base/checksum.h"
#include "store/base/digest.h"
#include "store/base/limits.h"
#include "store/base/random.h"

namespace cairn {
namespace {

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(DigestTest, MatchesPublishedVectors) {
  // FIPS 180-4 and RFC 4231, case 2.
  EXPECT_EQ(Sha256(Bytes("abc")).ToHex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256({}).ToHex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(HmacSha256(Bytes("Jefe"), Bytes("what do ya want for nothing?")).ToHex(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(DigestTest, HexRoundTripsAndNothingElseParses) {
  const Digest digest = Sha256(Bytes("x"));
  EXPECT_EQ(Digest::FromHex(digest.ToHex()), digest);
  EXPECT_EQ(Digest::FromBytes(digest.AsView()), digest);
  EXPECT_EQ(Digest::FromHex(digest.ToHex().substr(1)), std::nullopt);
  EXPECT_EQ(Digest::FromHex(digest.ToHex() + "0"), std::nullopt);
  std::string wrong = digest.ToHex();
  wrong[5] = 'g';
  EXPECT_EQ(Digest::FromHex(wrong), std::nullopt);
  EXPECT_EQ(Digest::FromBytes("short"), std::nullopt);
}

TEST(DigestTest, EveryBitDecidesEquality) {
  const Digest digest = Sha256(Bytes("x"));
  for (size_t bit = 0; bit < 8 * Digest::kBytes; ++bit) {
    Digest other = digest;
    EXPECT_TRUE(other == digest);
    other.bytes[bit / 8] = static_cast<uint8_t>(other.bytes[bit / 8] ^ (1u << bit % 8));
    EXPECT_FALSE(other == digest) << bit;
    EXPECT_NE(other <=> digest, std::strong_ordering::equal) << bit;
  }
}

TEST(ChecksumTest, IsXxh3) {
  EXPECT_EQ(Checksum({}), 0x2d06800538d394c2u);
  EXPECT_NE(Checksum(Bytes("a")), Checksum(Bytes("b")));
  // Long enough for the wider vectors where the processor has them; by the shared library's
  // XXH3_64bits.
  std::vector<uint8_t> bytes(5000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 31 + i / 256);
  EXPECT_EQ(Checksum(bytes), 0xc0dd97972a4d2de3u);
}

TEST(RandomTest, SeededRepeatsItselfAndTheKernelsDoesNot) {
  SeededRandom a(1), b(1), c(2);
  const uint64_t first = a.Next();
  EXPECT_EQ(first, b.Next());
  EXPECT_NE(first, c.Next());
  EXPECT_NE(SystemRandom().Next(), SystemRandom().Next());
}

TEST(LimitsTest, RoundsUpToWholeUnits) {
  EXPECT_EQ(RoundUpToIo(0), 0u);
  EXPECT_EQ(RoundUpToIo(1), 4096u);
  EXPECT_EQ(RoundUpToIo(4096), 4096u);
  EXPECT_EQ(RoundUpToIo(4097), 8192u);
}

}  // namespace
}  // namespace cairn
