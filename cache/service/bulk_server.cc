#include "cache/service/bulk_server.h"

#include <algorithm>
#include <utility>

#include "cache/client/bulk_protocol.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

// How often tickets that nobody came for are looked at, at the latest.
constexpr absl::Duration kSweepEvery = absl::Seconds(1);

}  // namespace

absl::StatusOr<std::unique_ptr<BulkServer>> BulkServer::Start(const Options& options,
                                                              ServiceState& state, Clock& clock,
                                                              Random& random,
                                                              store::ByteStreamDoor& door) {
  std::unique_ptr<BulkServer> server(new BulkServer(options, state, clock, random));
  CAIRN_ASSIGN_OR_RETURN(server->listener_, door.Listen(options.listen));
  server->acceptor_ = std::thread([raw = server.get()] { raw->AcceptLoop(); });
  return server;
}

BulkServer::BulkServer(const Options& options, ServiceState& state, Clock& clock, Random& random)
    : options_(options),
      state_(state),
      clock_(clock),
      tickets_(clock, random),
      threads_(std::make_unique<WorkerPool>(
          WorkerPool::Options{.threads_max = kBulkConnectionsMax, .queue_max = 0})) {}

size_t BulkServer::StripesOf(const LeasedBytes& bytes, uint32_t streams) const {
  if (connections() >= kBulkConnectionsMax / 2) return 1;
  const uint64_t worth =
      std::min<uint64_t>(bytes.bytes() / options_.stripe_bytes_min, bytes.entries());
  return std::clamp<uint64_t>(std::min<uint64_t>(worth, streams), 1, kBulkStripesMax);
}

void BulkServer::Stop() {
  if (listener_ != nullptr) listener_->Shutdown();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    for (const auto& [stream, session] : connections_) stream->Shutdown();
    stopped_.notify_all();
  }
  if (acceptor_.joinable()) acceptor_.join();
  threads_.reset();
  tickets_.Clear();
}

void BulkServer::AcceptLoop() {
  while (true) {
    absl::StatusOr<std::unique_ptr<store::ByteStream>> accepted = listener_->Accept(kSweepEvery);
    tickets_.Sweep();
    if (!accepted.ok()) {
      if (absl::IsUnavailable(accepted.status())) return;
      if (absl::IsDeadlineExceeded(accepted.status())) continue;
      // Without a descriptor; whoever waits outside goes on waiting, and so do we.
      std::unique_lock<std::mutex> lock(mutex_);
      stopped_.wait_for(lock, absl::ToChronoMilliseconds(kSweepEvery), [&] { return stopping_; });
      continue;
    }
    const std::shared_ptr<store::ByteStream> stream = *std::move(accepted);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
      connections_.emplace(stream.get(), nullptr);
    }
    const auto serve = [this, stream] {
      Serve(*stream);
      std::lock_guard<std::mutex> lock(mutex_);
      connections_.erase(stream.get());
    };
    if (!threads_->TryRun(serve).has_value()) continue;
    ++state_.counters.bulk_refused_connections;
    std::lock_guard<std::mutex> lock(mutex_);
    connections_.erase(stream.get());
  }
}

void BulkServer::Serve(store::ByteStream& stream) {
  for (bool first = true;; first = false) {
    const std::optional<BulkTransfer> transfer = NextTransfer(stream, first);
    if (!transfer.has_value()) return;
    if (!Bind(stream, transfer->bytes->session())) {
      ++state_.counters.bulk_bad_tickets;
      return;
    }
    if (!SendAll(stream, *transfer)) {
      ++state_.counters.bulk_cut_transfers;
      return;
    }
    ++state_.counters.bulk_transfers;
  }
}

std::optional<BulkTransfer> BulkServer::NextTransfer(store::ByteStream& stream, bool first) {
  BulkPreamble preamble;
  size_t got = 0;
  // The first bytes may take as long as a connection may be idle, the rest not.
  absl::Duration patience = first ? options_.preamble_max : options_.idle_max;
  int64_t end = clock_.NowNanos() + absl::ToInt64Nanoseconds(patience);
  while (got < preamble.size()) {
    const absl::StatusOr<size_t> some = stream.Receive(std::span(preamble).subspan(got), patience);
    if (!some.ok()) return std::nullopt;
    if (got == 0) end = clock_.NowNanos() + absl::ToInt64Nanoseconds(options_.preamble_max);
    got += *some;
    patience = absl::Nanoseconds(end - clock_.NowNanos());
    if (got < preamble.size() && patience <= absl::ZeroDuration()) return std::nullopt;
  }
  const std::optional<std::string> ticket = DecodeBulkPreamble(preamble);
  std::optional<BulkTransfer> transfer;
  if (ticket.has_value()) transfer = tickets_.Use(*ticket);
  if (!transfer.has_value()) ++state_.counters.bulk_bad_tickets;
  return transfer;
}

// False: the connection is another session's, or the session is over.
bool BulkServer::Bind(store::ByteStream& stream, const std::shared_ptr<ClientSession>& session) {
  std::lock_guard<std::mutex> lock(mutex_);
  // Looked at under the lock, so that an end that comes later finds the connection bound.
  if (stopping_ || !state_.sessions.Find(session->token()).ok()) return false;
  std::shared_ptr<ClientSession>& owner = connections_[&stream];
  if (owner == nullptr) owner = session;
  return owner == session;
}

bool BulkServer::SendAll(store::ByteStream& stream, const BulkTransfer& transfer) {
  TransferCursor cursor = transfer.bytes->Begin(transfer.stripe, transfer.stripes);
  while (!cursor.Done()) {
    const absl::Duration left = absl::Nanoseconds(transfer.deadline_nanos - clock_.NowNanos());
    if (left <= absl::ZeroDuration()) return false;
    const std::span<const uint8_t> piece = transfer.bytes->Piece(cursor);
    const auto slice = piece.first(std::min<size_t>(piece.size(), kStreamSliceBytes));
    const absl::StatusOr<size_t> sent = stream.Send(slice, options_.stall_max);
    if (!sent.ok()) return false;
    state_.counters.sent_bytes += *sent;
    cursor.Advance(*sent);
  }
  return true;
}

size_t BulkServer::connections() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return connections_.size();
}

void BulkServer::EndSession(const ClientSession& session) {
  tickets_.EndSession(session);
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [stream, owner] : connections_) {
    if (owner.get() == &session) stream->Shutdown();
  }
}

}  // namespace cairn::cache
