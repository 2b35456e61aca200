#include "cache/client/remote_fetch.h"

#include <grpcpp/support/sync_stream.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <utility>

#include "cache/client/arriving_prefix.h"
#include "cache/client/bulk_protocol.h"
#include "cache/client/protocol.h"
#include "cache/client/stream_message.h"
#include "cache/client/transfer_order.h"
#include "store/base/clock.h"
#include "store/base/random.h"

namespace cairn::cache {
namespace {

v1::FetchRequest Encode(const FetchRequest& request, const DaemonLink& link) {
  v1::FetchRequest out;
  out.set_token(link.registered().token);
  out.set_chain(EncodeChain(request.chain));
  out.set_checkpoint(request.checkpoint);
  out.set_deadline_millis(static_cast<uint32_t>(
      std::clamp<int64_t>(absl::ToInt64Milliseconds(request.deadline), 1, kFetchMillisMax)));
  out.set_lease(request.lease);
  return out;
}

class MappedPrefix final : public FetchedPrefix {
 public:
  MappedPrefix(std::span<const Digest> chain, const v1::MappedPrefix& answer,
               const Mapping& mapping)
      : mapping_(mapping), lease_(answer.lease()) {
    const EntryShapes& shapes = *mapping_.shapes;
    const int count = answer.offsets_size() - (answer.checkpoint() ? 1 : 0);
    rows.reserve(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      rows.push_back(At(answer, i, {chain[static_cast<size_t>(i)], EntryKind::kRows}, shapes.rows,
                        shapes.rows_bytes));
    }
    if (answer.checkpoint()) {
      checkpoint =
          At(answer, count, {chain[static_cast<size_t>(count) - 1], EntryKind::kCheckpoint},
             shapes.checkpoint, shapes.checkpoint_bytes);
    }
    host_bytes = answer.host_bytes();
    disk_bytes = answer.disk_bytes();
  }
  ~MappedPrefix() override {
    if (lease_ != 0) mapping_.link->ReleaseLater(lease_);
  }

 private:
  EntryView At(const v1::MappedPrefix& answer, int i, const EntryKey& key,
               const std::vector<uint32_t>& part_bytes, uint64_t bytes) const {
    const std::span<const uint8_t> entry = mapping_.arena->bytes().subspan(answer.offsets(i));
    const uint64_t with_table = PartTableOffset(bytes) + part_bytes.size() * sizeof(uint64_t);
    return {.key = key,
            .payload = entry.first(bytes),
            .part_bytes = part_bytes,
            .part_table = entry.data() + PartTableOffset(bytes),
            .table_xxh3 = answer.table_xxh3(i),
            .gpu = i < answer.gpu_offsets_size() ? mapping_.gpu_pool->data() + answer.gpu_offsets(i)
                                                 : nullptr,
            .pinned = mapping_.pin != nullptr && mapping_.pin->Holds(entry.data(), with_table)};
  }

  const Mapping mapping_;
  const uint64_t lease_;
};

absl::Status Wrong(const char* why) {
  return absl::UnavailableError(absl::StrCat("the daemon's answer is wrong: ", why));
}

// What was asked of a daemon whose bytes travel.
struct Asked {
  const FetchRequest& request;
  const EntryShapes& shapes;
  const std::vector<GroupEnd> ends;  // of groups

