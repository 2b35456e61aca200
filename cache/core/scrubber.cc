#include "cache/core/scrubber.h"

#include <spdlog/spdlog.h>

namespace cairn::cache {

void Scrubber::Start() {
  if (options_.bytes_per_second != 0) thread_ = std::thread([this] { Run(); });
}

Scrubber::~Scrubber() {
  verifier_.End();
  if (thread_.joinable()) thread_.join();
}

void Scrubber::Run() {
  const VerifyOptions all{.filter = {}, .bytes_per_second = options_.bytes_per_second};
  int64_t next_nanos = 0;
  while (verifier_.WaitUntil(next_nanos)) {
    next_nanos = clock_.NowNanos() + absl::ToInt64Nanoseconds(options_.round_min);
    const auto report = verifier_.Pass(all, [this](const VerifyReport& so_far) {
      round_entries_ = so_far.entries;
      round_bytes_ = so_far.bytes;
      round_total_bytes_ = so_far.total_bytes;
      return true;
    });
    if (!report.ok()) return;  // it was ended
    ++rounds_;
    last_round_seconds_ = static_cast<uint64_t>(absl::ToInt64Seconds(report->elapsed));
    if (report->damaged() + report->unreadable == 0) continue;
    spdlog::warn(
        "a round of scrubbing: of {} entries {} copies in host memory, {} on disk and {} in GPU "
        "memory were damaged, for {} of them there was a good one; {} could not be read",
        report->entries, report->damaged_host, report->damaged_disk, report->damaged_gpu,
        report->healed, report->unreadable);
  }
}

std::vector<NamedCount> Scrubber::Stats() const {
  return {{"scrub_rate_bytes", options_.bytes_per_second},
          {"scrub_rounds", rounds_},
          {"scrub_round_entries", round_entries_},
          {"scrub_round_bytes", round_bytes_},
          {"scrub_round_total_bytes", round_total_bytes_},
          {"scrub_last_round_seconds", last_round_seconds_}};
}

}  // namespace cairn::cache
