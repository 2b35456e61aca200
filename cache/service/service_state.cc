#include "cache/service/service_state.h"

#include <utility>

#include "cache/service/bulk_server.h"
#include "cache/service/lookup_server.h"
#include "cache/service/session_stream.h"

namespace cairn::cache {

ServiceState::ServiceState(CacheCore& the_core, Random& random, std::string version,
                           std::string attach)
    : core(the_core),
      sessions(random),
      daemon_version(std::move(version)),
      attach_socket(std::move(attach)),
      lookups(std::make_unique<LookupServer>(*this)) {}

ServiceState::~ServiceState() = default;

WorkGauge::Token WorkGauge::Hold() {
  std::lock_guard<std::mutex> lock(mutex_);
  ++count_;
  return Token(this, [this](void*) {
    // Notified under the lock: the waiter may destroy this as soon as it has it.
    std::lock_guard<std::mutex> release(mutex_);
    if (--count_ == 0) none_.notify_all();
  });
}

bool WorkGauge::AwaitNone(std::chrono::milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  return none_.wait_for(lock, timeout, [this] { return count_ == 0; });
}

void OpenStreams::Add(SessionStream* stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  streams_.insert(stream);
  if (ended_) stream->EndForStop();
}

void OpenStreams::Remove(SessionStream* stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  streams_.erase(stream);
}

void OpenStreams::EndAll() {
  // Under the lock a stream cannot go: it takes itself out first.
  std::lock_guard<std::mutex> lock(mutex_);
  ended_ = true;
  for (SessionStream* stream : streams_) stream->EndForStop();
}

std::vector<NamedCount> ServiceState::Stats() {
  std::vector<NamedCount> counts = core.Stats();
  counts.push_back({"service_sessions", sessions.size()});
  counts.push_back({"service_refused_calls", counters.refused_calls.load()});
  counts.push_back({"service_invalid_calls", counters.invalid_calls.load()});
  counts.push_back({"service_undone_calls", counters.undone_calls.load()});
  counts.push_back({"service_lookups", counters.lookups.load()});
  counts.push_back({"service_lookup_connections", counters.lookup_connections.load()});
  counts.push_back({"service_sent_bytes", counters.sent_bytes.load()});
  counts.push_back({"service_received_bytes", counters.received_bytes.load()});
  counts.push_back({"service_bulk_transfers", counters.bulk_transfers.load()});
  counts.push_back({"service_bulk_cut_transfers", counters.bulk_cut_transfers.load()});
  counts.push_back({"service_bulk_bad_tickets", counters.bulk_bad_tickets.load()});
  counts.push_back({"service_bulk_refused_connections", counters.bulk_refused_connections.load()});
  return counts;
}

}  // namespace cairn::cache
