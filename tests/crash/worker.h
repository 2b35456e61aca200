// worker.h: one client of the campaign: puts, matches, fetches, evictions by an operator, drawn
// from a seed, until all are done or the daemon is gone.
//
// Threads:   one thread a worker; the oracle is shared.
// Errors:    DATA_LOSS: the daemon broke a promise; the message begins with WRONG. A daemon that
//            went away is no error: Run returns OK and `daemon_gone` is true.
#ifndef CAIRN_TESTS_CRASH_WORKER_H_
#define CAIRN_TESTS_CRASH_WORKER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "cache/client/cache_api.h"
#include "store/base/random.h"
#include "tests/crash/daemon_process.h"
#include "tests/crash/oracle.h"
#include "tools/cairnctl/admin_client.h"

namespace cairn::crash {

absl::StatusOr<std::unique_ptr<cache::CacheApi>> ConnectCrashCache(const DaemonPlace& place);

class Worker {
 public:
  struct Result {
    uint64_t operations = 0;
    uint64_t bytes_verified = 0;
    bool daemon_gone = false;
  };

  // Workers of one campaign have different `id`s: no two put the same prefix.
  Worker(const DaemonPlace& place, Oracle& oracle, uint64_t id, uint64_t seed)
      : place_(place), oracle_(oracle), id_(id), random_(seed) {}

  absl::Status Run(uint64_t operations_max);
  const Result& result() const { return result_; }

 private:
  uint64_t Draw(uint64_t below) { return random_.Next() % below; }
  Prefix DrawPrefix(bool fresh);
  absl::Status PinHot();
  absl::Status One();
  absl::Status Put();
  absl::Status Fetch();
  absl::Status EvictByOperator();
  absl::Status VerifyByOperator();
  absl::Status AbortOne();
  absl::Status CheckHeld();
  // All rows of the prefix and the checkpoint at its end: maybe in the oracle from now on.
  std::vector<cache::ReserveItem> ItemsOf(const Prefix& prefix) const;
  absl::Status Commit(std::span<const cache::ReserveItem> items,
                      std::span<const cache::ReserveResult> reserved, bool durable);

  const DaemonPlace place_;
  Oracle& oracle_;
  const uint64_t id_;
  SeededRandom random_;
  std::unique_ptr<cache::CacheApi> cache_;
  std::unique_ptr<ctl::AdminClient> admin_;
  Result result_;
  // What a reader holds while everything else goes on, and past the daemon's end.
  std::unique_ptr<cache::FetchedPrefix> held_;
  std::vector<Digest> held_chain_;
};

}  // namespace cairn::crash

#endif  // CAIRN_TESTS_CRASH_WORKER_H_
