// validate.h: what engines and operators send, turned into our types only after every field was
// measured against its bound (proto/FIELD_RULES.md). Nothing here takes memory in proportion to a
// claim, only to bytes that have arrived.
//
// Threads: pure functions. Units: as in the protocol.
// Errors:  INVALID_ARGUMENT naming the field and the bound; FAILED_PRECONDITION for another
// protocol version.
#ifndef CAIRN_CACHE_SERVICE_VALIDATE_H_
#define CAIRN_CACHE_SERVICE_VALIDATE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cache/client/cache_api.h"
#include "cache/client/transfer_order.h"
#include "cairn/v1/admin.pb.h"
#include "cairn/v1/cache.pb.h"

namespace cairn::cache {

absl::StatusOr<NamespaceSpec> DecodeSession(const v1::SessionRequest& request);

absl::StatusOr<std::vector<Digest>> DecodeChain(const std::string& chain);

struct DecodedFetch {
  std::vector<Digest> chain;  // not empty
  bool checkpoint = false;
  absl::Duration deadline;
  uint64_t lease = 0;
  std::vector<GroupEnd> groups;  // ascending
  // Refers to this.
  FetchRequest AsRequest() const { return {chain, checkpoint, deadline, lease}; }
};
absl::StatusOr<DecodedFetch> DecodeFetch(const v1::FetchRequest& request);

struct DecodedReserve {
  std::vector<ReserveItem> items;
  absl::Duration wait;
};
absl::StatusOr<DecodedReserve> DecodeReserve(const v1::ReserveRequest& request);

struct DecodedCommitItem {
  uint64_t reservation = 0;
  uint32_t staging = 0;
  uint64_t staging_offset = 0;
  uint64_t payload_bytes = 0;
  std::vector<EntryPart> parts;
};
absl::StatusOr<std::vector<DecodedCommitItem>> DecodeCommit(const v1::CommitRequest& request);
// As DecodeCommit, for a stream: all payloads together are bounded too.
absl::StatusOr<std::vector<DecodedCommitItem>> DecodeStreamedCommit(
    const v1::CommitRequest& request);

absl::Status ValidateAbort(const v1::AbortRequest& request);
absl::Status ValidateRelease(const v1::ReleaseRequest& request);

struct DecodedFilter {
  std::string prefix;  // empty, or 4 to 32 bytes
  std::optional<Digest> namespace_root;
  std::optional<absl::Duration> unused_for;
  bool empty() const { return prefix.empty() && !namespace_root && !unused_for; }
};
absl::StatusOr<DecodedFilter> DecodeFilter(const v1::Filter& filter);
absl::Status ValidateDigestPrefix(const std::string& field, const std::string& prefix);
absl::StatusOr<uint32_t> DecodeListLimit(const v1::ListRequest& request);
absl::StatusOr<absl::Duration> DecodeFlush(const v1::FlushRequest& request);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_VALIDATE_H_
