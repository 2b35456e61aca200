// Restoring a 128k-token Flash prefix into a session on the GPU, from each tier, beside the copy
// that the hardware gives: of the same bytes, in one piece, in the same run. And promoting it.
//
// Times are the caller's: from the call until the bytes are there, looked for without sleeping.
// After each measurement the session is compared with what is stored, byte by byte.
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>

#include "tools/cairn-bench/gpu_benches.h"
#include "tools/cairn-bench/gpu_prefix.h"

namespace cairn::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;
using store::GatherFrom;
using Prefix = std::shared_ptr<GpuPrefix>;

constexpr double kMeasureSeconds = 0.1;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// The mean of as many as fit into kMeasureSeconds, three at least.
absl::StatusOr<double> MeanSeconds(const std::function<absl::StatusOr<double>()>& once) {
  double sum = 0;
  int count = 0;
  while (sum < kMeasureSeconds || count < 3) {
    CAIRN_ASSIGN_OR_RETURN(const double seconds, once());
    sum += seconds;
    ++count;
  }
  return sum / count;
}

double GigabytesPerSecond(uint64_t bytes, double seconds) {
  return static_cast<double>(bytes) / seconds * 1e-9;
}

// Seconds until the mark behind `work` is reached.
absl::StatusOr<double> SecondsOnStream(store::GpuStream& stream,
                                       const std::function<absl::Status()>& work) {
  const SteadyClock::time_point start = SteadyClock::now();
  CAIRN_RETURN_IF_ERROR(work());
  CAIRN_ASSIGN_OR_RETURN(const store::GpuMark mark, stream.Mark());
  for (;;) {
    CAIRN_ASSIGN_OR_RETURN(const store::GpuMark reached, stream.Reached());
    if (reached >= mark) return SecondsSince(start);
  }
}

// The prefix's bytes in one copy, from where they lie first in memory.
absl::StatusOr<Contender> OneCopy(const std::string& name, const Prefix& prefix,
                                  const uint8_t* from) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<store::GpuStream> made, prefix->gpu().NewStream());
  const std::shared_ptr<store::GpuStream> stream = std::move(made);
  return Contender{name, Role::kLimit, [=]() -> absl::StatusOr<double> {
                     CAIRN_ASSIGN_OR_RETURN(const double seconds, MeanSeconds([&] {
                                              return SecondsOnStream(*stream, [&] {
                                                return stream->Copy(from, prefix->session().data(),
                                                                    prefix->bytes());
                                              });
                                            }));
                     return GigabytesPerSecond(prefix->bytes(), seconds);
                   }};
}

struct RestoreTimes {
  double first_layer = 0, all = 0;  // seconds
};

absl::StatusOr<RestoreTimes> RestoreOnce(GpuPrefix& prefix,
                                         const std::vector<const uint8_t*>& sources,
                                         const std::vector<store::GpuGatherStep>& steps,
                                         GatherFrom from) {
  RestoreTimes times;
  const SteadyClock::time_point start = SteadyClock::now();
  CAIRN_RETURN_IF_ERROR(prefix.restore().Begin(sources, steps, from));
  for (size_t step = 0; step < steps.size();) {
    CAIRN_ASSIGN_OR_RETURN(const bool done, prefix.restore().Done(step));
    if (!done) continue;
    if (step++ == 0) times.first_layer = SecondsSince(start);
  }
  times.all = SecondsSince(start);
  return times;
}

// `figure` of times that are means.
Contender OursRestore(const Prefix& prefix, std::vector<const uint8_t*> sources, GatherFrom from,
                      const std::function<double(const RestoreTimes&)>& figure) {
  return {"layer by layer", Role::kOurs, [=]() -> absl::StatusOr<double> {
            const std::vector<store::GpuGatherStep> steps = prefix->AllSteps();
            RestoreTimes mean;
            int count = 0;
            CAIRN_RETURN_IF_ERROR(prefix->Poison());
            CAIRN_RETURN_IF_ERROR(MeanSeconds([&]() -> absl::StatusOr<double> {
                                    CAIRN_ASSIGN_OR_RETURN(
                                        const RestoreTimes times,
                                        RestoreOnce(*prefix, sources, steps, from));
                                    mean.first_layer += times.first_layer;
                                    mean.all += times.all;
                                    ++count;
                                    return times.all;
                                  }).status());
            CAIRN_RETURN_IF_ERROR(prefix->Compare());
            mean.first_layer /= count;
            mean.all /= count;
            return figure(mean);
          }};
}

