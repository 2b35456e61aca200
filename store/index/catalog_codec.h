// catalog_codec.h: the bytes of the catalog's keys and values.
//
//   entry key    'e' digest[32] kind u8
//   entry value  version u8, location (segment, offset, bytes, sequence: u64 each), part count u32,
//                attributes' bytes u16, parts (bytes u32, xxh3 u64 each), attributes,
//                XXH3-64 of key and all before it u64
//   value key    'v' name
//
// Little-endian, no padding. The checksum covers the key, so a value under a wrong key is damage.
//
// Threads: pure functions. Errors: DATA_LOSS from decoding.
#ifndef CAIRN_STORE_INDEX_CATALOG_CODEC_H_
#define CAIRN_STORE_INDEX_CATALOG_CODEC_H_

#include <string>
#include <string_view>

#include "store/index/catalog.h"

namespace cairn::store {

inline constexpr uint8_t kCatalogValueVersion = 1;
inline constexpr char kEntryKeyPrefix = 'e';

std::string EncodeEntryKey(const EntryKey& key);
std::string EncodeEntryValue(const CatalogEntry& entry);
absl::StatusOr<CatalogEntry> DecodeEntry(std::string_view key, std::string_view value);
std::string EncodeValueKey(const std::string& name);

}  // namespace cairn::store

#endif  // CAIRN_STORE_INDEX_CATALOG_CODEC_H_
