// Every request of the service (cache/service/validate.h), as the bytes that protobuf is given.
//
// which u8, then the message.
#include "cache/client/protocol.h"
#include "cache/service/validate.h"
#include "tests/fuzz/fuzz_input.h"

namespace cairn::cache {
namespace {

using fuzz::CheckRefusal;

// The message that the rest of the input is; nullopt if it is none, which gRPC answers itself.
template <typename Message>
std::optional<Message> Parse(std::span<const uint8_t> bytes) {
  Message message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return std::nullopt;
  return message;
}

// True where there is a decoded value to check.
template <typename T>
bool Accepted(const absl::StatusOr<T>& decoded) {
  if (!decoded.ok()) {
    CheckRefusal(decoded.status());
    FUZZ_CHECK(absl::IsInvalidArgument(decoded.status()) ||
               absl::IsFailedPrecondition(decoded.status()));
  }
  return decoded.ok();
}

void Session(const v1::SessionRequest& request) {
  const absl::StatusOr<NamespaceSpec> spec = DecodeSession(request);
  if (!Accepted(spec)) return;
  FUZZ_CHECK(spec->tenant.size() <= kTenantBytesMax);
  FUZZ_CHECK(spec->layout.components.size() <= kLayoutComponentsMax);
  v1::SessionRequest again;
  EncodeLayout(spec->layout, again.mutable_layout());
  again.set_protocol_version(kProtocolVersion);
  again.set_tenant(spec->tenant);
  const absl::StatusOr<NamespaceSpec> second = DecodeSession(again);
  FUZZ_CHECK_OK(second.status());
  FUZZ_CHECK(second->layout == spec->layout && second->tenant == spec->tenant);
}

void Match(const v1::MatchRequest& request) {
  const absl::StatusOr<std::vector<Digest>> chain = DecodeChain(request.chain());
  if (!Accepted(chain)) return;
  FUZZ_CHECK(chain->size() <= kBlocksPerPrefixMax);
  FUZZ_CHECK(EncodeChain(*chain) == request.chain());
}

void Fetch(const v1::FetchRequest& request) {
  const absl::StatusOr<DecodedFetch> fetch = DecodeFetch(request);
  if (!Accepted(fetch)) return;
  FUZZ_CHECK(!fetch->chain.empty() && fetch->chain.size() <= kBlocksPerPrefixMax);
  FUZZ_CHECK(EncodeChain(fetch->chain) == request.chain());
  FUZZ_CHECK(fetch->deadline > absl::ZeroDuration());
  FUZZ_CHECK(fetch->deadline <= absl::Milliseconds(kFetchMillisMax));
  FUZZ_CHECK(fetch->groups.size() < kFetchGroupsMax);
  GroupEnd before;
  for (const GroupEnd& end : fetch->groups) {
    FUZZ_CHECK(before.rows <= end.rows && end.rows <= kEntryBytesMax);
    FUZZ_CHECK(before.checkpoint <= end.checkpoint && end.checkpoint <= kEntryBytesMax);
    before = end;
  }
}

void Reserve(const v1::ReserveRequest& request) {
  const absl::StatusOr<DecodedReserve> reserve = DecodeReserve(request);
  if (!Accepted(reserve)) return;
  FUZZ_CHECK(reserve->wait <= absl::Milliseconds(kReserveWaitMillisMax));
  FUZZ_CHECK(reserve->items.size() == static_cast<size_t>(request.items_size()));
  FUZZ_CHECK(reserve->items.size() <= kReservationsPerSessionMax);
  for (size_t i = 0; i < reserve->items.size(); ++i) {
    const ReserveItem& item = reserve->items[i];
    const v1::ReserveItem& asked = request.items(static_cast<int>(i));
    FUZZ_CHECK(EncodeDigest(item.key.digest) == asked.digest());
    FUZZ_CHECK(EncodeDigest(item.parent) == asked.parent());
    FUZZ_CHECK(item.key.kind == EntryKind::kRows || item.key.kind == EntryKind::kCheckpoint);
    FUZZ_CHECK(item.index < kBlocksPerPrefixMax);
  }
}

void Commit(const v1::CommitRequest& request) {
  const absl::StatusOr<std::vector<DecodedCommitItem>> items = DecodeCommit(request);
  const absl::StatusOr<std::vector<DecodedCommitItem>> streamed = DecodeStreamedCommit(request);
  if (!Accepted(items)) {
    FUZZ_CHECK(!Accepted(streamed));
    return;
  }
  FUZZ_CHECK(!items->empty() && items->size() <= kEntriesPerCommitMax);
  uint64_t total = 0;
  for (const DecodedCommitItem& item : *items) {
    FUZZ_CHECK(!item.parts.empty() && item.parts.size() <= kPartsPerEntryMax);
    FUZZ_CHECK(item.payload_bytes > 0 && item.payload_bytes <= kEntryBytesMax);
    uint64_t bytes = 0;
    for (const EntryPart& part : item.parts) bytes += part.bytes;
    FUZZ_CHECK(bytes == item.payload_bytes);
    total += bytes;
  }
  FUZZ_CHECK(Accepted(streamed) == (total <= kStreamCommitBytesMax));
}

void CommitChunk(const v1::CommitChunk& chunk) {
  if (chunk.has_head()) Commit(chunk.head());
}

void Abort(const v1::AbortRequest& request) {
  const absl::Status valid = ValidateAbort(request);
  FUZZ_CHECK(valid.ok() ==
             (request.reservations_size() <= static_cast<int>(kReservationsPerSessionMax)));
  if (!valid.ok()) CheckRefusal(valid);
}

void Release(const v1::ReleaseRequest& request) {
  const absl::Status valid = ValidateRelease(request);
  FUZZ_CHECK(valid.ok() == (request.leases_size() <= static_cast<int>(kLeasesPerSessionMax)));
  if (!valid.ok()) CheckRefusal(valid);
}

void Filter(const v1::Filter& filter) {
  const absl::StatusOr<DecodedFilter> decoded = DecodeFilter(filter);
  if (!Accepted(decoded)) return;
  FUZZ_CHECK(decoded->prefix == filter.prefix() && decoded->prefix.size() <= Digest::kBytes);
  FUZZ_CHECK(decoded->namespace_root.has_value() == !filter.namespace_root().empty());
  FUZZ_CHECK(decoded->unused_for.has_value() == filter.has_unused_for_seconds());
  // What Evict asks "all" for.
  FUZZ_CHECK(decoded->empty() == (filter.prefix().empty() && filter.namespace_root().empty() &&
                                  !filter.has_unused_for_seconds()));
}

void List(const v1::ListRequest& request) {
  Filter(request.filter());
  const absl::StatusOr<uint32_t> limit = DecodeListLimit(request);
  if (Accepted(limit)) FUZZ_CHECK(*limit > 0 && *limit <= kListEntriesMax);
}

void Pin(const v1::PinRequest& request) {
  const absl::Status valid = ValidateDigestPrefix("digest", request.digest());
  if (!valid.ok()) CheckRefusal(valid);
  FUZZ_CHECK(valid.ok() == (request.digest().size() >= kDigestPrefixBytesMin &&
                            request.digest().size() <= Digest::kBytes));
}

void Flush(const v1::FlushRequest& request) {
  const absl::StatusOr<absl::Duration> deadline = DecodeFlush(request);
  if (Accepted(deadline)) FUZZ_CHECK(*deadline <= absl::Milliseconds(kFlushMillisMax));
}

template <typename Message>
void Run(std::span<const uint8_t> bytes, void (*check)(const Message&)) {
  if (const std::optional<Message> message = Parse<Message>(bytes)) check(*message);
}

}  // namespace
}  // namespace cairn::cache

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  cairn::fuzz::FuzzInput input(data, size);
  const auto which = input.Take<uint8_t>();
  const std::span<const uint8_t> bytes = input.TakeRest();
  switch (which % 12) {
    case 0:
      Run(bytes, Session);
      break;
    case 1:
      Run(bytes, Match);
      break;
    case 2:
      Run(bytes, Fetch);
      break;
    case 3:
      Run(bytes, Reserve);
      break;
    case 4:
      Run(bytes, Commit);
      break;
    case 5:
      Run(bytes, CommitChunk);
      break;
    case 6:
      Run(bytes, Abort);
      break;
    case 7:
      Run(bytes, Release);
      break;
    case 8:
      Run(bytes, Filter);
      break;
    case 9:
      Run(bytes, List);
      break;
    case 10:
      Run(bytes, Pin);
      break;
    default:
      Run(bytes, Flush);
      break;
  }
  return 0;
}
