#include "cache/service/validate.h"

#include <algorithm>

#include "cache/client/protocol.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr uint32_t kListDefault = 1000;

template <typename... Text>
absl::Status Bad(const Text&... text) {
  return absl::InvalidArgumentError(absl::StrCat(text...));
}

absl::Status AtMost(const std::string& field, uint64_t value, uint64_t bound, const char* unit) {
  if (value <= bound) return absl::OkStatus();
  return Bad(field, ": ", value, unit, ", at most ", bound, " are allowed");
}

absl::StatusOr<Digest> DecodeDigest(const std::string& field, const std::string& raw) {
  if (const std::optional<Digest> digest = Digest::FromBytes(raw)) return *digest;
  return Bad(field, ": ", raw.size(), " bytes, must be exactly ", Digest::kBytes);
}

absl::StatusOr<LayoutDescriptor> DecodeLayout(const v1::LayoutDescriptor& in) {
  CAIRN_RETURN_IF_ERROR(AtMost("layout.components", static_cast<uint64_t>(in.components_size()),
                               kLayoutComponentsMax, " components"));
  CAIRN_RETURN_IF_ERROR(AtMost("layout.model", in.model().size(), kLayoutTextBytesMax, " bytes"));
  CAIRN_RETURN_IF_ERROR(
      AtMost("layout.numerics", in.numerics().size(), kLayoutTextBytesMax, " bytes"));
  LayoutDescriptor out;
  out.version = in.version();
  out.model = in.model();
  out.numerics = in.numerics();
  CAIRN_ASSIGN_OR_RETURN(out.weights, DecodeDigest("layout.weights", in.weights()));
  out.components.reserve(static_cast<size_t>(in.components_size()));
  for (const v1::LayoutComponent& component : in.components()) {
    const std::string field = absl::StrCat("layout.components[", out.components.size(), "]");
    CAIRN_RETURN_IF_ERROR(AtMost(absl::StrCat(field, ".name"), component.name().size(),
                                 kComponentTextBytesMax, " bytes"));
    CAIRN_RETURN_IF_ERROR(AtMost(absl::StrCat(field, ".encoding"), component.encoding().size(),
                                 kComponentTextBytesMax, " bytes"));
    if (component.scope() < 1 || component.scope() > 2) {
      return Bad(field, ".scope: ", component.scope(), " is neither prefix (1) nor trailing (2)");
    }
    out.components.push_back({.name = component.name(),
                              .scope = static_cast<LayoutScope>(component.scope()),
                              .tokens_per_row = component.tokens_per_row(),
                              .rows = component.rows(),
                              .row_bytes = component.row_bytes(),
                              .scale_bytes = component.scale_bytes(),
                              .encoding = component.encoding()});
  }
  // A layout of another version is the core's to refuse: its fields may mean something else.
  if (out.version == kLayoutVersion) CAIRN_RETURN_IF_ERROR(out.Validate());
  return out;
}

absl::StatusOr<DecodedCommitItem> DecodeCommitItem(const std::string& field,
                                                   const v1::CommitItem& in) {
  if (in.part_bytes_size() != in.part_xxh3_size()) {
    return Bad(field, ".part_xxh3: ", in.part_xxh3_size(), " values for ", in.part_bytes_size(),
               " parts in part_bytes");
  }
  if (in.part_bytes_size() == 0) return Bad(field, ".part_bytes: empty, must have at least 1");
  CAIRN_RETURN_IF_ERROR(AtMost(absl::StrCat(field, ".part_bytes"),
                               static_cast<uint64_t>(in.part_bytes_size()), kPartsPerEntryMax,
                               " parts"));
  DecodedCommitItem out;
  for (const uint32_t bytes : in.part_bytes()) out.payload_bytes += bytes;
  if (out.payload_bytes == 0)
    return Bad(field, ".part_bytes: 0 bytes together, must be at least 1");
  CAIRN_RETURN_IF_ERROR(
      AtMost(absl::StrCat(field, ".part_bytes"), out.payload_bytes, kEntryBytesMax, " bytes"));
  out.reservation = in.reservation();
  out.staging = in.staging();
  out.staging_offset = in.staging_offset();
  out.parts.reserve(static_cast<size_t>(in.part_bytes_size()));
  for (int i = 0; i < in.part_bytes_size(); ++i) {
    out.parts.push_back({in.part_bytes(i), in.part_xxh3(i)});
  }
  return out;
}

