// scrubber.h: verifies all that is stored, round after round, in the background, at a bounded rate:
// damage is found while there is another copy, or before somebody waits for the bytes.
//
// A round begins anew with the process; where the last one was is not remembered.
//
// Threads:   one of its own, unless the rate is 0.
// Ownership: verifier, residency and clock outlive it. Its end is the verifier's.
// Units:     bytes.
#ifndef CAIRN_CACHE_CORE_SCRUBBER_H_
#define CAIRN_CACHE_CORE_SCRUBBER_H_

#include <atomic>
#include <thread>
#include <vector>

#include "cache/core/verifier.h"

namespace cairn::cache {

class Scrubber {
 public:
  struct Options {
    uint64_t bytes_per_second = 0;
    absl::Duration round_min;  // from the beginning of one round to that of the next
  };
  Scrubber(Verifier& verifier, Clock& clock, const Options& options)
      : verifier_(verifier), clock_(clock), options_(options) {}
  ~Scrubber();
  // Once the index is being loaded: rounds wait for the whole of it.
  void Start();

  // For `cairnctl stats`.
  std::vector<NamedCount> Stats() const;

 private:
  void Run();

  Verifier& verifier_;
  Clock& clock_;
  const Options options_;
  std::atomic<uint64_t> rounds_{0};                                                 // whole ones
  std::atomic<uint64_t> round_entries_{0}, round_bytes_{0}, round_total_bytes_{0};  // of this one
  std::atomic<uint64_t> last_round_seconds_{0};
  std::thread thread_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_SCRUBBER_H_
