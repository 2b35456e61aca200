#include "tools/cairn-bench/gpu_timing.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>

namespace cairn::bench {
namespace {

using kernels::cuda::CudaStatus;
using kernels::cuda::DeviceBuffer;
using kernels::cuda::OwnedStream;
using kernels::cuda::Stream;

constexpr double kMeasureSeconds = 0.06;
constexpr int64_t kWarmUp = 3;
constexpr int64_t kLaunchesMax = 10000;

// Two events around launches [first, first + count); seconds between them.
class Span {
 public:
  static absl::StatusOr<double> Measure(Stream stream, int64_t first, int64_t count,
                                        const std::function<absl::Status(int64_t)>& launch) {
    Span span;
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&span.begin_), "making an event"));
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&span.end_), "making an event"));
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(span.begin_, stream), "an event"));
    for (int64_t i = first; i < first + count; ++i) CAIRN_RETURN_IF_ERROR(launch(i));
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(span.end_, stream), "an event"));
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(span.end_), "waiting for an event"));
    float milliseconds = 0;
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaEventElapsedTime(&milliseconds, span.begin_, span.end_),
                                     "reading an event"));
    return static_cast<double>(milliseconds) * 1e-3;
  }
  ~Span() {
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (end_ != nullptr) cudaEventDestroy(end_);
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace

absl::StatusOr<double> SecondsALaunch(Stream stream,
                                      const std::function<absl::Status(int64_t i)>& launch) {
  CAIRN_ASSIGN_OR_RETURN(const double trial, Span::Measure(stream, 0, kWarmUp, launch));
  const double one = std::max(trial / static_cast<double>(kWarmUp), 1e-7);
  const int64_t count =
      std::clamp<int64_t>(static_cast<int64_t>(kMeasureSeconds / one), 3, kLaunchesMax);
  CAIRN_ASSIGN_OR_RETURN(const double all, Span::Measure(stream, kWarmUp, count, launch));
  return all / static_cast<double>(count);
}

absl::StatusOr<Contender> DeviceCopyLimit() {
  constexpr size_t kBytes = size_t{1} << 30;
  struct Copy {
    OwnedStream stream;
    DeviceBuffer<uint8_t> from, to;
  };
  CAIRN_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create());
  CAIRN_ASSIGN_OR_RETURN(DeviceBuffer<uint8_t> from, DeviceBuffer<uint8_t>::Create(kBytes));
  CAIRN_ASSIGN_OR_RETURN(DeviceBuffer<uint8_t> to, DeviceBuffer<uint8_t>::Create(kBytes));
  CAIRN_RETURN_IF_ERROR(from.Fill(0x5a));
  const auto copy = std::make_shared<Copy>(Copy{std::move(stream), std::move(from), std::move(to)});
  return Contender{"device-to-device copy", Role::kLimit, [copy]() -> absl::StatusOr<double> {
                     CAIRN_ASSIGN_OR_RETURN(
                         const double seconds, SecondsALaunch(copy->stream.get(), [&](int64_t) {
                           return CudaStatus(
                               cudaMemcpyAsync(copy->to.get(), copy->from.get(), kBytes,
                                               cudaMemcpyDeviceToDevice, copy->stream.get()),
                               "copying");
                         }));
                     return 2.0 * static_cast<double>(kBytes) / seconds * 1e-9;
                   }};
}

}  // namespace cairn::bench
