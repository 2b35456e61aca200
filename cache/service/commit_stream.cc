#include "cache/service/commit_stream.h"

#include <cstring>
#include <utility>

#include "cache/client/protocol.h"
#include "cache/service/fetch_stream.h"
#include "cache/service/refusal.h"

namespace cairn::cache {
namespace {

// About what a streamed commit takes; its memory is then free.
constexpr absl::Duration kMemoryComeAgain = absl::Milliseconds(50);

}  // namespace

void EncodeCommitted(const std::vector<absl::Status>& statuses, v1::CommitResponse* out) {
  for (const absl::Status& status : statuses) {
    v1::ItemStatus* item = out->add_statuses();
    item->set_code(static_cast<uint32_t>(status.code()));
    item->set_message(std::string(status.message()));
  }
}

CommitStream::CommitStream(ServiceState& state, grpc::CallbackServerContext* context,
                           v1::CommitResponse* out)
    : state_(state), context_(*context), held_(state.work.Hold()), out_(out) {
  if (absl::Status deadline = CheckStreamDeadline(context_); !deadline.ok()) {
    End(deadline);
    return;
  }
  StartRead(&chunk_);
}

void CommitStream::OnReadDone(bool ok) {
  if (ok) {
    if (const absl::Status status = TakeChunk(); !status.ok()) {
      End(status);
    } else {
      StartRead(&chunk_);
    }
    return;
  }
  bool whole = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    whole = session_ != nullptr && received_ == payload_bytes_;
  }
  if (!whole) {
    End(absl::InvalidArgumentError(absl::StrCat("stream: ended after ", received_, " of ",
                                                payload_bytes_, " bytes of payload")));
    return;
  }
  const auto busy_for = state_.bulk.TryRun([this] { End(Commit()); }, PatienceOf(context_));
  if (busy_for.has_value()) End(Refuse(state_, "the daemon", *busy_for));
}

absl::Status CommitStream::TakeChunk() {
  std::lock_guard<std::mutex> lock(mutex_);
  return session_ == nullptr ? TakeHeadLocked() : TakeSliceLocked();
}

absl::Status CommitStream::TakeHeadLocked() {
  if (!chunk_.has_head()) return absl::InvalidArgumentError("stream: must begin with a head");
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<ClientSession> session,
                         state_.sessions.Find(chunk_.head().token()));
  CAIRN_ASSIGN_OR_RETURN(items_, DecodeStreamedCommit(chunk_.head()));
  uint64_t total = 0;
  for (const DecodedCommitItem& item : items_) total += item.payload_bytes;
  if (!state_.stream_bytes.TryClaim(total)) {
    return Refuse(state_, "the memory of streamed commits", kMemoryComeAgain);
  }
  payload_bytes_ = total;
  if (total > 0) {
    CAIRN_ASSIGN_OR_RETURN(payloads_, state_.stream_memory.Take(total));
  }
  durable_ = chunk_.head().durable();
  session_ = std::move(session);
  return absl::OkStatus();
}

absl::Status CommitStream::TakeSliceLocked() {
  const std::string& data = chunk_.data();
  if (data.empty() || data.size() > kStreamSliceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("data: ", data.size(), " bytes, must be 1 to ", kStreamSliceBytes));
  }
  if (data.size() > payload_bytes_ - received_) {
    return absl::InvalidArgumentError(
        absl::StrCat("data: more than the ", payload_bytes_, " bytes that the head announced"));
  }
  std::memcpy(payloads_.bytes().data() + received_, data.data(), data.size());
  received_ += data.size();
  state_.counters.received_bytes += data.size();
  return absl::OkStatus();
}

absl::Status CommitStream::Commit() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<CoreCommitItem> items;
  items.reserve(items_.size());
  std::span<const uint8_t> rest = payloads_.bytes();
  for (DecodedCommitItem& item : items_) {
    items.push_back({item.reservation, rest.first(item.payload_bytes), std::move(item.parts)});
    rest = rest.subspan(item.payload_bytes);
  }
  CAIRN_ASSIGN_OR_RETURN(const std::vector<absl::Status> statuses,
                         state_.core.Commit(session_->core_id(), items, durable_));
  EncodeCommitted(statuses, out_);
  return absl::OkStatus();
}

void CommitStream::End(const absl::Status& status) { Finish(EndOfCall(state_, context_, status)); }

void CommitStream::OnDone() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    payloads_ = ReceivePool::Buffer();
    state_.stream_bytes.Return(payload_bytes_);
  }
  delete this;
}

}  // namespace cairn::cache