// One less than there are groups.
absl::StatusOr<std::vector<GroupEnd>> DecodeGroups(const v1::FetchRequest& request) {
  CAIRN_RETURN_IF_ERROR(
      AtMost("groups", static_cast<uint64_t>(request.groups_size()), kFetchGroupsMax - 1, " ends"));
  std::vector<GroupEnd> ends;
  GroupEnd before;
  for (const v1::GroupEnd& in : request.groups()) {
    const GroupEnd end{in.rows_bytes(), in.checkpoint_bytes()};
    CAIRN_RETURN_IF_ERROR(
        AtMost("groups", std::max(end.rows, end.checkpoint), kEntryBytesMax, " bytes"));
    if (end.rows < before.rows || end.checkpoint < before.checkpoint) {
      return Bad("groups: their ends must ascend");
    }
    ends.push_back(end);
    before = end;
  }
  return ends;
}

}  // namespace

absl::StatusOr<NamespaceSpec> DecodeSession(const v1::SessionRequest& request) {
  if (request.protocol_version() != kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "protocol version ", request.protocol_version(), " is not this daemon's, which is ",
        kProtocolVersion, "; upgrade the older of engine and daemon"));
  }
  CAIRN_RETURN_IF_ERROR(AtMost("tenant", request.tenant().size(), kTenantBytesMax, " bytes"));
  NamespaceSpec spec;
  spec.tenant = request.tenant();
  CAIRN_ASSIGN_OR_RETURN(spec.layout, DecodeLayout(request.layout()));
  return spec;
}

absl::StatusOr<std::vector<Digest>> DecodeChain(const std::string& chain) {
  if (chain.size() % Digest::kBytes != 0) {
    return Bad("chain: ", chain.size(), " bytes, must be a multiple of ", Digest::kBytes);
  }
  const size_t blocks = chain.size() / Digest::kBytes;
  CAIRN_RETURN_IF_ERROR(AtMost("chain", blocks, kBlocksPerPrefixMax, " blocks"));
  std::vector<Digest> out(blocks);
  for (size_t i = 0; i < blocks; ++i) {
    std::memcpy(out[i].bytes.data(), chain.data() + i * Digest::kBytes, Digest::kBytes);
  }
  return out;
}

absl::StatusOr<DecodedFetch> DecodeFetch(const v1::FetchRequest& request) {
  if (request.chain().empty()) return Bad("chain: empty, must name at least 1 block");
  if (request.deadline_millis() == 0) return Bad("deadline_millis: 0, must be at least 1");
  CAIRN_RETURN_IF_ERROR(
      AtMost("deadline_millis", request.deadline_millis(), kFetchMillisMax, " ms"));
  DecodedFetch out;
  CAIRN_ASSIGN_OR_RETURN(out.chain, DecodeChain(request.chain()));
  out.checkpoint = request.checkpoint();
  out.deadline = absl::Milliseconds(request.deadline_millis());
  out.lease = request.lease();
  CAIRN_ASSIGN_OR_RETURN(out.groups, DecodeGroups(request));
  return out;
}

absl::StatusOr<DecodedReserve> DecodeReserve(const v1::ReserveRequest& request) {
  if (request.items_size() == 0) return Bad("items: empty, must have at least 1");
  CAIRN_RETURN_IF_ERROR(AtMost("items", static_cast<uint64_t>(request.items_size()),
                               kReservationsPerSessionMax, " items"));
  CAIRN_RETURN_IF_ERROR(AtMost("wait_millis", request.wait_millis(), kReserveWaitMillisMax, " ms"));
  DecodedReserve out;
  out.wait = absl::Milliseconds(request.wait_millis());
  out.items.reserve(static_cast<size_t>(request.items_size()));
  for (const v1::ReserveItem& in : request.items()) {
    const std::string field = absl::StrCat("items[", out.items.size(), "]");
    ReserveItem item;
    CAIRN_ASSIGN_OR_RETURN(item.key.digest,
                           DecodeDigest(absl::StrCat(field, ".digest"), in.digest()));
    CAIRN_ASSIGN_OR_RETURN(item.parent, DecodeDigest(absl::StrCat(field, ".parent"), in.parent()));
    if (in.kind() < 1 || in.kind() > 2) {
      return Bad(field, ".kind: ", in.kind(), " is neither rows (1) nor checkpoint (2)");
    }
    item.key.kind = static_cast<EntryKind>(in.kind());
    CAIRN_RETURN_IF_ERROR(
        AtMost(absl::StrCat(field, ".index"), in.index(), kBlocksPerPrefixMax - 1, ""));
    item.index = in.index();
    out.items.push_back(item);
  }
  return out;
}

