#include "store/index/catalog_codec.h"

#include <cstring>
#include <span>
#include <type_traits>

#include "store/base/checksum.h"
#include "store/base/limits.h"

namespace cairn::store {
namespace {

constexpr size_t kKeyBytes = 1 + Digest::kBytes + 1;
constexpr uint64_t kRecordHeaderUnitsMax = 3;  // store/segment/FORMAT.md

template <typename T>
void Append(std::string& out, T value) {
  static_assert(std::is_unsigned_v<T>);
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

// Takes fields off the front; `ok` falls when there are not enough bytes.
struct Reader {
  std::string_view left;
  bool ok = true;

  template <typename T>
  T Take() {
    T value{};
    if (left.size() < sizeof(T)) {
      ok = false;
      return value;
    }
    std::memcpy(&value, left.data(), sizeof(T));
    left.remove_prefix(sizeof(T));
    return value;
  }
};

uint64_t ChecksumOf(std::string_view key, std::string_view value) {
  std::string both(key);
  both.append(value);
  return Checksum({reinterpret_cast<const uint8_t*>(both.data()), both.size()});
}

// Whether an entry and its place can be, by the bounds of limits.h. The checksum holds, so only a
// writer's mistake can fail here; it must not spread.
bool Possible(const CatalogEntry& entry) {
  const EntryKind kind = entry.meta.key.kind;
  const uint64_t payload = entry.meta.payload_bytes();
  const RecordLocation& at = entry.location;
  return (kind == EntryKind::kRows || kind == EntryKind::kCheckpoint) && payload > 0 &&
         payload <= kEntryBytesMax && at.offset % kIoAlignment == 0 &&
         at.bytes % kIoAlignment == 0 && at.bytes > RoundUpToIo(payload) &&
         at.bytes <= RoundUpToIo(payload) + kRecordHeaderUnitsMax * kIoAlignment &&
         at.offset <= UINT64_MAX - at.bytes;
}

}  // namespace

std::string EncodeEntryKey(const EntryKey& key) {
  std::string out(1, kEntryKeyPrefix);
  out.append(key.digest.AsView());
  out.push_back(static_cast<char>(key.kind));
  return out;
}

std::string EncodeValueKey(const std::string& name) { return "v" + name; }

std::string EncodeEntryValue(const CatalogEntry& entry) {
  std::string out;
  Append<uint8_t>(out, kCatalogValueVersion);
  Append<uint64_t>(out, entry.location.segment);
  Append<uint64_t>(out, entry.location.offset);
  Append<uint64_t>(out, entry.location.bytes);
  Append<uint64_t>(out, entry.location.sequence);
  Append<uint32_t>(out, static_cast<uint32_t>(entry.meta.parts.size()));
  Append<uint16_t>(out, static_cast<uint16_t>(entry.meta.attributes.size()));
  for (const EntryPart& part : entry.meta.parts) {
    Append<uint32_t>(out, part.bytes);
    Append<uint64_t>(out, part.xxh3);
  }
  out.append(entry.meta.attributes);
  Append<uint64_t>(out, ChecksumOf(EncodeEntryKey(entry.meta.key), out));
  return out;
}

absl::StatusOr<CatalogEntry> DecodeEntry(std::string_view key, std::string_view value) {
  if (key.size() != kKeyBytes || key.front() != kEntryKeyPrefix) {
    return absl::DataLossError("catalog key is not an entry's");
  }
  if (value.size() < sizeof(uint64_t)) return absl::DataLossError("catalog value is cut short");
  const std::string_view body = value.substr(0, value.size() - sizeof(uint64_t));
  Reader tail{.left = value.substr(body.size())};
  if (tail.Take<uint64_t>() != ChecksumOf(key, body)) {
    return absl::DataLossError("catalog value does not match its checksum");
  }
  Reader reader{.left = body};
  if (const auto version = reader.Take<uint8_t>(); version != kCatalogValueVersion) {
    return absl::DataLossError(absl::StrCat("catalog value of version ", static_cast<int>(version),
                                            ", this is ", static_cast<int>(kCatalogValueVersion)));
  }
  CatalogEntry entry;
  std::memcpy(entry.meta.key.digest.bytes.data(), key.data() + 1, Digest::kBytes);
  entry.meta.key.kind = static_cast<EntryKind>(key.back());
  entry.location.segment = reader.Take<uint64_t>();
  entry.location.offset = reader.Take<uint64_t>();
  entry.location.bytes = reader.Take<uint64_t>();
  entry.location.sequence = reader.Take<uint64_t>();
  const auto parts = reader.Take<uint32_t>();
  const auto attributes = reader.Take<uint16_t>();
  if (!reader.ok || parts > kPartsPerEntryMax || attributes > kAttributesBytesMax) {
    return absl::DataLossError("catalog value over its bounds");
  }
  entry.meta.parts.reserve(parts);
  for (uint32_t i = 0; i < parts; ++i) {
    const auto bytes = reader.Take<uint32_t>();
    const auto xxh3 = reader.Take<uint64_t>();
    entry.meta.parts.push_back({.bytes = bytes, .xxh3 = xxh3});
  }
  if (!reader.ok || reader.left.size() != attributes) {
    return absl::DataLossError("catalog value contradicts itself");
  }
  entry.meta.attributes = std::string(reader.left);
  if (!Possible(entry)) return absl::DataLossError("catalog value names an impossible record");
  return entry;
}

}  // namespace cairn::store
