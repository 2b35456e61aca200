#include "store/device/fake_gpu.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "store/base/checksum.h"
#include "store/device/shared_memory.h"

namespace cairn::store {
namespace {

// What work may touch.
struct Range {
  const uint8_t* begin = nullptr;
  uint64_t bytes = 0;
  bool writable = false;
  bool pinned = false;  // not a region: work may go on in the next one that lies behind it
};

struct Queue {
  struct Work {
    uint64_t number = 0;                    // in the order in which the device was given it
    std::function<void()> run;              // may be null
    std::function<bool()> ready = nullptr;  // null: at once
  };
  std::deque<Work> work;
  GpuMark made = 0;
  GpuMark reached = 0;
};

}  // namespace

struct FakeGpu::Device {
  const Range* Around(const uint8_t* at, bool write) const {
    for (const Range& range : ranges) {
      if (at >= range.begin && at < range.begin + range.bytes && (range.writable || !write)) {
        return &range;
      }
    }
    return nullptr;
  }
  // REQUIRES: mutex, as do all of these.
  absl::Status Check(const uint8_t* at, uint64_t bytes, bool write) const {
    CAIRN_RETURN_IF_ERROR(lost);
    uint64_t rest = bytes;
    for (const Range* range = Around(at, write); range != nullptr; range = Around(at, write)) {
      const auto here = static_cast<uint64_t>(range->begin + range->bytes - at);
      if (rest <= here) return absl::OkStatus();
      if (!range->pinned) break;
      rest -= here;
      at += here;
    }
    return absl::InvalidArgumentError(
        absl::StrCat("fake GPU: ", bytes, " bytes that it may not ", write ? "write" : "read"));
  }
  static bool Ready(const Queue::Work& work) { return work.ready == nullptr || work.ready(); }
  // The oldest that is ready. False: there is none, or the device is lost.
  bool RunOldest() {
    Queue* oldest = nullptr;
    for (Queue* queue : queues) {
      if (queue->work.empty() || !Ready(queue->work.front())) continue;
      if (oldest == nullptr || queue->work.front().number < oldest->work.front().number) {
        oldest = queue;
      }
    }
    if (oldest == nullptr) return false;
    if (std::exchange(fail_next, false)) lost = absl::InternalError("fake GPU: lost, as asked for");
    if (!lost.ok()) return false;
    const Queue::Work work = std::move(oldest->work.front());
    oldest->work.pop_front();
    if (work.run != nullptr) work.run();
    return lost.ok();
  }
  void Forget(const uint8_t* begin) {
    std::erase_if(ranges, [&](const Range& range) { return range.begin == begin; });
  }

  mutable std::mutex mutex;
  uint64_t free_bytes = 0;  // guarded by mutex, as are all below
  std::vector<Range> ranges;
  std::vector<Queue*> queues;
  uint64_t given = 0;
  bool fail_next = false;
  absl::Status lost;
};

namespace {

class FakeRegion final : public GpuRegion {
 public:
  FakeRegion(std::shared_ptr<FakeGpu::Device> device, SharedMemory memory, bool exportable)
      : device_(std::move(device)), memory_(std::move(memory)), exportable_(exportable) {
    device_->ranges.push_back(
        {memory_.bytes().data(), memory_.size(), !memory_.writable().empty()});
  }
  ~FakeRegion() override {
    const std::lock_guard<std::mutex> lock(device_->mutex);
    device_->Forget(memory_.bytes().data());
    if (!memory_.writable().empty()) device_->free_bytes += memory_.size();
  }
  uint8_t* data() const override { return const_cast<uint8_t*>(memory_.bytes().data()); }
  uint64_t bytes() const override { return memory_.size(); }
  absl::StatusOr<GpuExport> Export() const override {
    if (!exportable_) return absl::FailedPreconditionError("fake GPU: the region is private");
    GpuExport exported;
    exported.descriptor = FileDescriptor::Duplicate(memory_.descriptor());
    exported.bytes = memory_.size();
    return exported;
  }

 private:
  const std::shared_ptr<FakeGpu::Device> device_;
  const SharedMemory memory_;
  const bool exportable_;
};

class FakePinned final : public Gpu::Pinned {
 public:
  FakePinned(std::shared_ptr<FakeGpu::Device> device, const uint8_t* begin)
      : device_(std::move(device)), begin_(begin) {}
  ~FakePinned() override {
    const std::lock_guard<std::mutex> lock(device_->mutex);
    device_->Forget(begin_);
  }

