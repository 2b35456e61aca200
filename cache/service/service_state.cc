#include "cache/service/service_state.h"

namespace cairn::cache {

std::vector<NamedCount> ServiceState::Stats() {
  std::vector<NamedCount> counts = core.Stats();
  counts.push_back({"service_sessions", sessions.size()});
  counts.push_back({"service_refused_calls", counters.refused_calls.load()});
  counts.push_back({"service_invalid_calls", counters.invalid_calls.load()});
  counts.push_back({"service_undone_calls", counters.undone_calls.load()});
  counts.push_back({"service_sent_bytes", counters.sent_bytes.load()});
  counts.push_back({"service_received_bytes", counters.received_bytes.load()});
  return counts;
}

}  // namespace cairn::cache
