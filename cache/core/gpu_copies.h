// gpu_copies.h: which entries have a copy in GPU memory, what comes there and what goes.
//
// Copies only: each entry here lies in host memory or on disk too, and goes from here when it goes
// from its last place there. So nothing is lost with a GPU, and putting and finding never wait for
// one.
//
// What comes: blocks that a lease wanted before (kRemembered says how far back is remembered), from
// host memory, ancestors first. What goes, to make room: what the tier's policy (cache/policy)
// names among those that have no children here and are not leased. So what is here can be used from
// its prefix's begin.
//
// Who leases here is an engine that maps the pool; what others lease does not come.
//
// A lease only notes its tip; one thread does the rest: pins the arena on the GPU, which takes as
// long as its first touch, then walks chains, teaches the policy, moves.
//
// Threads:   Lease, Release, Forget, Has, Pin and DropDamaged under residency.mutex, by any thread;
//            they never wait. Check from any thread, without it. Step from one at a time.
// Ownership: residency, tiers and Gpu outlive it.
// Units:     bytes. Errors: none; a move that fails leaves its entry where it was.
#ifndef CAIRN_CACHE_CORE_GPU_COPIES_H_
#define CAIRN_CACHE_CORE_GPU_COPIES_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "cache/client/cache_api.h"
#include "cache/core/residency.h"
#include "store/tier/gpu_mover.h"
#include "store/tier/gpu_tier.h"

namespace cairn::cache {

// A reader's hold: the leading blocks' rows, and, if these are all, perhaps the checkpoint.
struct GpuLease {
  // A copy that is not to be chosen as a victim meanwhile. If it goes all the same, another may
  // come under its number.
  struct Held {
    EntryNumber number = 0;
    uint64_t copy = 0;
  };
  store::GpuPins pins;
  std::vector<Held> held;
};

class GpuCopies {
 public:
  struct Options {
    std::string policy = kDefaultPolicy;
    Random* random = nullptr;
    bool background = true;  // false: Step does it all (tests)
  };
  // REQUIRES: options.policy is known.
  GpuCopies(const Options& options, store::Gpu& gpu, store::GpuTier& tier, Residency& residency);
  ~GpuCopies();

  // What of these blocks is here, pinned, in order from the first on; the checkpoint is the last
  // one's. Notes the use.
  GpuLease Lease(std::span<const Digest> blocks, bool with_checkpoint)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Release(GpuLease lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // The entry has left its last place beside this one. What stands on it is of no use here then.
  void Forget(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);

  bool Has(EntryRef ref) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex) {
    return !given_up_ && copies_.contains(PrefixIndex::NumberOf(ref));
  }
  // Empty: there is no copy.
  store::GpuPin Pin(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex) {
    return Has(ref) ? tier_.Find(ref.key()) : store::GpuPin();
  }
  // Has the GPU look at every part where it lies, and waits for it: OK, DATA_LOSS, or the device's
  // word, after which it is not used any more.
  absl::Status Check(const store::GpuPin& pin) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  // Takes the pinned copy, which is damaged, away with what stands on it, and counts it. False:
  // somebody did so before.
  bool DropDamaged(EntryRef ref, const store::GpuPin& pin, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);

  // Everything that can be done now; waits for the device only if something is on its way there.
  // False: nothing is left to do.
  bool Step() ABSL_LOCKS_EXCLUDED(residency_.mutex);

  std::vector<NamedCount> Stats() const;
  bool given_up() const { return given_up_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kNotedMax = 256;        // tips; more are forgotten
  static constexpr size_t kRemembered = 1 << 16;  // entries that were wanted once
  static constexpr size_t kWalkAtOnce = 256;      // blocks under one hold of the mutex: some 50 us

  struct Copy {
    EntryKey key;
    uint64_t id = 0;             // no other copy ever has it
    EntryNumber parent = kNone;  // rows that it stands on, if any
    uint64_t room = 0;           // bytes in the pool
    uint32_t slot = 0;           // in order_
    uint32_t children = 0;       // here
    uint32_t holds = 0;
  };
  static constexpr EntryNumber kNone = UINT32_MAX;
  struct Noted {
    Digest tip;
    bool checkpoint = false;
  };

  void Run();
  // Pins the arena and makes the mover; a GPU that refuses is given up.
  void Open();
  // The GPU does not work: nothing comes any more, and nothing is handed out.
  void GiveUp(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  std::optional<Noted> NextNoted();
  // Uses those of the chain that are here, and chooses what of the rest is to come.
  void Walk(const Noted& noted);
  // Whether it was wanted before; remembers it if not.
  bool WantedBefore(EntryNumber number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void PromoteWanted();
  void Arrived(const EntryKey& key, uint64_t room, const absl::Status& status);
  void Record(EntryRef ref, uint64_t room) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Lets go of what the policy names until so much room is there beside what is on its way. False:
  // nothing more may go.
  bool MakeRoom(uint64_t room) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Drop(EntryNumber number, bool evicted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void SetNewest(EntryNumber number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Hold(EntryNumber number, int change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Refresh(const Copy& copy) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);

  const Options options_;
  store::Gpu& gpu_;
  store::GpuTier& tier_;
  Residency& residency_;
  std::unique_ptr<store::Gpu::Pinned> arena_;
  std::unique_ptr<store::GpuMover> mover_;

  // All guarded by residency_.mutex; mover_ is set under it, and used by Step without.
  absl::flat_hash_map<EntryNumber, Copy> copies_;
  TierOrder order_;
  std::deque<Noted> noted_;
  absl::flat_hash_set<EntryNumber> wanted_once_;
  std::deque<EntryNumber> wanted_once_order_;
  // The deepest that is here of the chain that is coming: held, as the next stands on it.
  EntryNumber newest_ = kNone;
  uint64_t copies_made_ = 0;
  uint64_t room_taken_ = 0;      // by copies
  std::deque<EntryKey> wanted_;  // what is to come, ancestors first
  size_t moving_ = 0;            // of which the mover has these
  uint64_t room_moving_ = 0;
  std::atomic<bool> given_up_ = false;  // is set under it
  bool stop_ = false;
  CondVar noted_some_;

  Counter promoted_, refused_, evicted_;
  std::thread thread_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_GPU_COPIES_H_
