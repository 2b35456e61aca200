// bystander.h: another client, that does nothing but take hits in host memory and measure them,
// while something is done to the daemon.
//
// Threads:   one of its own, from Begin to End.
// Errors:    any error of its calls, and WRONG bytes, come out of End.
#ifndef CAIRN_TESTS_CLIENTS_BYSTANDER_H_
#define CAIRN_TESTS_CLIENTS_BYSTANDER_H_

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/client/cache_api.h"

namespace cairn::clients {

class Bystander {
 public:
  // Puts what it will ask for.
  static absl::StatusOr<std::unique_ptr<Bystander>> Connect(const std::string& socket);
  ~Bystander();

  void Begin();
  // Adds the nanoseconds of each of its calls since Begin.
  absl::Status End(std::vector<int64_t>& latencies);

 private:
  Bystander() = default;
  absl::Status Hit();

  std::unique_ptr<cache::CacheApi> cache_;
  std::vector<Digest> chain_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
  std::vector<int64_t> latencies_;  // its thread's
  absl::Status status_;
};

// In nanoseconds; 0 of nothing. `share`: 0.5 is the median.
int64_t QuantileOf(std::vector<int64_t> latencies, double share);

}  // namespace cairn::clients

#endif  // CAIRN_TESTS_CLIENTS_BYSTANDER_H_
