// oracle.h: what the daemon owes, remembered outside of its process.
//
// RocksDB's rule. Before an operation starts its entries are *maybe*: either outcome of a call that
// a crash cut off is legal. After the acknowledgement of a durable commit they are *certain*: they
// must be there, unless eviction took them, and evictions are counted (on the fault board, which
// survives). Those that an operator pinned while they lay on disk are *kept*: nothing may take
// them. What was never begun must be absent. Contents are a function of the key, so whatever is
// there is exact or wrong, whoever put it.
//
// Threads: any.
#ifndef CAIRN_TESTS_CRASH_ORACLE_H_
#define CAIRN_TESTS_CRASH_ORACLE_H_

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "cache/client/cache_api.h"
#include "store/base/mutex.h"

namespace cairn::crash {

// The one namespace of the campaign.
const cache::NamespaceSpec& CrashSpec();

// A prefix by its number: the same number, the same tokens.
struct Prefix {
  uint64_t number = 0;
  std::vector<Digest> chain;
};
Prefix MakePrefix(const Digest& root, uint64_t number, size_t blocks);
inline constexpr size_t kBlocksMax = 8;

class Oracle {
 public:
  Oracle() = default;
  Oracle(const Oracle& other);  // what was known when the store was copied

  void Maybe(const EntryKey& key);    // may be there or not; does not apply to what is kept
  void Certain(const EntryKey& key);  // acknowledged as durable
  void Keep(const EntryKey& key);     // pinned, on disk; until the pins end with the daemon
  // A prefix that was begun: all that can be fetched is one of these.
  void Begin(const Prefix& prefix);

  bool Knows(const EntryKey& key) const;
  // Acknowledged ones that are not `there`: first those that were kept, then the others. They are
  // maybe from now on, and what was kept is certain.
  struct Missing {
    uint64_t certain = 0;  // asked for, the kept ones included
    std::vector<EntryKey> kept, evictable;
  };
  Missing EndPinsAndCompare(const std::set<EntryKey>& there);
  std::vector<Prefix> Prefixes() const;

 private:
  enum class Belief : uint8_t { kMaybe, kCertain, kKept };
  mutable Mutex mutex_;
  std::map<EntryKey, Belief> beliefs_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Prefix> prefixes_ ABSL_GUARDED_BY(mutex_);
};

// Every byte of what was fetched of a prefix against what was put. Adds the bytes compared.
absl::Status CheckFetched(const cache::FetchedPrefix& fetched, std::span<const Digest> chain,
                          uint64_t& bytes);

}  // namespace cairn::crash

#endif  // CAIRN_TESTS_CRASH_ORACLE_H_
