#include "cache/core/gpu_copies.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr uint64_t kEntryBytesGuess = 256 << 10;  // sizes what the policy remembers

std::unique_ptr<EvictionPolicy> PolicyOf(const GpuCopies::Options& options, uint64_t pool_bytes) {
  auto policy = MakePolicy(options.policy, {.entries_expected = pool_bytes / kEntryBytesGuess + 1,
                                            .random = options.random});
  if (!policy.ok()) std::abort();  // REQUIRES in the header
  return *std::move(policy);
}

}  // namespace

GpuCopies::GpuCopies(const Options& options, store::Gpu& gpu, store::GpuTier& tier,
                     Residency& residency)
    : options_(options),
      gpu_(gpu),
      tier_(tier),
      residency_(residency),
      order_(PolicyOf(options, tier.pool_bytes())) {
  if (options_.background) {
    thread_ = std::thread([this] { Run(); });
  } else {
    Open();
  }
}

GpuCopies::~GpuCopies() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(&residency_.mutex);
    stop_ = true;
    noted_some_.Signal();
  }
  thread_.join();
}

void GpuCopies::Run() {
  Open();
  while (true) {
    {
      MutexLock lock(&residency_.mutex);
      while (noted_.empty() && wanted_.empty() && moving_ == 0 && !stop_) {
        noted_some_.Wait(&residency_.mutex);
      }
      if (stop_) return;
    }
    Step();
  }
}

void GpuCopies::Open() {
  absl::Status status;
  std::unique_ptr<store::GpuMover> mover;
  if (auto arena = gpu_.Pin(residency_.host.arena(), store::PinnedUse::kReadWrite); arena.ok()) {
    arena_ = *std::move(arena);
    auto made = store::GpuMover::Create(gpu_, residency_.host, tier_, {});
    status = made.status();
    if (made.ok()) mover = *std::move(made);
  } else {
    status = arena.status();
  }
  MutexLock lock(&residency_.mutex);
  mover_ = std::move(mover);
  if (!status.ok()) GiveUp(status);
}

void GpuCopies::GiveUp(const absl::Status& why) {
  if (given_up_.exchange(true)) return;
  spdlog::error("the GPU is not used any more: {}", std::string(why.message()));
  noted_.clear();
  wanted_.clear();
}

// ---- readers ----

GpuLease GpuCopies::Lease(std::span<const Digest> blocks, bool with_checkpoint) {
  GpuLease lease;
  if (blocks.empty() || given_up_) return lease;
  if (noted_.size() < kNotedMax) {
    noted_.push_back({blocks.back(), with_checkpoint});
    noted_some_.Signal();
  }
  lease.pins = tier_.FindAll(blocks, EntryKind::kRows);
  if (lease.pins.size() == 0) return lease;
  const auto hold = [&](EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex) {
    if (ref.block == nullptr) return;
    const EntryNumber number = PrefixIndex::NumberOf(ref);
    const auto copy = copies_.find(number);
    if (copy == copies_.end()) return;
    lease.held.push_back({number, copy->second.id});
    Hold(number, 1);
  };
  // The deepest is enough: what it stands on does not go before it.
  Block* const deepest = residency_.index.Find(blocks[lease.pins.size() - 1]);
  hold({deepest, EntryKind::kRows});
  if (!with_checkpoint || lease.pins.size() < blocks.size()) return lease;
  if (store::GpuPin pin = tier_.Find({blocks.back(), EntryKind::kCheckpoint}); pin) {
    lease.pins.Add(std::move(pin));
    hold({deepest, EntryKind::kCheckpoint});
  }
  return lease;
}

void GpuCopies::Release(GpuLease lease) {
  for (const auto& [number, id] : lease.held) {
    const auto copy = copies_.find(number);
    if (copy != copies_.end() && copy->second.id == id) Hold(number, -1);
  }
}

void GpuCopies::Forget(EntryRef ref) {
  const auto forget = [this](EntryRef entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex) {
    const EntryNumber number = PrefixIndex::NumberOf(entry);
    if (copies_.contains(number)) Drop(number, /*evicted=*/false);
  };
  const auto copy = copies_.find(PrefixIndex::NumberOf(ref));
  if (copy == copies_.end()) return;
  if (copy->second.children == 0) return forget(ref);
  residency_.index.VisitSubtree(ref.block, [&](Block* block) {
    forget({block, EntryKind::kCheckpoint});
    forget({block, EntryKind::kRows});
  });
}

