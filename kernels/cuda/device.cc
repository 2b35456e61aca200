#include "kernels/cuda/device.h"

#include <cuda_runtime_api.h>

#include <string>

namespace cairn::kernels::cuda {
namespace {

absl::Status FindDevice() {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return absl::UnavailableError(absl::StrCat("no CUDA device: ", cudaGetErrorString(error)));
  }
  if (count == 0) return absl::UnavailableError("no CUDA device on this machine");
  int major = 0;
  CAIRN_RETURN_IF_ERROR(CudaStatus(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "device attribute"));
  int minor = 0;
  CAIRN_RETURN_IF_ERROR(CudaStatus(
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "device attribute"));
  if (major != 9 || minor != 0) {
    return absl::UnavailableError(absl::StrCat("the GPU is of compute capability ", major, ".",
                                               minor, "; the kernels are built for 9.0 (Hopper)"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DevicePresent() {
  static const absl::Status* const found = new absl::Status(FindDevice());
  return *found;
}

int MultiprocessorCount() {
  static const int count = [] {
    int value = 0;
    cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0);
    return value;
  }();
  return count;
}

absl::Status CudaStatus(int error, absl::string_view what) {
  const auto code = static_cast<cudaError_t>(error);
  if (code == cudaSuccess) return absl::OkStatus();
  (void)cudaGetLastError();  // told here, and not once more after the next launch
  const std::string message = absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(code));
  if (code == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

absl::Status LaunchStatus(absl::string_view kernel) {
  return CudaStatus(cudaGetLastError(), kernel);
}

absl::Status Synchronize(Stream stream) {
  return CudaStatus(cudaStreamSynchronize(stream), "waiting for a stream");
}

absl::StatusOr<OwnedStream> OwnedStream::Create() {
  CAIRN_RETURN_IF_ERROR(DevicePresent());
  Stream stream = nullptr;
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream"));
  return OwnedStream(stream);
}

OwnedStream::~OwnedStream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

namespace internal {

absl::StatusOr<void*> Allocate(size_t bytes) {
  CAIRN_RETURN_IF_ERROR(DevicePresent());
  void* pointer = nullptr;
  CAIRN_RETURN_IF_ERROR(CudaStatus(cudaMalloc(&pointer, bytes),
                                   absl::StrCat("taking ", bytes, " bytes of GPU memory")));
  return pointer;
}

void Free(void* pointer) {
  if (pointer != nullptr) cudaFree(pointer);
}

absl::Status CopyToDevice(void* to, const void* from, size_t bytes) {
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copying to the GPU"));
  // The last of it may still be on its way, and streams of ours do not wait for that.
  return Synchronize(nullptr);
}

absl::Status CopyToHost(void* to, const void* from, size_t bytes) {
  CAIRN_RETURN_IF_ERROR(CudaStatus(cudaDeviceSynchronize(), "waiting for the GPU"));
  return CudaStatus(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copying from the GPU");
}

absl::Status CopyOn(Stream stream, void* to, const void* from, size_t bytes) {
  // From memory that is not pinned the driver takes a copy before it returns.
  return CudaStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream),
                    "copying to the GPU");
}

absl::Status CopyToHostOn(Stream stream, void* to, const void* from, size_t bytes) {
  return CudaStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream),
                    "copying from the GPU");
}

absl::Status Fill(void* to, int byte, size_t bytes) {
  CAIRN_RETURN_IF_ERROR(CudaStatus(cudaMemset(to, byte, bytes), "filling GPU memory"));
  return Synchronize(nullptr);
}

}  // namespace internal
}  // namespace cairn::kernels::cuda