 private:
  const std::shared_ptr<FakeGpu::Device> device_;
  const uint8_t* const begin_;
};

class FakeStream final : public GpuStream {
 public:
  explicit FakeStream(std::shared_ptr<FakeGpu::Device> device) : device_(std::move(device)) {
    device_->queues.push_back(&queue_);
  }
  ~FakeStream() override {
    const std::lock_guard<std::mutex> lock(device_->mutex);
    while (!queue_.work.empty() && device_->RunOldest()) {
    }
    std::erase(device_->queues, &queue_);
  }

  absl::Status Copy(const uint8_t* from, uint8_t* to, uint64_t bytes) override {
    const std::lock_guard<std::mutex> lock(device_->mutex);
    CAIRN_RETURN_IF_ERROR(device_->Check(from, bytes, /*write=*/false));
    CAIRN_RETURN_IF_ERROR(device_->Check(to, bytes, /*write=*/true));
    return Put([=] { std::memcpy(to, from, bytes); });
  }
  absl::Status Zero(uint8_t* at, uint64_t bytes) override {
    const std::lock_guard<std::mutex> lock(device_->mutex);
    CAIRN_RETURN_IF_ERROR(device_->Check(at, bytes, /*write=*/true));
    return Put([=] { std::memset(at, 0, bytes); });
  }
  absl::Status Gather(const uint8_t* const* sources, size_t sources_count,
                      std::span<const GpuGatherStep> steps, GatherFrom,
                      const GatherProgress& progress) override {
    CAIRN_RETURN_IF_ERROR(CheckGather(steps, sources_count));
    const std::lock_guard<std::mutex> lock(device_->mutex);
    for (const GpuGatherStep& step : steps) {
      for (const GpuGatherPart& part : step.parts) {
        const uint64_t bytes = uint64_t{part.count - 1} * part.to_stride + part.bytes;
        CAIRN_RETURN_IF_ERROR(device_->Check(part.to, bytes, /*write=*/true));
      }
    }
    for (size_t i = 0; i < steps.size(); ++i) {
      CAIRN_RETURN_IF_ERROR(Put([this, sources, parts = steps[i].parts, flag = progress.flags + i,
                                 value = progress.value] {
        for (const GpuGatherPart& part : parts) GatherNow(sources, part);
        std::atomic_ref<uint32_t>(*flag).store(value, std::memory_order_release);
      }));
    }
    return absl::OkStatus();
  }
  absl::Status Checksums(const uint8_t* const* sources, size_t sources_count,
                         std::span<const GpuChecksumPart> parts, uint64_t* out) override {
    CAIRN_ASSIGN_OR_RETURN(const size_t count, CheckChecksums(parts, sources_count));
    const std::lock_guard<std::mutex> lock(device_->mutex);
    CAIRN_RETURN_IF_ERROR(device_->Check(reinterpret_cast<const uint8_t*>(out),
                                         count * sizeof(uint64_t), /*write=*/true));
    return Put([this, sources, out, held = std::vector(parts.begin(), parts.end())] {
      ChecksumsNow(sources, held, out);
    });
  }
  absl::Status WaitFor(GpuStream& other, GpuMark mark) override {
    const Queue* const behind = &static_cast<FakeStream&>(other).queue_;
    const std::lock_guard<std::mutex> lock(device_->mutex);
    return PutWhen([=] { return behind->reached >= mark; });
  }
  absl::Status WaitForFlag(const uint32_t* flag, uint32_t value) override {
    const std::lock_guard<std::mutex> lock(device_->mutex);
    CAIRN_RETURN_IF_ERROR(device_->Check(reinterpret_cast<const uint8_t*>(flag), sizeof(*flag),
                                         /*write=*/false));
    return PutWhen([=] { return *flag == value; });
  }

  absl::StatusOr<GpuMark> Mark() override {
    const std::lock_guard<std::mutex> lock(device_->mutex);
    CAIRN_RETURN_IF_ERROR(Put([this] { ++queue_.reached; }));
    return ++queue_.made;
  }
  absl::StatusOr<GpuMark> Reached() override {
    const std::lock_guard<std::mutex> lock(device_->mutex);
    CAIRN_RETURN_IF_ERROR(device_->lost);
    return queue_.reached;
  }
  absl::Status Wait(GpuMark mark) override {
    const std::lock_guard<std::mutex> lock(device_->mutex);
    while (queue_.reached < mark && device_->RunOldest()) {
    }
    CAIRN_RETURN_IF_ERROR(device_->lost);
    if (queue_.reached < mark) return absl::InternalError("fake GPU: streams wait for each other");
    return absl::OkStatus();
  }

