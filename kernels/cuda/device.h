// device.h: the GPU as the kernels' callers and tests see it: is there one, streams, memory.
//
// Kernels take device pointers and a Stream, launch, and return: what a launch did shows at the
// next Synchronize. No kernel waits for the host, takes memory or touches another stream.
//
// Threads:   any; the current device is device 0 in every thread.
// Ownership: DeviceBuffer and OwnedStream are move-only and free what they hold.
// Units:     bytes, but for DeviceBuffer<T>'s count.
// Errors:    UNAVAILABLE: no driver, no GPU, or one older than compute capability 9.0.
//            RESOURCE_EXHAUSTED: no such memory. INTERNAL: the driver's word for anything else; a
//            device that has said it once is lost to the process.
#ifndef CAIRN_KERNELS_CUDA_DEVICE_H_
#define CAIRN_KERNELS_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "store/base/status.h"

// As in CUDA's own headers, which those who only call kernels need not have.
struct CUstream_st;

namespace cairn::kernels::cuda {

using Stream = CUstream_st*;

// OK where kernels can run; else why not. Asked once a process.
absl::Status DevicePresent();
// Multiprocessors of the device. REQUIRES: DevicePresent().
int MultiprocessorCount();

// `error` is a cudaError_t; `what` names the call or kernel.
absl::Status CudaStatus(int error, absl::string_view what);
// What the launch before this said.
absl::Status LaunchStatus(absl::string_view kernel);
// Waits for the stream; tells what any kernel on it met.
absl::Status Synchronize(Stream stream);

class OwnedStream {
 public:
  static absl::StatusOr<OwnedStream> Create();
  OwnedStream(OwnedStream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  OwnedStream& operator=(OwnedStream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  ~OwnedStream();
  Stream get() const { return stream_; }

 private:
  explicit OwnedStream(Stream stream) : stream_(stream) {}
  Stream stream_ = nullptr;
};

namespace internal {
absl::StatusOr<void*> Allocate(size_t bytes);
void Free(void* pointer);
absl::Status CopyToDevice(void* to, const void* from, size_t bytes);
absl::Status CopyToHost(void* to, const void* from, size_t bytes);
absl::Status Fill(void* to, int byte, size_t bytes);
absl::Status CopyOn(Stream stream, void* to, const void* from, size_t bytes);
absl::Status CopyToHostOn(Stream stream, void* to, const void* from, size_t bytes);
}  // namespace internal

// `count` values of T on the device, aligned to 256 bytes.
template <typename T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  static absl::StatusOr<DeviceBuffer> Create(size_t count) {
    CAIRN_ASSIGN_OR_RETURN(void* const data, internal::Allocate(count * sizeof(T)));
    return DeviceBuffer(static_cast<T*>(data), count);
  }
  static absl::StatusOr<DeviceBuffer> Of(std::span<const T> values) {
    CAIRN_ASSIGN_OR_RETURN(DeviceBuffer buffer, Create(values.size()));
    CAIRN_RETURN_IF_ERROR(buffer.Write(values));
    return buffer;
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~DeviceBuffer() { internal::Free(data_); }

  T* get() const { return data_; }
  size_t count() const { return count_; }

  // Both wait for what the device is doing. REQUIRES: values.size() <= count().
  absl::Status Write(std::span<const T> values) {
    return internal::CopyToDevice(data_, values.data(), values.size() * sizeof(T));
  }
  absl::StatusOr<std::vector<T>> Read() const {
    std::vector<T> values(count_);
    CAIRN_RETURN_IF_ERROR(internal::CopyToHost(values.data(), data_, count_ * sizeof(T)));
    return values;
  }
  // Behind what is on the stream. `values` may go when it returns.
  absl::Status WriteOn(Stream stream, std::span<const T> values) {
    return internal::CopyOn(stream, data_, values.data(), values.size() * sizeof(T));
  }
  // The first values, behind what is on the stream. `out` is pinned memory (pinned_buffer.h), where
  // they are once the stream was waited for. REQUIRES: out.size() <= count().
  absl::Status ReadOn(Stream stream, std::span<T> out) const {
    return internal::CopyToHostOn(stream, out.data(), data_, out.size() * sizeof(T));
  }
  // Every byte, and waits; tests poison outputs with it.
  absl::Status Fill(int byte) { return internal::Fill(data_, byte, count_ * sizeof(T)); }

 private:
  DeviceBuffer(T* data, size_t count) : data_(data), count_(count) {}
  T* data_ = nullptr;
  size_t count_ = 0;
};

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_DEVICE_H_
