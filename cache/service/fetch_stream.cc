#include "cache/service/fetch_stream.h"

#include <grpc/slice.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "cache/client/protocol.h"
#include "cache/service/refusal.h"
#include "cache/service/validate.h"

namespace cairn::cache {
namespace {

void EncodeEntry(const LeasedEntry& entry, v1::Extent* out) {
  out->set_payload_bytes(entry.payload.size());
  out->mutable_part_xxh3()->Add(entry.part_xxh3.begin(), entry.part_xxh3.end());
}

// Field FetchChunk.data before its bytes: the tag, and their count as a varint.
grpc::Slice DataFraming(size_t bytes) {
  constexpr uint8_t kTag = v1::FetchChunk::kDataFieldNumber << 3 | 2;  // 2: length-delimited
  std::array<uint8_t, 11> framing = {kTag};
  size_t length = 1;
  while (bytes >= 0x80) {
    framing[length++] = static_cast<uint8_t>(bytes | 0x80);
    bytes >>= 7;
  }
  framing[length++] = static_cast<uint8_t>(bytes);
  return grpc::Slice(framing.data(), length);
}

// Refers to the arena; what holds the lease goes with the last reference to the slice.
grpc::Slice ArenaSlice(std::span<const uint8_t> bytes, std::shared_ptr<const LeasedBytes> held) {
  using Holder = std::shared_ptr<const LeasedBytes>;
  return grpc::Slice(
      grpc_slice_new_with_user_data(
          const_cast<uint8_t*>(bytes.data()), bytes.size(),
          [](void* holder) { delete static_cast<Holder*>(holder); }, new Holder(std::move(held))),
      grpc::Slice::STEAL_REF);
}

}  // namespace

void EncodeFetched(const LeasedBytes& bytes, v1::FetchResponse* out) {
  const LeasedPrefix& prefix = bytes.prefix();
  out->set_grouped(bytes.grouped());
  out->set_host_bytes(prefix.host_bytes);
  out->set_disk_bytes(prefix.disk_bytes);
  for (const LeasedEntry& entry : prefix.rows) EncodeEntry(entry, out->add_rows());
  if (prefix.checkpoint.has_value()) {
    EncodeEntry(*prefix.checkpoint, out->mutable_checkpoint());
  }
}

absl::Status CheckStreamDeadline(const grpc::CallbackServerContext& context) {
  const gpr_timespec left =
      gpr_time_sub(context.raw_deadline(), gpr_now(context.raw_deadline().clock_type));
  const gpr_timespec most =
      gpr_time_from_millis(absl::ToInt64Milliseconds(kStreamDeadlineMax), GPR_TIMESPAN);
  if (gpr_time_cmp(left, most) <= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("deadline: a stream must have one, of at most ",
                                                 absl::FormatDuration(kStreamDeadlineMax)));
}

FetchStream::FetchStream(ServiceState& state, grpc::CallbackServerContext* context,
                         const grpc::ByteBuffer* request)
    : state_(state), held_(state.work.Hold()) {
  grpc::ByteBuffer raw = *request;  // refers to the same bytes; parsing consumes it
  absl::Status refused = CheckStreamDeadline(*context);
  if (!grpc::SerializationTraits<v1::FetchRequest>::Deserialize(&raw, &request_).ok()) {
    refused = absl::InvalidArgumentError("request: not a FetchRequest");
  }
  if (!refused.ok()) {
    Finish(EndOfCall(state_, *context, refused));
    return;
  }
  const auto begin = [this, context] {
    if (context->IsCancelled()) {
      Finish(grpc::Status::CANCELLED);
      return;
    }
    const absl::Status status = Begin(request_);
    if (status.ok()) {
      StartWrite(&chunk_);
      return;
    }
    Finish(EndOfCall(state_, *context, status));
  };
  if (const auto busy_for = state_.bulk.TryRun(begin, PatienceOf(*context)); busy_for.has_value()) {
    Finish(EndOfCall(state_, *context, Refuse(state_, "the daemon", *busy_for)));
  }
}

absl::Status FetchStream::Begin(const v1::FetchRequest& request) {
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<ClientSession> session,
                         state_.sessions.Find(request.token()));
  CAIRN_ASSIGN_OR_RETURN(DecodedFetch fetch, DecodeFetch(request));
  CAIRN_ASSIGN_OR_RETURN(LeasedPrefix prefix,
                         state_.core.Fetch(session->core_id(), fetch.AsRequest()));
  auto bytes = std::make_shared<const LeasedBytes>(state_, std::move(session), std::move(prefix),
                                                   std::move(fetch.groups));
  v1::FetchChunk head;
  EncodeFetched(*bytes, head.mutable_head());
  bool own = false;
  std::lock_guard<std::mutex> lock(mutex_);
  if (!grpc::SerializationTraits<v1::FetchChunk>::Serialize(head, &chunk_, &own).ok()) {
    return absl::InternalError("the head cannot be serialised");
  }
  cursor_.emplace(bytes->Begin());
  bytes_ = std::move(bytes);
  return absl::OkStatus();
}

// Pieces of groups are small, so as many go together as may.
bool FetchStream::FillSliceLocked() {
  std::vector<grpc::Slice> slices(1);
  size_t bytes = 0;
  while (!cursor_->Done() && bytes < kStreamSliceBytes) {
    if (bytes > 0 && !bytes_->grouped()) break;
    std::span<const uint8_t> piece = bytes_->Piece(*cursor_);
    piece = piece.first(std::min<size_t>(piece.size(), kStreamSliceBytes - bytes));
    slices.push_back(ArenaSlice(piece, bytes_));
    cursor_->Advance(piece.size());
    bytes += piece.size();
  }
  if (bytes == 0) return false;
  slices[0] = DataFraming(bytes);
  chunk_ = grpc::ByteBuffer(slices.data(), slices.size());
  state_.counters.sent_bytes += bytes;
  return true;
}

void FetchStream::OnWriteDone(bool ok) {
  if (!ok) {
    Finish(grpc::Status::CANCELLED);
    return;
  }
  bool more = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    more = FillSliceLocked();
  }
  if (more) {
    StartWrite(&chunk_);
  } else {
    Finish(grpc::Status::OK);
  }
}

void FetchStream::OnDone() {
  delete this;  // what the transport still reads keeps its lease
}

}  // namespace cairn::cache
