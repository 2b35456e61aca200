#include "cache/core/attributes.h"

#include <cstring>

namespace cairn::cache {

bool Consistent(const EntryAttributes& attributes) {
  return attributes.index < kBlocksPerPrefixMax &&
         (attributes.index == 0) == (attributes.parent == attributes.root);
}

std::string EncodeAttributes(const EntryAttributes& attributes) {
  std::string bytes;
  bytes.reserve(kAttributesBytes);
  bytes.push_back(static_cast<char>(kAttributesVersion));
  bytes += attributes.root.AsView();
  bytes += attributes.parent.AsView();
  for (int shift = 0; shift < 32; shift += 8) {
    bytes.push_back(static_cast<char>(attributes.index >> shift));
  }
  return bytes;
}

absl::StatusOr<EntryAttributes> DecodeAttributes(const std::string& bytes) {
  if (bytes.empty() || static_cast<uint8_t>(bytes[0]) != kAttributesVersion) {
    return absl::DataLossError(
        absl::StrCat("attributes: version ",
                     bytes.empty() ? 0 : static_cast<int>(static_cast<uint8_t>(bytes[0])),
                     ", this program reads ", static_cast<int>(kAttributesVersion)));
  }
  if (bytes.size() != kAttributesBytes) {
    return absl::DataLossError(
        absl::StrCat("attributes: ", bytes.size(), " bytes instead of ", kAttributesBytes));
  }
  EntryAttributes attributes;
  const char* in = bytes.data() + 1;
  std::memcpy(attributes.root.bytes.data(), in, Digest::kBytes);
  in += Digest::kBytes;
  std::memcpy(attributes.parent.bytes.data(), in, Digest::kBytes);
  in += Digest::kBytes;
  for (int shift = 0; shift < 32; shift += 8) {
    attributes.index |= static_cast<uint32_t>(static_cast<uint8_t>(*in++)) << shift;
  }
  if (!Consistent(attributes)) {
    return absl::DataLossError(
        absl::StrCat("attributes: block index ", attributes.index, " does not fit its parent"));
  }
  return attributes;
}

}  // namespace cairn::cache
