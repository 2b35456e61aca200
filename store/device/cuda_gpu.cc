// The real GPU. Exported memory is made by the driver's virtual memory calls, which are asked of
// the runtime by name: so programs start, and link, where there is no driver.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "store/device/cuda_status.h"
#include "store/device/gpu_memory.h"

namespace cairn::store {
namespace {

constexpr int kDevice = 0;
constexpr unsigned kDriverVersion = 12000;  // the calls below are as of CUDA 12.0

struct Driver {
  decltype(&cuDeviceGetAttribute) attribute = nullptr;
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&cuMemCreate) create = nullptr;
  decltype(&cuMemRelease) release = nullptr;
  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemAddressFree) free = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) access = nullptr;
  decltype(&cuMemExportToShareableHandle) share = nullptr;
  decltype(&cuMemImportFromShareableHandle) import = nullptr;
  decltype(&cuStreamWaitValue32) wait_value = nullptr;

  absl::Status Load() {
    CAIRN_RETURN_IF_ERROR(Find("cuDeviceGetAttribute", attribute));
    CAIRN_RETURN_IF_ERROR(Find("cuMemGetAllocationGranularity", granularity));
    CAIRN_RETURN_IF_ERROR(Find("cuMemCreate", create));
    CAIRN_RETURN_IF_ERROR(Find("cuMemRelease", release));
    CAIRN_RETURN_IF_ERROR(Find("cuMemAddressReserve", reserve));
    CAIRN_RETURN_IF_ERROR(Find("cuMemAddressFree", free));
    CAIRN_RETURN_IF_ERROR(Find("cuMemMap", map));
    CAIRN_RETURN_IF_ERROR(Find("cuMemUnmap", unmap));
    CAIRN_RETURN_IF_ERROR(Find("cuMemSetAccess", access));
    CAIRN_RETURN_IF_ERROR(Find("cuMemExportToShareableHandle", share));
    CAIRN_RETURN_IF_ERROR(Find("cuMemImportFromShareableHandle", import));
    return Find("cuStreamWaitValue32", wait_value);
  }

 private:
  template <typename Function>
  static absl::Status Find(const char* name, Function& function) {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    CAIRN_RETURN_IF_ERROR(CudaStatus(
        cudaGetDriverEntryPointByVersion(name, &found, kDriverVersion, cudaEnableDefault, &result),
        name));
    if (result != cudaDriverEntryPointSuccess || found == nullptr) {
      return absl::UnavailableError(absl::StrCat("CUDA: the driver has no ", name));
    }
    function = reinterpret_cast<Function>(found);
    return absl::OkStatus();
  }
};

// Driver calls say the same numbers as the runtime's.
absl::Status Said(CUresult result, absl::string_view what) {
  return CudaStatus(static_cast<int>(result), what);
}