absl::StatusOr<Prepared> PrepareRestore(GatherFrom from) {
  CAIRN_ASSIGN_OR_RETURN(const Prefix prefix, GpuPrefix::Make());
  std::vector<const uint8_t*> sources = prefix->HostSources();
  std::string name = "one cudaMemcpyAsync from pinned memory";
  if (from == GatherFrom::kDevice) {
    CAIRN_RETURN_IF_ERROR(prefix->Promote());
    sources = prefix->GpuSources();
    name = "one device-to-device copy";
  }
  Prepared prepared;
  const uint8_t* const first = *std::min_element(sources.begin(), sources.end());
  CAIRN_ASSIGN_OR_RETURN(Contender limit, OneCopy(name, prefix, first));
  prepared.contenders.push_back(std::move(limit));
  prepared.contenders.push_back(
      OursRestore(prefix, std::move(sources), from, [prefix](const RestoreTimes& times) {
        return GigabytesPerSecond(prefix->bytes(), times.all);
      }));
  return prepared;
}

// How much sooner than all the first layer is there.
absl::StatusOr<Prepared> PrepareFirstLayer(GatherFrom from) {
  CAIRN_ASSIGN_OR_RETURN(const Prefix prefix, GpuPrefix::Make());
  std::vector<const uint8_t*> sources = prefix->HostSources();
  if (from == GatherFrom::kDevice) {
    CAIRN_RETURN_IF_ERROR(prefix->Promote());
    sources = prefix->GpuSources();
  }
  Prepared prepared;
  Contender all =
      OursRestore(prefix, sources, from, [](const RestoreTimes& times) { return times.all * 1e6; });
  all.name = "all layers";
  all.role = Role::kLimit;
  prepared.contenders.push_back(std::move(all));
  Contender first = OursRestore(prefix, sources, from,
                                [](const RestoreTimes& times) { return times.first_layer * 1e6; });
  first.name = "the first layer";
  prepared.contenders.push_back(std::move(first));
  return prepared;
}

absl::StatusOr<Prepared> PreparePromote() {
  CAIRN_ASSIGN_OR_RETURN(const Prefix prefix, GpuPrefix::Make());
  const std::vector<const uint8_t*> sources = prefix->HostSources();
  Prepared prepared;
  CAIRN_ASSIGN_OR_RETURN(Contender limit,
                         OneCopy("one cudaMemcpyAsync from pinned memory", prefix,
                                 *std::min_element(sources.begin(), sources.end())));
  prepared.contenders.push_back(std::move(limit));
  prepared.contenders.push_back(
      {"entry by entry, verified", Role::kOurs, [=]() -> absl::StatusOr<double> {
         CAIRN_ASSIGN_OR_RETURN(const double seconds, MeanSeconds([&]() -> absl::StatusOr<double> {
                                  for (uint32_t i = 0; i <= GpuPrefix::kBlocks; ++i) {
                                    prefix->tier().Erase(prefix->Meta(i).key);
                                  }
                                  CAIRN_RETURN_IF_ERROR(prefix->tier().Settle());
                                  const SteadyClock::time_point start = SteadyClock::now();
                                  CAIRN_RETURN_IF_ERROR(prefix->Promote());
                                  return SecondsSince(start);
                                }));
         return GigabytesPerSecond(prefix->bytes(), seconds);
       }});
  return prepared;
}

}  // namespace

void AddGpuTierBenches(std::vector<Bench>& benches) {
  const std::string what = "a 128k-token Flash prefix, 463 MB in 44 layers";
  const auto add = [&](const char* name, const std::string& how, double bound,
                       const auto& prepare) {
    benches.push_back({.name = name,
                       .what = what + how,
                       .unit = "GB/s",
                       .ratio_bound = bound,
                       .prepare = [=](const BenchContext&) { return prepare(); }});
  };
  add("gpu-restore-device", ", from the GPU tier", 0.85,
      [] { return PrepareRestore(GatherFrom::kDevice); });
  add("gpu-restore-host", ", from pinned host memory", 0.9,
      [] { return PrepareRestore(GatherFrom::kHost); });
  add("gpu-promote", ", from host memory into the GPU tier", 0, [] { return PreparePromote(); });
  for (const GatherFrom from : {GatherFrom::kDevice, GatherFrom::kHost}) {
    const bool device = from == GatherFrom::kDevice;
    benches.push_back({.name = device ? "gpu-first-device" : "gpu-first-host",
                       .what = what + ", from " + (device ? "the GPU tier" : "pinned host memory"),
                       .unit = "us",
                       .higher_is_better = false,
                       .prepare = [=](const BenchContext&) { return PrepareFirstLayer(from); }});
  }
}

}  // namespace cairn::bench