absl::Status GpuCopies::Check(const store::GpuPin& pin) {
  const absl::Status status = tier_.Check(pin);
  if (status.ok() || absl::IsDataLoss(status)) return status;
  MutexLock lock(&residency_.mutex);
  GiveUp(status);
  return status;
}

bool GpuCopies::DropDamaged(EntryRef ref, const store::GpuPin& pin, const absl::Status& why) {
  if (!tier_.Erase(pin)) return false;
  Residency::SayWithdrawn(ref.key(), "in GPU memory", why);
  Counters& counters = residency_.counters;
  (ref.kind == EntryKind::kRows ? counters.damaged_gpu_rows : counters.damaged_gpu_checkpoints)
      .Add();
  Forget(ref);
  return true;
}

// ---- what comes ----

bool GpuCopies::Step() {
  while (const std::optional<Noted> noted = NextNoted()) Walk(*noted);
  PromoteWanted();
  if (mover_ != nullptr) {
    mover_->Step();
    mover_->Wait();
  }
  MutexLock lock(&residency_.mutex);
  return !noted_.empty() || !wanted_.empty() || moving_ > 0;
}

// What one wants comes before what the next one does.
std::optional<GpuCopies::Noted> GpuCopies::NextNoted() {
  MutexLock lock(&residency_.mutex);
  if (noted_.empty() || !wanted_.empty() || moving_ > 0) return std::nullopt;
  SetNewest(kNone);
  const Noted noted = noted_.front();
  noted_.pop_front();
  return noted;
}

void GpuCopies::Walk(const Noted& noted) {
  std::vector<EntryKey> absent;  // from the tip upwards, with whether it was wanted before
  std::vector<bool> before;
  const auto look = [&](EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex) {
    const EntryNumber number = PrefixIndex::NumberOf(ref);
    if (const auto copy = copies_.find(number); copy != copies_.end()) {
      order_.Used(copy->second.slot);
      if (newest_ == kNone) SetNewest(number);
      return;
    }
    absent.push_back(ref.key());
    before.push_back(WantedBefore(number));
  };
  std::optional<Digest> at = noted.tip;
  while (at.has_value()) {
    MutexLock lock(&residency_.mutex);
    Block* block = residency_.index.Find(*at);
    if (block != nullptr && noted.checkpoint && *at == noted.tip && block->checkpoint.present()) {
      look({block, EntryKind::kCheckpoint});
    }
    for (size_t i = 0; block != nullptr && i < kWalkAtOnce; ++i) {
      look({block, EntryKind::kRows});
      block = residency_.index.ParentOf(*block);
    }
    at = block == nullptr ? std::nullopt : std::optional(block->digest);
  }
  // Ancestors first, as far as each was wanted before.
  MutexLock lock(&residency_.mutex);
  for (size_t i = absent.size(); i-- > 0 && before[i];) wanted_.push_back(absent[i]);
}

bool GpuCopies::WantedBefore(EntryNumber number) {
  if (!wanted_once_.insert(number).second) return true;
  wanted_once_order_.push_back(number);
  if (wanted_once_order_.size() > kRemembered) {
    wanted_once_.erase(wanted_once_order_.front());
    wanted_once_order_.pop_front();
  }
  return false;
}

void GpuCopies::PromoteWanted() {
  while (true) {
    std::optional<store::HostPin> pin;
    uint64_t room = 0;
    {
      MutexLock lock(&residency_.mutex);
      if (wanted_.empty()) return;
      pin = residency_.host.Find(wanted_.front());
      if (pin.has_value()) {
        room = store::ArenaRoomBytes(pin->meta().payload_bytes(), pin->meta().parts.size());
      }
      // It went meanwhile or lies on disk only, or there is no room: what stands on it stays too.
      if (!pin.has_value() || !MakeRoom(room)) {
        wanted_.clear();
        return;
      }
    }
    const absl::Status taken = mover_->Promote(
        *std::move(pin), [this, room](const EntryKey& key, const absl::Status& status) {
          Arrived(key, room, status);
        });
    if (!taken.ok()) return;  // as many are waiting as may
    MutexLock lock(&residency_.mutex);
    wanted_.pop_front();
    ++moving_;
    room_moving_ += room;
  }
}