// A mapping of memory that has a descriptor: our own, or another process's.
class MappedRegion final : public GpuRegion {
 public:
  static absl::StatusOr<std::unique_ptr<GpuRegion>> Create(const Driver& driver, uint64_t bytes) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {kDevice}};
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    size_t unit = 0;
    CAIRN_RETURN_IF_ERROR(
        Said(driver.granularity(&unit, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED),
             "the granularity of GPU memory"));
    if (bytes == 0 || bytes > UINT64_MAX - unit) {
      return absl::InvalidArgumentError(absl::StrCat("a GPU region of ", bytes, " bytes"));
    }
    auto region = std::unique_ptr<MappedRegion>(new MappedRegion(driver));
    const uint64_t size = (bytes + unit - 1) / unit * unit;
    CAIRN_RETURN_IF_ERROR(Said(driver.create(&region->memory_, size, &properties, 0),
                               absl::StrCat("taking ", size, " bytes of GPU memory")));
    region->held_ = true;
    CAIRN_RETURN_IF_ERROR(region->Map(size, CU_MEM_ACCESS_FLAGS_PROT_READWRITE));
    return region;
  }

  static absl::StatusOr<std::unique_ptr<GpuRegion>> Import(const Driver& driver, int descriptor,
                                                           uint64_t bytes) {
    auto region = std::unique_ptr<MappedRegion>(new MappedRegion(driver));
    region->imported_ = true;
    void* const handle = reinterpret_cast<void*>(static_cast<intptr_t>(descriptor));
    CAIRN_RETURN_IF_ERROR(
        Foreign(driver.import(&region->memory_, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)));
    region->held_ = true;
    CAIRN_RETURN_IF_ERROR(region->Map(bytes, CU_MEM_ACCESS_FLAGS_PROT_READ));
    return region;
  }

  ~MappedRegion() override {
    if (mapped_) driver_.unmap(address_, bytes_);
    if (address_ != 0) driver_.free(address_, bytes_);
    if (held_) driver_.release(memory_);
  }
  uint8_t* data() const override {
    return reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(address_));
  }
  uint64_t bytes() const override { return bytes_; }
  absl::StatusOr<GpuExport> Export() const override {
    if (imported_) return absl::FailedPreconditionError("an imported GPU region is not exported");
    int descriptor = -1;
    CAIRN_RETURN_IF_ERROR(
        Said(driver_.share(&descriptor, memory_, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
             "exporting GPU memory"));
    GpuExport exported;
    exported.descriptor = FileDescriptor(descriptor);
    exported.bytes = bytes_;
    return exported;
  }

 private:
  explicit MappedRegion(const Driver& driver) : driver_(driver) {}
  static absl::Status Foreign(CUresult result) {
    const absl::Status said = Said(result, "importing GPU memory");
    if (result != CUDA_ERROR_INVALID_VALUE && result != CUDA_ERROR_INVALID_HANDLE) return said;
    return absl::InvalidArgumentError(said.message());
  }
  absl::Status Map(uint64_t bytes, CUmemAccess_flags allowed) {
    CAIRN_RETURN_IF_ERROR(Said(driver_.reserve(&address_, bytes, 0, 0, 0), "GPU address space"));
    bytes_ = bytes;
    const CUresult mapped = driver_.map(address_, bytes, 0, memory_, 0);
    CAIRN_RETURN_IF_ERROR(imported_ ? Foreign(mapped) : Said(mapped, "mapping GPU memory"));
    mapped_ = true;
    CUmemAccessDesc access{};
    access.location = {CU_MEM_LOCATION_TYPE_DEVICE, {kDevice}};
    access.flags = allowed;
    return Said(driver_.access(address_, bytes, &access, 1), "access to GPU memory");
  }

  const Driver& driver_;
  CUmemGenericAllocationHandle memory_ = 0;
  CUdeviceptr address_ = 0;
  uint64_t bytes_ = 0;
  bool held_ = false, mapped_ = false, imported_ = false;
};

// Of the runtime's allocator: private memory, and what is exported by handle.
class PlainRegion final : public GpuRegion {
 public:
  static absl::StatusOr<std::unique_ptr<GpuRegion>> Create(uint64_t bytes, GpuSharing sharing) {
    void* data = nullptr;
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaMalloc(&data, bytes),
                                     absl::StrCat("taking ", bytes, " bytes of GPU memory")));
    return std::unique_ptr<GpuRegion>(
        new PlainRegion(data, bytes, sharing == GpuSharing::kExportable, /*imported=*/false));
  }
  static absl::StatusOr<std::unique_ptr<GpuRegion>> Import(const GpuExport& exported) {
    cudaIpcMemHandle_t handle;
    static_assert(sizeof(handle) == sizeof(exported.handle));
    std::memcpy(&handle, exported.handle.data(), sizeof(handle));
    void* data = nullptr;
    const cudaError_t error = cudaIpcOpenMemHandle(&data, handle, cudaIpcMemLazyEnablePeerAccess);
    const absl::Status said = CudaStatus(error, "importing GPU memory");
    if (error == cudaErrorInvalidValue || error == cudaErrorInvalidResourceHandle) {
      return absl::InvalidArgumentError(said.message());
    }
    CAIRN_RETURN_IF_ERROR(said);
    return std::unique_ptr<GpuRegion>(
        new PlainRegion(data, exported.bytes, /*exportable=*/false, /*imported=*/true));
  }

  ~PlainRegion() override {
    if (imported_) {
      cudaIpcCloseMemHandle(data_);
    } else {
      cudaFree(data_);
    }
  }
  uint8_t* data() const override { return static_cast<uint8_t*>(data_); }
  uint64_t bytes() const override { return bytes_; }
  absl::StatusOr<GpuExport> Export() const override {
    if (!exportable_) {
      return absl::FailedPreconditionError("the GPU region is private or imported");
    }
    cudaIpcMemHandle_t handle;
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaIpcGetMemHandle(&handle, data_), "exporting GPU memory"));
    GpuExport exported;
    std::memcpy(exported.handle.data(), &handle, sizeof(handle));
    exported.bytes = bytes_;
    return exported;
  }

 private:
  PlainRegion(void* data, uint64_t bytes, bool exportable, bool imported)
      : data_(data), bytes_(bytes), exportable_(exportable), imported_(imported) {}
  void* const data_;
  const uint64_t bytes_;
  const bool exportable_, imported_;
};