 private:
  // REQUIRES: the device's mutex, as does the next.
  absl::Status Put(std::function<void()> run) {
    queue_.work.push_back({++device_->given, std::move(run)});
    return device_->lost;
  }
  absl::Status PutWhen(std::function<bool()> ready) {
    queue_.work.push_back({++device_->given, nullptr, std::move(ready)});
    return device_->lost;
  }
  void ChecksumsNow(const uint8_t* const* sources, std::span<const GpuChecksumPart> parts,
                    uint64_t* out) {
    for (const GpuChecksumPart& part : parts) {
      for (uint32_t i = 0; i < part.count; ++i) {
        const uint8_t* const from = sources[part.first + i] + part.from;
        device_->lost = device_->Check(from, part.bytes, /*write=*/false);
        if (!device_->lost.ok()) return;
        *out++ = Checksum({from, part.bytes});
      }
    }
  }
  void GatherNow(const uint8_t* const* sources, const GpuGatherPart& part) {
    for (uint32_t i = 0; i < part.count; ++i) {
      const uint8_t* const from = sources[part.first + i] + part.from;
      device_->lost = device_->Check(from, part.bytes, /*write=*/false);
      if (!device_->lost.ok()) return;
      std::memcpy(part.to + uint64_t{i} * part.to_stride, from, part.bytes);
    }
  }

  const std::shared_ptr<FakeGpu::Device> device_;
  Queue queue_;
};

}  // namespace

FakeGpu::FakeGpu(uint64_t memory_bytes) : device_(std::make_shared<Device>()) {
  device_->free_bytes = memory_bytes;
}
FakeGpu::~FakeGpu() = default;

absl::StatusOr<std::unique_ptr<GpuRegion>> FakeGpu::Allocate(uint64_t bytes, GpuSharing sharing) {
  const std::lock_guard<std::mutex> lock(device_->mutex);
  if (bytes > device_->free_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("fake GPU: ", bytes, " bytes asked for, ", device_->free_bytes, " are free"));
  }
  CAIRN_ASSIGN_OR_RETURN(
      SharedMemory memory,
      SharedMemory::Create("cairn-fake-gpu", {.bytes = bytes, .prefault = false}));
  device_->free_bytes -= std::min(device_->free_bytes, memory.size());
  // As with a real one, nobody may rely upon what is there.
  std::memset(memory.writable().data(), 0xd7, memory.size());
  return std::make_unique<FakeRegion>(device_, std::move(memory),
                                      sharing == GpuSharing::kExportable);
}

absl::StatusOr<std::unique_ptr<GpuRegion>> FakeGpu::Import(GpuExport exported) {
  CAIRN_ASSIGN_OR_RETURN(SharedMemory memory,
                         SharedMemory::MapReadOnly(std::move(exported.descriptor), exported.bytes));
  const std::lock_guard<std::mutex> lock(device_->mutex);
  return std::make_unique<FakeRegion>(device_, std::move(memory), /*exportable=*/false);
}

absl::StatusOr<std::unique_ptr<Gpu::Pinned>> FakeGpu::Pin(std::span<const uint8_t> memory,
                                                          PinnedUse use) {
  const std::lock_guard<std::mutex> lock(device_->mutex);
  device_->ranges.push_back(
      {memory.data(), memory.size(), use == PinnedUse::kReadWrite, /*pinned=*/true});
  return std::make_unique<FakePinned>(device_, memory.data());
}

absl::StatusOr<std::unique_ptr<GpuStream>> FakeGpu::NewStream() {
  const std::lock_guard<std::mutex> lock(device_->mutex);
  return std::make_unique<FakeStream>(device_);
}

bool FakeGpu::RunOne() {
  const std::lock_guard<std::mutex> lock(device_->mutex);
  return device_->RunOldest();
}

void FakeGpu::RunAll() {
  while (RunOne()) {
  }
}

size_t FakeGpu::waiting() const {
  const std::lock_guard<std::mutex> lock(device_->mutex);
  size_t sum = 0;
  for (const Queue* queue : device_->queues) sum += queue->work.size();
  return sum;
}

void FakeGpu::FailNext() {
  const std::lock_guard<std::mutex> lock(device_->mutex);
  device_->fail_next = true;
}

std::span<uint8_t> FakeGpu::BytesOf(const GpuRegion& region) {
  return {region.data(), region.bytes()};
}

}  // namespace cairn::store
