#include "store/tier/gpu_tier.h"

#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "store/device/gpu_part_check.h"

namespace cairn::store {
namespace {

using Extents = std::vector<std::pair<uint64_t, uint64_t>>;  // offset, bytes

uint64_t BytesOf(const Extents& extents) {
  uint64_t sum = 0;
  for (const auto& [offset, bytes] : extents) sum += bytes;
  return sum;
}

}  // namespace

struct GpuTier::Impl {
  Impl(Gpu& g, std::unique_ptr<GpuRegion> p, std::unique_ptr<GpuStream> z)
      : gpu(g),
        pool(std::move(p)),
        zeroing(std::move(z)),
        entries("GPU tier", pool->bytes(), [this](uint64_t offset, uint64_t bytes) {
          const std::lock_guard<std::mutex> lock(freed_mutex);
          freed.emplace_back(offset, bytes);
          unswept_bytes += bytes;
        }) {}

  absl::Status Sweep(bool wait);
  // REQUIRES: sweep_mutex.
  absl::StatusOr<GpuMark> Zero(const Extents& extents) {
    for (const auto& [offset, bytes] : extents) {
      CAIRN_RETURN_IF_ERROR(zeroing->Zero(pool->data() + offset, bytes));
    }
    return zeroing->Mark();
  }

  Gpu& gpu;
  const std::unique_ptr<GpuRegion> pool;

  // Beside the device; never held with another but `entries`' own, which comes first.
  mutable std::mutex freed_mutex;
  Extents freed;               // not yet being zeroed; guarded by freed_mutex
  uint64_t unswept_bytes = 0;  // guarded by freed_mutex

  std::mutex sweep_mutex;  // before `entries`' own
  struct Zeroed {
    GpuMark mark;
    Extents extents;
  };
  std::unique_ptr<GpuStream> zeroing;  // guarded by sweep_mutex
  std::deque<Zeroed> underway;         // guarded by sweep_mutex

  std::mutex check_mutex;
  std::unique_ptr<GpuStream> checking;  // made at the first use, as is the next; guarded by
  std::unique_ptr<GpuPartCheck> check;  // check_mutex

  ArenaEntries entries;
};

GpuExtent ExtentOf(const uint8_t* pool, const ArenaSlot& slot) {
  return {slot.offset, pool + slot.offset, slot.payload_bytes, slot.table_xxh3};
}

GpuExtent GpuPin::extent() const { return ExtentOf(pool_, *pin_.slot()); }

GpuExtent GpuPins::operator[](size_t i) const { return ExtentOf(pool_, pins_[i]); }

void GpuPins::Add(GpuPin pin) {
  pool_ = pin.pool_;
  pins_.Add(std::move(pin.pin_));
}

absl::StatusOr<std::unique_ptr<GpuTier>> GpuTier::Create(Gpu& gpu, uint64_t capacity_bytes) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<GpuRegion> pool,
                         gpu.Allocate(capacity_bytes, GpuSharing::kExportable));
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<GpuStream> stream, gpu.NewStream());
  CAIRN_RETURN_IF_ERROR(stream->Zero(pool->data(), pool->bytes()));
  CAIRN_ASSIGN_OR_RETURN(const GpuMark zeroed, stream->Mark());
  CAIRN_RETURN_IF_ERROR(stream->Wait(zeroed));
  return std::unique_ptr<GpuTier>(
      new GpuTier(std::make_unique<Impl>(gpu, std::move(pool), std::move(stream))));
}

GpuTier::GpuTier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GpuTier::~GpuTier() {
  // They wait for what they are doing to the pool.
  impl_->zeroing.reset();
  impl_->checking.reset();
}

absl::StatusOr<GpuExport> GpuTier::Export() const { return impl_->pool->Export(); }
uint64_t GpuTier::pool_bytes() const { return impl_->pool->bytes(); }

absl::StatusOr<GpuRoom> GpuTier::Reserve(uint64_t payload_bytes, size_t parts) {
  CAIRN_RETURN_IF_ERROR(Sweep());
  GpuRoom room;
  CAIRN_ASSIGN_OR_RETURN(room.room_, impl_->entries.Reserve(payload_bytes, parts));
  room.pool_ = impl_->pool->data();
  return room;
}