class CudaStream final : public GpuStream {
 public:
  static absl::StatusOr<std::unique_ptr<GpuStream>> Create(const Driver& driver) {
    cudaStream_t stream = nullptr;
    CAIRN_RETURN_IF_ERROR(
        CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream"));
    return std::unique_ptr<GpuStream>(new CudaStream(driver, stream));
  }
  ~CudaStream() override {
    cudaStreamSynchronize(stream_);
    for (cudaEvent_t event : underway_) cudaEventDestroy(event);
    for (cudaEvent_t event : spare_) cudaEventDestroy(event);
    cudaStreamDestroy(stream_);
  }

  absl::Status Copy(const uint8_t* from, uint8_t* to, uint64_t bytes) override {
    return CudaStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "copying");
  }
  absl::Status Zero(uint8_t* at, uint64_t bytes) override {
    return CudaStatus(cudaMemsetAsync(at, 0, bytes, stream_), "zeroing GPU memory");
  }
  absl::Status Gather(const uint8_t* const* sources, size_t sources_count,
                      std::span<const GpuGatherStep> steps, GatherFrom from,
                      const GatherProgress& progress) override {
    CAIRN_RETURN_IF_ERROR(CheckGather(steps, sources_count));
    return LaunchGather(stream_, sources, steps, from, progress);
  }
  absl::Status Checksums(const uint8_t* const* sources, size_t sources_count,
                         std::span<const GpuChecksumPart> parts, uint64_t* out) override {
    CAIRN_RETURN_IF_ERROR(CheckChecksums(parts, sources_count).status());
    return LaunchChecksums(stream_, sources, parts, out);
  }
  absl::Status WaitFor(GpuStream& other, GpuMark mark) override {
    const auto& behind = static_cast<const CudaStream&>(other);
    if (mark <= behind.reached_) return absl::OkStatus();
    if (mark > behind.made()) {
      return absl::InvalidArgumentError(absl::StrCat("a stream has no mark ", mark, " yet"));
    }
    return CudaStatus(cudaStreamWaitEvent(stream_, behind.underway_[mark - behind.reached_ - 1]),
                      "ordering streams");
  }

  absl::Status WaitForFlag(const uint32_t* flag, uint32_t value) override {
    return Said(driver_.wait_value(stream_, reinterpret_cast<CUdeviceptr>(flag), value,
                                   CU_STREAM_WAIT_VALUE_GEQ),
                "waiting for a flag");
  }

  absl::StatusOr<GpuMark> Mark() override {
    cudaEvent_t event = nullptr;
    if (spare_.empty()) {
      CAIRN_RETURN_IF_ERROR(CudaStatus(
          cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync),
          "making an event"));
    } else {
      event = spare_.back();
      spare_.pop_back();
    }
    if (absl::Status said = CudaStatus(cudaEventRecord(event, stream_), "an event"); !said.ok()) {
      spare_.push_back(event);
      return said;
    }
    underway_.push_back(event);
    return made();
  }
  absl::StatusOr<GpuMark> Reached() override {
    while (!underway_.empty()) {
      const cudaError_t error = cudaEventQuery(underway_.front());
      if (error == cudaErrorNotReady) break;
      CAIRN_RETURN_IF_ERROR(CudaStatus(error, "work on a stream"));
      Pass();
    }
    return reached_;
  }
  absl::Status Wait(GpuMark mark) override {
    while (reached_ < mark && !underway_.empty()) {
      CAIRN_RETURN_IF_ERROR(
          CudaStatus(cudaEventSynchronize(underway_.front()), "work on a stream"));
      Pass();
    }
    return absl::OkStatus();
  }

 private:
  CudaStream(const Driver& driver, cudaStream_t stream) : driver_(driver), stream_(stream) {}
  GpuMark made() const { return reached_ + underway_.size(); }
  void Pass() {
    spare_.push_back(underway_.front());
    underway_.pop_front();
    ++reached_;
  }

  const Driver& driver_;
  const cudaStream_t stream_;
  std::deque<cudaEvent_t> underway_;  // of the marks after `reached_`, in order
  std::vector<cudaEvent_t> spare_;
  GpuMark reached_ = 0;
};