  v1::FetchRequest Encode(const DaemonLink& link) const {
    v1::FetchRequest out = cache::Encode(request, link);
    for (const GroupEnd& end : ends) {
      v1::GroupEnd* to = out.add_groups();
      to->set_rows_bytes(static_cast<uint32_t>(end.rows));
      to->set_checkpoint_bytes(static_cast<uint32_t>(end.checkpoint));
    }
    return out;
  }
  absl::StatusOr<std::unique_ptr<ArrivingPrefix>> Begin(const v1::FetchResponse& head,
                                                        ReceivePool& pool,
                                                        size_t stripes = 1) const {
    CAIRN_ASSIGN_OR_RETURN(
        CheckedFetch checked,
        CheckFetch(head, {request.chain.size(), request.checkpoint, !ends.empty()}, shapes));
    return std::make_unique<ArrivingPrefix>(request, std::move(checked), pool, ends, stripes);
  }
};

absl::Status Append(std::span<const grpc::Slice> pieces, uint64_t bytes, ArrivingPrefix& prefix) {
  if (bytes == 0 || bytes > kStreamSliceBytes) {
    return absl::UnavailableError(absl::StrCat("the daemon's answer is wrong: a slice of ", bytes,
                                               " bytes, must have 1 to ", kStreamSliceBytes));
  }
  ArrivingPrefix::Stripe& all = prefix.stripe(0);
  if (all.Done() || bytes > (prefix.grouped() ? all.MissingInAll() : all.Missing())) {
    return Wrong("a slice over its entry's end");
  }
  for (const grpc::Slice& piece : pieces) {
    for (size_t at = 0; at < piece.size();) {
      CAIRN_ASSIGN_OR_RETURN(const std::span<uint8_t> room, all.Room());
      const size_t count = std::min(piece.size() - at, room.size());
      std::memcpy(room.data(), piece.begin() + at, count);
      all.Took(count);
      at += count;
    }
  }
  return absl::OkStatus();
}

using RawReader = grpc::ClientReader<grpc::ByteBuffer>;

// gRPC's messages as they arrived, not parsed: the generated stub would copy each twice.
std::unique_ptr<RawReader> OpenStream(DaemonLink& link, grpc::ClientContext* context,
                                      const v1::FetchRequest& request) {
  static const grpc::internal::RpcMethod kMethod("/cairn.v1.Cache/FetchStream",
                                                 grpc::internal::RpcMethod::SERVER_STREAMING);
  return std::unique_ptr<RawReader>(grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(
      &link.channel(), kMethod, context, request));
}

// A FetchStream in flight. Dies with the last byte: the link watches that it goes on.
class OpenFetch {
 public:
  OpenFetch(std::shared_ptr<DaemonLink> link, absl::Duration deadline,
            const v1::FetchRequest& request)
      : link_(std::move(link)),
        call_(*link_, deadline),
        reader_(OpenStream(*link_, call_.context(), request)) {}

  // Null with OK: the stream ended without a head.
  absl::StatusOr<std::unique_ptr<ArrivingPrefix>> ReadHead(const Asked& asked, ReceivePool& pool) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<StreamMessage> message, Read());
    if (!message.has_value()) return nullptr;
    if (!message->head.has_value()) return Wrong("a stream without a head");
    return asked.Begin(*message->head, pool);
  }
  // All that follows, and the stream's end.
  absl::Status Fill(ArrivingPrefix& prefix) { return End(ReadData(prefix), &prefix); }
  // `read`: how reading ended. The prefix may be null.
  absl::Status End(const absl::Status& read, const ArrivingPrefix* prefix) {
    if (!read.ok()) call_.context()->TryCancel();
    const grpc::Status end = reader_->Finish();
    if (absl::IsResourceExhausted(read)) return read;  // this host's memory, not the daemon's fault
    if (!read.ok()) return link_->Break(read);
    if (stopped_) return absl::AbortedError("the fetch was ended");
    CAIRN_RETURN_IF_ERROR(link_->Ended(end));
    if (prefix == nullptr || !prefix->Done()) return link_->Break(Wrong("the stream ended early"));
    return absl::OkStatus();
  }
  // From another thread.
  void Stop() {
    stopped_ = true;
    call_.context()->TryCancel();
  }

 private:
  // nullopt: the stream has ended.
  absl::StatusOr<std::optional<StreamMessage>> Read() {
    grpc::ByteBuffer raw;
    if (!reader_->Read(&raw)) return std::nullopt;
    call_.Progressed();
    return ParseStreamMessage(raw);
  }
  absl::Status ReadData(ArrivingPrefix& prefix) {
    while (true) {
      CAIRN_ASSIGN_OR_RETURN(const std::optional<StreamMessage> message, Read());
      if (!message.has_value()) return absl::OkStatus();
      if (message->head.has_value()) return Wrong("a second head");
      CAIRN_RETURN_IF_ERROR(Append(message->data, message->data_bytes, prefix));
    }
  }

  const std::shared_ptr<DaemonLink> link_;
  DaemonLink::InFlight call_;
  const std::unique_ptr<RawReader> reader_;
  std::atomic<bool> stopped_{false};
};

// What of the groups must be there before the prefix is handed out. Damage is found by whoever
// awaits it.
absl::Status AwaitFirst(const ArrivingPrefix& prefix) {
  const absl::Status first = prefix.Await(1);
  return absl::IsDataLoss(first) ? absl::OkStatus() : first;
}

}  // namespace

std::unique_ptr<FetchedPrefix> ViewMapped(std::span<const Digest> chain,
                                          const v1::MappedPrefix& answer, const Mapping& mapping) {
  return std::make_unique<MappedPrefix>(chain, answer, mapping);
}

