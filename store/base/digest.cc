#include "store/base/digest.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstdio>
#include <cstdlib>

namespace cairn {
namespace {

[[noreturn]] void OpenSslBroken(const char* what) {
  std::fprintf(stderr, "cairn: OpenSSL cannot compute %s; is the library installed whole?\n", what);
  std::abort();
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string Digest::ToHex() const {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * kBytes);
  for (const uint8_t byte : bytes) {
    hex.push_back(kHex[byte >> 4]);
    hex.push_back(kHex[byte & 15]);
  }
  return hex;
}

std::optional<Digest> Digest::FromHex(std::string_view hex) {
  if (hex.size() != 2 * kBytes) return std::nullopt;
  Digest d;
  for (size_t i = 0; i < kBytes; ++i) {
    const int high = HexValue(hex[2 * i]);
    const int low = HexValue(hex[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    d.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return d;
}

std::optional<Digest> Digest::FromBytes(std::string_view raw) {
  if (raw.size() != kBytes) return std::nullopt;
  Digest d;
  std::memcpy(d.bytes.data(), raw.data(), kBytes);
  return d;
}

Digest Sha256(std::span<const uint8_t> data) {
  Digest d;
  unsigned int size = 0;
  if (EVP_Digest(data.data(), data.size(), d.bytes.data(), &size, EVP_sha256(), nullptr) != 1) {
    OpenSslBroken("SHA-256");
  }
  return d;
}

Digest HmacSha256(std::span<const uint8_t> key, std::span<const uint8_t> data) {
  Digest d;
  unsigned int size = 0;
  if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), data.data(), data.size(),
           d.bytes.data(), &size) == nullptr) {
    OpenSslBroken("HMAC-SHA-256");
  }
  return d;
}

}  // namespace cairn
