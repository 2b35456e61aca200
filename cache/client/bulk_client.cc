#include "cache/client/bulk_client.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "cache/client/bulk_protocol.h"
#include "store/base/clock.h"
#include "store/base/thread.h"

namespace cairn::cache {
namespace {

// Taken at once and then checked: small enough to be in cache still.
constexpr uint64_t kPieceBytes = 256 << 10;

class Deadline {
 public:
  Deadline(absl::Duration timeout, absl::Duration stall)
      : end_nanos_(RealClock().NowNanos() + absl::ToInt64Nanoseconds(timeout)), stall_(stall) {}
  // Of one step: the same value for most of them, so that the kernel need not be told a new one.
  absl::Duration step() const {
    return std::min(absl::Nanoseconds(end_nanos_ - RealClock().NowNanos()), stall_);
  }

 private:
  const int64_t end_nanos_;
  const absl::Duration stall_;
};

absl::Status SendPreamble(store::ByteStream& stream, const std::string& ticket,
                          const Deadline& deadline) {
  const BulkPreamble preamble = EncodeBulkPreamble(ticket);
  std::span<const uint8_t> rest = preamble;
  while (!rest.empty()) {
    CAIRN_ASSIGN_OR_RETURN(const size_t sent, stream.Send(rest, deadline.step()));
    rest = rest.subspan(sent);
  }
  return absl::OkStatus();
}

absl::Status ReceiveAll(store::ByteStream& stream, ArrivingPrefix::Stripe& stripe,
                        const Deadline& deadline) {
  while (!stripe.Done()) {
    const absl::Duration step = deadline.step();
    if (step <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError("the bulk transfer was not done by its deadline");
    }
    CAIRN_ASSIGN_OR_RETURN(const std::span<uint8_t> room, stripe.Room());
    CAIRN_ASSIGN_OR_RETURN(
        const size_t got,
        stream.Receive(room.first(std::min<uint64_t>(room.size(), kPieceBytes)), step));
    stripe.Took(got);
  }
  return absl::OkStatus();
}

}  // namespace

bool BulkClient::usable() const { return port_ != 0 && RealClock().NowNanos() >= retry_at_nanos_; }

void BulkStop::Stop() {
  const std::lock_guard<std::mutex> lock(mutex_);
  stopped_ = true;
  for (store::ByteStream* stream : streams_) stream->Shutdown();
}

bool BulkStop::stopped() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return stopped_;
}

void BulkStop::Watch(store::ByteStream* stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  streams_.push_back(stream);
  if (stopped_) stream->Shutdown();
}

void BulkStop::Forget(store::ByteStream* stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase(streams_, stream);
}

absl::Status BulkClient::Draw(std::span<const std::string> tickets, ArrivingPrefix& prefix,
                              absl::Duration timeout, BulkStop* stop) {
  BulkStop own;
  if (stop == nullptr) stop = &own;
  std::vector<absl::Status> ends(tickets.size());
  const auto draw = [&](size_t i) {
    ends[i] = DrawStripe(tickets[i], prefix.stripe(i), timeout, *stop);
    if (!ends[i].ok()) stop->Stop();
  };
  std::vector<std::thread> threads;
  std::vector<size_t> here = {0};  // and those that no thread is to be had for
  for (size_t i = 1; i < tickets.size(); ++i) {
    absl::StatusOr<std::thread> thread = StartThread([&draw, i] { draw(i); });
    if (thread.ok()) {
      threads.push_back(*std::move(thread));
    } else {
      here.push_back(i);
    }
  }
  for (const size_t i : here) draw(i);
  for (std::thread& thread : threads) thread.join();
  // Those that were ended have nothing to say that the one that failed has not.
  absl::Status end;
  for (const absl::Status& each : ends) {
    if (end.ok() || (absl::IsAborted(end) && !each.ok())) end = each;
  }
  if (end.ok()) {
    ++transfers_;
  } else if (!absl::IsAborted(end)) {
    ++failures_;
    retry_at_nanos_ = RealClock().NowNanos() + absl::ToInt64Nanoseconds(kBulkRetryAfter);
  }
  return end;
}

absl::Status BulkClient::DrawStripe(const std::string& ticket, ArrivingPrefix::Stripe& stripe,
                                    absl::Duration timeout, BulkStop& stop) {
  const Deadline deadline(timeout, stall_);
  while (true) {
    bool reused = false;
    absl::StatusOr<std::unique_ptr<store::ByteStream>> stream =
        TakeConnection(&reused, deadline.step());
    absl::Status status = stream.status();
    if (status.ok()) {
      stop.Watch(stream->get());
      status = SendPreamble(**stream, ticket, deadline);
      if (status.ok()) status = ReceiveAll(**stream, stripe, deadline);
      stop.Forget(stream->get());
    }
    if (stop.stopped()) return absl::AbortedError("the transfer was ended");
    if (status.ok()) {
      Keep(*std::move(stream));
      return status;
    }
    // A kept connection may have been closed for its idleness: then the ticket is as good as new.
    if (reused && stripe.untouched() && absl::IsUnavailable(status)) continue;
    return status;
  }
}

absl::StatusOr<std::unique_ptr<store::ByteStream>> BulkClient::TakeConnection(
    bool* reused, absl::Duration timeout) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<store::ByteStream> stream = std::move(idle_.back());
      idle_.pop_back();
      *reused = true;
      return stream;
    }
  }
  return door_.Connect(host_, port_, timeout);
}

void BulkClient::Keep(std::unique_ptr<store::ByteStream> stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (idle_.size() < kBulkConnectionsKept) idle_.push_back(std::move(stream));
}

std::string HostOfPeer(const std::string& peer) {
  const size_t colon = peer.rfind(':');
  if (absl::StartsWith(peer, "ipv4:") && colon > 4) return peer.substr(5, colon - 5);
  constexpr char kOpen[] = "ipv6:%5B", kClose[] = "%5D:";
  const size_t close = peer.rfind(kClose);
  if (!absl::StartsWith(peer, kOpen) || close == std::string::npos) return "";
  std::string host = peer.substr(sizeof(kOpen) - 1, close - (sizeof(kOpen) - 1));
  // A link-local address names its interface after a '%', which is escaped too.
  if (const size_t zone = host.find("%25"); zone != std::string::npos) host.erase(zone + 1, 2);
  return host;
}

}  // namespace cairn::cache