absl::StatusOr<std::unique_ptr<FetchedPrefix>> FetchMapped(const FetchRequest& request,
                                                           const Mapping& mapping) {
  DaemonLink& link = *mapping.link;
  v1::MappedPrefix answer;
  v1::FetchRequest asked = Encode(request, link);
  if (asked.lease() == 0) asked.set_lease(SystemRandom().Next());
  const absl::Status status = link.Call(&v1::Cache::Stub::Fetch, asked, &answer, request.deadline);
  if (absl::IsDeadlineExceeded(status)) link.ReleaseLater(asked.lease());  // it may have come late
  CAIRN_RETURN_IF_ERROR(status);
  const absl::Status checked = CheckMapped(answer, {request.chain.size(), request.checkpoint},
                                           mapping.bytes(), *mapping.shapes);
  if (!checked.ok()) return link.Break(checked);
  return ViewMapped(request.chain, answer, mapping);
}

absl::StatusOr<std::unique_ptr<FetchedPrefix>> FetchStreamed(
    const FetchRequest& request, const EntryShapes& shapes, const std::shared_ptr<DaemonLink>& link,
    ReceivePool& pool) {
  CAIRN_RETURN_IF_ERROR(link->Alive());
  CAIRN_ASSIGN_OR_RETURN(std::vector<GroupEnd> ends, GroupEnds(request.groups, shapes));
  const Asked asked{request, shapes, std::move(ends)};
  auto open = std::make_shared<OpenFetch>(link, request.deadline, asked.Encode(*link));
  absl::StatusOr<std::unique_ptr<ArrivingPrefix>> prefix = open->ReadHead(asked, pool);
  if (!prefix.ok() || *prefix == nullptr) return open->End(prefix.status(), nullptr);
  if ((*prefix)->grouped()) {
    (*prefix)->DrawBehind([open](ArrivingPrefix& arriving) { return open->Fill(arriving); },
                          [weak = std::weak_ptr(open)] {
                            if (const auto still = weak.lock()) still->Stop();
                          });
    CAIRN_RETURN_IF_ERROR(AwaitFirst(**prefix));
  } else {
    CAIRN_RETURN_IF_ERROR(open->Fill(**prefix));
  }
  return *std::move(prefix);
}

absl::StatusOr<std::unique_ptr<FetchedPrefix>> FetchBulk(
    const FetchRequest& request, const EntryShapes& shapes, const std::shared_ptr<DaemonLink>& link,
    ReceivePool& pool, const std::shared_ptr<BulkClient>& bulk, uint32_t streams) {
  const int64_t begin = RealClock().NowNanos();
  const auto left = [&] {
    return request.deadline - absl::Nanoseconds(RealClock().NowNanos() - begin);
  };
  CAIRN_ASSIGN_OR_RETURN(std::vector<GroupEnd> ends, GroupEnds(request.groups, shapes));
  const Asked asked{request, shapes, std::move(ends)};
  FetchRequest again = request;
  v1::BulkResponse answer;
  v1::FetchRequest encoded = asked.Encode(*link);
  encoded.set_streams(streams);
  const absl::Status called =
      link->Call(&v1::Cache::Stub::FetchBulk, encoded, &answer, request.deadline);
  if (absl::IsResourceExhausted(called)) {  // of tickets, perhaps
    again.deadline = left();
    return FetchStreamed(again, shapes, link, pool);
  }
  CAIRN_RETURN_IF_ERROR(called);
  const auto tickets = CheckTickets(answer, streams);
  if (!tickets.ok()) return link->Break(tickets.status());
  auto prefix = asked.Begin(answer.head(), pool, std::max<size_t>(tickets->size(), 1));
  if (!prefix.ok()) return link->Break(prefix.status());
  if ((*prefix)->Done()) return *std::move(prefix);
  if (tickets->empty()) return link->Break(Wrong("bytes to draw, and no ticket for them"));
  absl::Status drawn;
  if ((*prefix)->grouped()) {
    const auto stop = std::make_shared<BulkStop>();
    (*prefix)->DrawBehind(
        [bulk, stop, tickets = *tickets, timeout = left()](ArrivingPrefix& arriving) {
          return bulk->Draw(tickets, arriving, timeout, stop.get());
        },
        [stop] { stop->Stop(); });
    drawn = AwaitFirst(**prefix);
  } else {
    drawn = bulk->Draw(*tickets, **prefix, left());
  }
  if (drawn.ok()) return *std::move(prefix);
  if (absl::IsResourceExhausted(drawn) || left() <= absl::ZeroDuration()) return drawn;
  prefix->reset();  // before the same memory is asked for again
  spdlog::log(bulk->failures() == 1 ? spdlog::level::warn : spdlog::level::debug,
              "the cache daemon's bulk port did not deliver ({}): fetching by gRPC stream",
              std::string(drawn.message()));
  again.deadline = left();
  return FetchStreamed(again, shapes, link, pool);
}

}  // namespace cairn::cache