absl::StatusOr<std::vector<DecodedCommitItem>> DecodeCommit(const v1::CommitRequest& request) {
  if (request.items_size() == 0) return Bad("items: empty, must have at least 1");
  CAIRN_RETURN_IF_ERROR(
      AtMost("items", static_cast<uint64_t>(request.items_size()), kEntriesPerCommitMax, " items"));
  std::vector<DecodedCommitItem> out;
  out.reserve(static_cast<size_t>(request.items_size()));
  for (const v1::CommitItem& in : request.items()) {
    CAIRN_ASSIGN_OR_RETURN(DecodedCommitItem item,
                           DecodeCommitItem(absl::StrCat("items[", out.size(), "]"), in));
    out.push_back(std::move(item));
  }
  return out;
}

absl::StatusOr<std::vector<DecodedCommitItem>> DecodeStreamedCommit(
    const v1::CommitRequest& request) {
  CAIRN_ASSIGN_OR_RETURN(std::vector<DecodedCommitItem> items, DecodeCommit(request));
  uint64_t total = 0;
  for (const DecodedCommitItem& item : items) total += item.payload_bytes;
  CAIRN_RETURN_IF_ERROR(AtMost("items", total, kStreamCommitBytesMax, " bytes of payload"));
  return items;
}

absl::Status ValidateAbort(const v1::AbortRequest& request) {
  return AtMost("reservations", static_cast<uint64_t>(request.reservations_size()),
                kReservationsPerSessionMax, " ids");
}

absl::Status ValidateRelease(const v1::ReleaseRequest& request) {
  return AtMost("leases", static_cast<uint64_t>(request.leases_size()), kLeasesPerSessionMax,
                " ids");
}

absl::Status ValidateDigestPrefix(const std::string& field, const std::string& prefix) {
  if (prefix.size() >= kDigestPrefixBytesMin && prefix.size() <= Digest::kBytes) {
    return absl::OkStatus();
  }
  return Bad(field, ": ", prefix.size(), " bytes, must be ", kDigestPrefixBytesMin, " to ",
             Digest::kBytes);
}

absl::StatusOr<DecodedFilter> DecodeFilter(const v1::Filter& filter) {
  constexpr uint64_t kSecondsMax = 10ull * 365 * 24 * 3600;
  DecodedFilter out;
  if (!filter.prefix().empty()) {
    CAIRN_RETURN_IF_ERROR(ValidateDigestPrefix("filter.prefix", filter.prefix()));
    out.prefix = filter.prefix();
  }
  if (!filter.namespace_root().empty()) {
    CAIRN_ASSIGN_OR_RETURN(out.namespace_root,
                           DecodeDigest("filter.namespace_root", filter.namespace_root()));
  }
  if (filter.has_unused_for_seconds()) {
    CAIRN_RETURN_IF_ERROR(
        AtMost("filter.unused_for_seconds", filter.unused_for_seconds(), kSecondsMax, " s"));
    out.unused_for = absl::Seconds(filter.unused_for_seconds());
  }
  return out;
}

absl::StatusOr<uint32_t> DecodeListLimit(const v1::ListRequest& request) {
  CAIRN_RETURN_IF_ERROR(AtMost("limit", request.limit(), kListEntriesMax, " entries"));
  return request.limit() == 0 ? kListDefault : request.limit();
}

absl::StatusOr<absl::Duration> DecodeFlush(const v1::FlushRequest& request) {
  CAIRN_RETURN_IF_ERROR(
      AtMost("deadline_millis", request.deadline_millis(), kFlushMillisMax, " ms"));
  return absl::Milliseconds(request.deadline_millis());
}

}  // namespace cairn::cache
