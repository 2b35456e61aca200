// expert_cache.h: the routed experts that are in memory, of all that are on disk.
//
// There is a fixed number of places, each with the memory of one packed expert; an expert is read
// and packed into a place when a step first needs it. What is in memory is never more than the
// places and what the readers hold. Which expert gives way: expert_policy.h. Results do not depend
// on any of it.
//
// A step of a layer is a Use. It says all experts that it needs, and takes them one by one, in that
// order; the readers read those that are missing in the same order, several at once and ahead of
// the taking, as far as there are places. The expert taken last and those read ahead for it are
// never given up; if need be, one that the step takes later is, from the end.
//
// Where all experts have places, LoadAll reads them at once; from then on nothing changes and a Use
// costs nothing.
//
// Threads:   Uses from any thread, one at a time: the next waits in its constructor. Own threads
//            read. stats() from any.
// Ownership: owns the experts; Uses end before it does.
// Errors:    of Next and LoadAll: those of Load. The expert is asked for again by the next Use.
#ifndef CAIRN_ENGINE_FORWARD_EXPERT_CACHE_H_
#define CAIRN_ENGINE_FORWARD_EXPERT_CACHE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/forward/expert_policy.h"
#include "engine/forward/linear_op.h"
#include "engine/model/tensor_reader.h"
#include "store/base/mutex.h"
#include "store/base/status.h"

namespace cairn::engine {

struct ExpertStats {
  uint64_t places = 0;   // experts that memory is there for
  uint64_t experts = 0;  // of the model
  uint64_t hits = 0;     // taken by steps, and in memory when the step began
  uint64_t misses = 0;   // taken by steps, and read for them
  uint64_t reads = 0;    // of experts, also of ones that nobody took
  uint64_t read_bytes = 0;
  uint64_t evictions = 0;   // given up for another
  uint64_t wait_nanos = 0;  // that steps waited for reads
};

class ExpertCache {
 public:
  // Reads an expert of a layer and packs it into `into`, whose memory is used again. `room` is this
  // reader's own. The bytes that it read. Called by several readers at once, for different experts.
  using Load = std::function<absl::StatusOr<uint64_t>(int64_t layer, int64_t expert, ReadRoom& room,
                                                      ExpertOp& into)>;
  struct Options {
    int64_t layers = 0;
    int64_t experts = 0;  // of a layer
    int64_t places = 0;   // at least 1
    int readers = 1;
  };
  ExpertCache(const Options& options, Load load);
  ~ExpertCache();
  ExpertCache(const ExpertCache&) = delete;
  ExpertCache& operator=(const ExpertCache&) = delete;

  // REQUIRES: places for all; no Use is there.
  absl::Status LoadAll();

  class Use {
   public:
    // `wanted`: ascending, each once.
    Use(ExpertCache& cache, int64_t layer, std::vector<int32_t> wanted);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    // The next of `wanted`, once it is there; until the next call.
    absl::StatusOr<const ExpertOp*> Next();
    // What Next returns stays for as long as the Use does.
    bool all_stay() const { return !waits_; }

   private:
    ExpertCache& cache_;
    const int64_t layer_;
    const std::vector<int32_t> wanted_;
    size_t next_ = 0;
    bool waits_ = false;  // not all experts are in memory for good
  };

  ExpertStats stats() const;

 private:
  static constexpr int64_t kNone = -1;

  enum class State : uint8_t { kFree, kReading, kReady };
  struct Place {
    ExpertOp expert;
    State state = State::kFree;
    int64_t key = kNone;
    uint64_t read_for = 0;  // the Use
  };

  void StopReaders();
  void ReadUntilStopped();
  int64_t KeyOf(int64_t layer, int64_t expert) const { return layer * options_.experts + expert; }
  const ExpertOp* TakeComplete(int64_t key) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  const Place& PlaceOf(int64_t key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return places_[static_cast<size_t>(place_of_[static_cast<size_t>(key)])];
  }
  bool IsReady(int64_t key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return place_of_[static_cast<size_t>(key)] != kNone && PlaceOf(key).state == State::kReady;
  }
  bool MayRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !stalled_ && failure_.ok() && issued_ < wanted_.size();
  }
  void PassThoseHere() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeReaders() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AwaitReady(int64_t key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t IndexOf(int64_t key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes a place for the next missing expert of the Use; kNone: nothing to read now.
  int64_t TakePlace() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One that is free or whose expert may be given up; kNone: there is none now.
  int64_t FindPlace() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How long it can be done without; below 0: not at all.
  float WaitOf(int64_t key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(int64_t place, const absl::StatusOr<uint64_t>& read)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const Load load_;
  std::vector<std::thread> readers_;
  std::atomic<bool> complete_{false};  // all are in memory, for good
  std::atomic<uint64_t> complete_hits_{0};

  mutable Mutex mutex_;
  CondVar work_;                                           // MayRead, or the end
  CondVar ready_;                                          // a read is over
  CondVar free_;                                           // a Use is over
  std::vector<Place> places_ ABSL_GUARDED_BY(mutex_);      // kReading: the expert is its reader's
  std::vector<int64_t> place_of_ ABSL_GUARDED_BY(mutex_);  // by key; kNone: on disk
  ExpertPolicy policy_ ABSL_GUARDED_BY(mutex_);
  ExpertStats stats_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  // The current Use. Of its experts, those before held_ are done with, those from there to issued_
  // are in memory or being read and stay, those behind are not looked at yet.
  bool in_use_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t use_ ABSL_GUARDED_BY(mutex_) = 0;  // its number
  int64_t layer_ ABSL_GUARDED_BY(mutex_) = 0;
  std::span<const int32_t> wanted_ ABSL_GUARDED_BY(mutex_);
  size_t held_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t issued_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stalled_ ABSL_GUARDED_BY(mutex_) = false;  // there is no place until something is done with
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_EXPERT_CACHE_H_
