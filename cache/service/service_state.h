// service_state.h: what the calls of the service share: the core, the sessions, the threads by kind
// of work, and bounds on what streams hold.
//
// Threads:   any.
// Ownership: core, clock and random outlive it; it outlives the gRPC server.
// Units:     bytes.
#ifndef CAIRN_CACHE_SERVICE_SERVICE_STATE_H_
#define CAIRN_CACHE_SERVICE_SERVICE_STATE_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "cache/client/receive_pool.h"
#include "cache/core/cache_core.h"
#include "cache/service/session_table.h"
#include "cache/service/worker_pool.h"

namespace cairn::cache {

struct ServiceCounters {
  std::atomic<uint64_t> refused_calls{
      0};  // all threads of a kind busy, or streams over their memory
  std::atomic<uint64_t> invalid_calls{0};   // a field over its bound
  std::atomic<uint64_t> sent_bytes{0};      // payload, by FetchStream and the bulk port
  std::atomic<uint64_t> received_bytes{0};  // payload, by CommitStream
  std::atomic<uint64_t> undone_calls{
      0};  // leases and reservations whose asker was gone before the answer
  std::atomic<uint64_t> lookups{0};                   // matches without gRPC
  std::atomic<uint64_t> lookup_connections{0};        // made for them
  std::atomic<uint64_t> bulk_transfers{0};            // whole
  std::atomic<uint64_t> bulk_cut_transfers{0};        // stuck, late, or the client went
  std::atomic<uint64_t> bulk_bad_tickets{0};          // wrong, used, too old, another session's
  std::atomic<uint64_t> bulk_refused_connections{0};  // all of the port's threads busy
};

// Memory that streamed commits hold together. A claim is made before the memory is taken.
class ByteBudget {
 public:
  explicit ByteBudget(uint64_t limit) : left_(limit) {}
  [[nodiscard]] bool TryClaim(uint64_t bytes) {
    uint64_t left = left_.load();
    while (left >= bytes) {
      if (left_.compare_exchange_weak(left, left - bytes)) return true;
    }
    return false;
  }
  void Return(uint64_t bytes) { left_ += bytes; }

 private:
  std::atomic<uint64_t> left_;
};

// Work that a stop waits for: fetches and commits. Each holds a token while it lives.
class WorkGauge {
 public:
  using Token = std::shared_ptr<void>;
  Token Hold();
  // False: some was still there when the time was over.
  bool AwaitNone(std::chrono::milliseconds timeout);

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  size_t count_ = 0;
};

class SessionStream;
class BulkServer;
class LookupServer;

// Session streams that are open, so that a stop can end them: by themselves they never do.
class OpenStreams {
 public:
  void Add(SessionStream* stream);
  void Remove(SessionStream* stream);
  void EndAll();  // those that open later end at once too

 private:
  std::mutex mutex_;
  absl::flat_hash_set<SessionStream*> streams_;
  bool ended_ = false;
};

struct ServiceState {
  ServiceState(CacheCore& the_core, Random& random, std::string version, std::string attach);
  ~ServiceState();

  CacheCore& core;
  SessionTable sessions;
  const std::string daemon_version;
  const std::string attach_socket;  // a name beside the Unix socket; empty: nothing is mapped
  ServiceCounters counters;
  ByteBudget stream_bytes{512ull << 20};
  ReceivePool stream_memory{128ull << 20};  // streamed commits' memory, between two of them
  WorkGauge work;
  OpenStreams streams;
  std::unique_ptr<BulkServer> bulk_port;  // null: none. Set before the first call comes
  const std::unique_ptr<LookupServer> lookups;

  // By how long the work may block. The last members: their destructors finish work that uses the
  // others.
  WorkerPool quick{{.threads_max = 4, .queue_max = 1024}};  // the index only
  // Disk and copies; gives way to look-ups and refusals, which are what keeps an engine waiting for
  // nothing.
  WorkerPool bulk{{.threads_max = 16, .queue_max = 256, .niceness = 5}};
  WorkerPool waiters{{.threads_max = 256, .queue_max = 0}};  // reservations that wait

  // The core's figures and the service's own.
  std::vector<NamedCount> Stats();
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_SERVICE_STATE_H_