class RegisteredMemory final : public Gpu::Pinned {
 public:
  explicit RegisteredMemory(void* begin) : begin_(begin) {}
  ~RegisteredMemory() override { cudaHostUnregister(begin_); }

 private:
  void* const begin_;
};

class CudaGpu final : public Gpu {
 public:
  absl::Status Open(const GpuOptions& options) {
    int count = 0;
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceCount(&count), "looking for a GPU"));
    if (count == 0) return absl::UnavailableError("CUDA: no GPU on this machine");
    CAIRN_RETURN_IF_ERROR(Enter());
    CAIRN_RETURN_IF_ERROR(driver_.Load());
    CAIRN_ASSIGN_OR_RETURN(const int major,
                           Attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR));
    CAIRN_ASSIGN_OR_RETURN(const int minor,
                           Attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
    if (major != 9 || minor != 0) {
      return absl::UnavailableError(absl::StrCat("the GPU is of compute capability ", major, ".",
                                                 minor, "; this is built for 9.0 (Hopper)"));
    }
    // Pinned memory has one address on both sides, as every 64-bit Linux driver has it.
    CAIRN_ASSIGN_OR_RETURN(const int same,
                           Attribute(CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM));
    if (same == 0) return absl::UnavailableError("the GPU cannot use host memory in place");
    CAIRN_ASSIGN_OR_RETURN(
        const int by_descriptor,
        Attribute(CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED));
    by_descriptor_ = options.export_by_descriptor && by_descriptor != 0;
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<GpuRegion>> Allocate(uint64_t bytes, GpuSharing sharing) override {
    CAIRN_RETURN_IF_ERROR(Enter());
    if (sharing == GpuSharing::kExportable && by_descriptor_) {
      return MappedRegion::Create(driver_, bytes);
    }
    return PlainRegion::Create(bytes, sharing);
  }
  absl::StatusOr<std::unique_ptr<GpuRegion>> Import(GpuExport exported) override {
    CAIRN_RETURN_IF_ERROR(Enter());
    if (!exported.descriptor.valid()) return PlainRegion::Import(exported);
    return MappedRegion::Import(driver_, exported.descriptor.get(), exported.bytes);
  }
  absl::StatusOr<std::unique_ptr<Pinned>> Pin(std::span<const uint8_t> memory,
                                              PinnedUse use) override {
    void* const begin = const_cast<uint8_t*>(memory.data());
    const unsigned flags = cudaHostRegisterPortable | cudaHostRegisterMapped |
                           (use == PinnedUse::kReadOnly ? cudaHostRegisterReadOnly : 0u);
    CAIRN_RETURN_IF_ERROR(CudaStatus(cudaHostRegister(begin, memory.size(), flags),
                                     absl::StrCat("pinning ", memory.size(), " bytes")));
    return std::make_unique<RegisteredMemory>(begin);
  }
  absl::StatusOr<std::unique_ptr<GpuStream>> NewStream() override {
    return CudaStream::Create(driver_);
  }

 private:
  // The driver's own calls want to be told the device in each thread.
  static absl::Status Enter() { return CudaStatus(cudaSetDevice(kDevice), "opening the GPU"); }
  absl::StatusOr<int> Attribute(CUdevice_attribute attribute) const {
    int value = 0;
    CAIRN_RETURN_IF_ERROR(
        Said(driver_.attribute(&value, attribute, kDevice), "what the GPU can do"));
    return value;
  }

  Driver driver_;
  bool by_descriptor_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Gpu>> OpenGpu(const GpuOptions& options) {
  auto gpu = std::make_unique<CudaGpu>();
  CAIRN_RETURN_IF_ERROR(gpu->Open(options));
  return gpu;
}

}  // namespace cairn::store