absl::Status GpuTier::Publish(EntryMeta meta, GpuRoom room) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<ArenaSlot> slot,
                         impl_->entries.Fit(std::move(meta), room.room_));
  return impl_->entries.Publish(std::move(slot), std::move(room.room_));
}

GpuPin GpuTier::Find(const EntryKey& key) {
  GpuPin pin;
  pin.pin_ = impl_->entries.Find(key);
  pin.pool_ = impl_->pool->data();
  return pin;
}

GpuPins GpuTier::FindAll(std::span<const Digest> digests, EntryKind kind) {
  GpuPins pins;
  pins.pins_ = impl_->entries.FindAll(digests, kind);
  pins.pool_ = impl_->pool->data();
  return pins;
}

bool GpuTier::Contains(const EntryKey& key) const { return impl_->entries.Contains(key); }
bool GpuTier::Erase(const EntryKey& key) { return impl_->entries.Erase(key); }
bool GpuTier::Erase(const GpuPin& pin) { return impl_->entries.Erase(pin.pin_); }
bool GpuTier::Pinned(const EntryKey& key) const { return impl_->entries.Pinned(key); }

absl::Status GpuTier::Sweep() { return impl_->Sweep(/*wait=*/false); }
absl::Status GpuTier::Settle() { return impl_->Sweep(/*wait=*/true); }

absl::Status GpuTier::Impl::Sweep(bool wait) {
  const std::lock_guard<std::mutex> lock(sweep_mutex);
  Extents taken;
  {
    const std::lock_guard<std::mutex> freed_lock(freed_mutex);
    taken.swap(freed);
  }
  if (!taken.empty()) {
    const absl::StatusOr<GpuMark> mark = Zero(taken);
    if (!mark.ok()) {
      const std::lock_guard<std::mutex> freed_lock(freed_mutex);
      freed.insert(freed.end(), taken.begin(), taken.end());
      return mark.status();
    }
    underway.push_back({*mark, std::move(taken)});
  }
  if (underway.empty()) return absl::OkStatus();
  if (wait) CAIRN_RETURN_IF_ERROR(zeroing->Wait(underway.back().mark));
  CAIRN_ASSIGN_OR_RETURN(const GpuMark reached, zeroing->Reached());
  while (!underway.empty() && underway.front().mark <= reached) {
    const Extents zeroed = std::move(underway.front().extents);
    underway.pop_front();
    entries.Return(zeroed);
    const std::lock_guard<std::mutex> freed_lock(freed_mutex);
    unswept_bytes -= BytesOf(zeroed);
  }
  return absl::OkStatus();
}

absl::Status GpuTier::Check(const GpuPin& pin) {
  const GpuExtent extent = pin.extent();
  const std::lock_guard<std::mutex> lock(impl_->check_mutex);
  if (impl_->check == nullptr) {
    CAIRN_ASSIGN_OR_RETURN(impl_->checking, impl_->gpu.NewStream());
    CAIRN_ASSIGN_OR_RETURN(impl_->check, GpuPartCheck::Create(impl_->gpu, 1));
  }
  CAIRN_RETURN_IF_ERROR(impl_->check->Begin(
      *impl_->checking, {{extent.payload, pin.meta().parts, extent.table_xxh3}}));
  CAIRN_ASSIGN_OR_RETURN(const GpuMark mark, impl_->checking->Mark());
  CAIRN_RETURN_IF_ERROR(impl_->checking->Wait(mark));
  return impl_->check->Verdict(0);
}

GpuTierStats GpuTier::stats() const {
  const ArenaStats arena = impl_->entries.stats();
  const std::lock_guard<std::mutex> lock(impl_->freed_mutex);
  return {.capacity_bytes = impl_->pool->bytes(),
          .used_bytes = arena.used_bytes,
          .pinned_bytes = arena.pinned_bytes,
          .unswept_bytes = impl_->unswept_bytes,
          .entries = arena.entries};
}

}  // namespace cairn::store