// By the mover, within Step.
void GpuCopies::Arrived(const EntryKey& key, uint64_t room, const absl::Status& status) {
  MutexLock lock(&residency_.mutex);
  --moving_;
  room_moving_ -= room;
  const EntryRef ref{residency_.index.Find(key.digest), key.kind};
  if (status.ok()) {
    promoted_.Add();
    if (ref.block == nullptr || !ref->present()) {
      tier_.Erase(key);  // it left all its other places meanwhile
    } else {
      Record(ref, room);
    }
    return;
  }
  refused_.Add();
  wanted_.clear();  // what stands on it is of no use without it
  if (absl::IsInternal(status)) GiveUp(status);
  if (!absl::IsDataLoss(status) || ref.block == nullptr) return;
  if (const auto pin = residency_.host.Find(key); pin.has_value()) {
    residency_.DropDamagedHost(ref, *pin, status);
    residency_.index.Prune(ref.block);
  }
}

void GpuCopies::Record(EntryRef ref, uint64_t room) {
  const EntryNumber number = PrefixIndex::NumberOf(ref);
  Copy copy{.key = ref.key(), .id = ++copies_made_, .room = room};
  if (ref.kind == EntryKind::kCheckpoint) {
    copy.parent = PrefixIndex::NumberOf({ref.block, EntryKind::kRows});
  } else if (Block* const above = residency_.index.ParentOf(*ref.block); above != nullptr) {
    copy.parent = PrefixIndex::NumberOf({above, EntryKind::kRows});
  }
  EntryFacts facts = residency_.index.FactsOf(ref);
  if (copy.parent != kNone) {
    const auto parent = copies_.find(copy.parent);
    if (parent == copies_.end()) {  // it went while this one was on its way
      tier_.Erase(copy.key);
      return;
    }
    facts.parent = parent->second.slot;
    ++parent->second.children;
    Refresh(parent->second);
  }
  copy.slot = order_.Add(number, facts);
  copies_.emplace(number, copy);
  room_taken_ += room;
  Refresh(copy);
  SetNewest(number);
}

// ---- what goes ----

bool GpuCopies::MakeRoom(uint64_t room) {
  while (room_taken_ + room_moving_ + room > tier_.pool_bytes()) {
    const std::optional<EntryNumber> victim = order_.Victim();
    if (!victim.has_value()) return false;
    evicted_.Add();
    Drop(*victim, /*evicted=*/true);
  }
  return true;
}

void GpuCopies::Drop(EntryNumber number, bool evicted) {
  const auto at = copies_.find(number);
  const Copy copy = at->second;
  copies_.erase(at);
  order_.Remove(copy.slot, evicted);
  room_taken_ -= copy.room;
  tier_.Erase(copy.key);  // readers keep their pinned bytes
  if (newest_ == number) newest_ = kNone;
  const auto parent = copies_.find(copy.parent);
  if (parent == copies_.end()) return;
  --parent->second.children;
  Refresh(parent->second);
}

void GpuCopies::SetNewest(EntryNumber number) {
  if (number != kNone) Hold(number, 1);
  if (newest_ != kNone) Hold(newest_, -1);
  newest_ = number;
}

void GpuCopies::Hold(EntryNumber number, int change) {
  const auto copy = copies_.find(number);
  if (copy == copies_.end()) return;  // it was forgotten meanwhile
  copy->second.holds = static_cast<uint32_t>(static_cast<int64_t>(copy->second.holds) + change);
  Refresh(copy->second);
}

void GpuCopies::Refresh(const Copy& copy) {
  order_.SetEvictable(copy.slot, copy.children == 0 && copy.holds == 0);
}

std::vector<NamedCount> GpuCopies::Stats() const {
  const store::GpuTierStats tier = tier_.stats();
  MutexLock lock(&residency_.mutex);
  const store::GpuMoverStats mover = mover_ == nullptr ? store::GpuMoverStats() : mover_->stats();
  return {{"gpu_capacity_bytes", tier.capacity_bytes},
          {"gpu_used_bytes", tier.used_bytes},
          {"gpu_pinned_bytes", tier.pinned_bytes},
          {"gpu_unswept_bytes", tier.unswept_bytes},
          // What has come is in the tier a moment before it is known here.
          {"gpu_entries", copies_.size()},
          {"gpu_promoted_entries", promoted_.value()},
          {"gpu_promoted_bytes", mover.promoted_bytes},
          {"gpu_refused_entries", refused_.value()},
          {"gpu_evicted_entries", evicted_.value()},
          {"gpu_moving_bytes", mover.underway_bytes}};
}

}  // namespace cairn::cache
