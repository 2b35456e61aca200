// arriving_prefix.h: a fetched prefix whose bytes arrive one after another, by whichever wire, or
// in stripes by several at once. Says where the next ones go, and checks each part as soon as it is
// whole, while it is in cache.
//
// Whoever fetched it draws all its bytes before he hands it out; or, where they come in groups
// (transfer_order.h), the first group's, and a thread of the prefix draws the rest.
//
// Memory for an entry is taken when its first byte is due, or its stripe has brought a group, so a
// daemon that promises much and sends little costs little.
//
// Threads:   a stripe: one, which draws it. Await and arrival: any. All else: any, once it was
//            handed out.
// Ownership: owns the memory, which returns to the pool with it. The destructor ends what still
//            draws. The pool outlives the first group's arrival.
// Units:     bytes. Errors: RESOURCE_EXHAUSTED from Room: the machine has no memory.
#ifndef CAIRN_CACHE_CLIENT_ARRIVING_PREFIX_H_
#define CAIRN_CACHE_CLIENT_ARRIVING_PREFIX_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "cache/client/answer_check.h"
#include "cache/client/cache_api.h"
#include "cache/client/receive_pool.h"
#include "cache/client/transfer_order.h"
#include "store/base/mutex.h"

namespace cairn::cache {

class ArrivingPrefix final : public FetchedPrefix {
 public:
  // What one wire brings.
  class Stripe {
   public:
    bool Done() const { return cursor_.Done(); }
    bool untouched() const { return taken_bytes_ == 0; }
    // Bytes that the piece at hand still lacks. REQUIRES: !Done(), here and below.
    uint64_t Missing() const { return cursor_.left(); }
    // And the whole stripe.
    uint64_t MissingInAll() const { return total_bytes_ - taken_bytes_; }
    // Where the piece's go.
    absl::StatusOr<std::span<uint8_t>> Room();
    // The first `bytes` of Room() are there. REQUIRES: at most Missing().
    void Took(uint64_t bytes);

   private:
    friend class ArrivingPrefix;
    Stripe(ArrivingPrefix& prefix, std::vector<uint64_t> sizes, std::vector<GroupEnd> ends);
    void OpenPiece();
    void CheckParts(uint64_t filled);
    // That it has come into another group, or to its end.
    void Report();

    ArrivingPrefix& prefix_;
    const std::vector<uint64_t> sizes_;  // 0: another stripe's, or an entry without bytes
    TransferCursor cursor_;
    uint64_t total_bytes_ = 0;
    uint64_t taken_bytes_ = 0;
    bool good_ = true;
    // Of the entry at hand: how far it is checked.
    size_t checked_parts_ = 0;
    uint64_t checked_ = 0;
    // What the prefix knows of. Its mutex guards them.
    size_t reported_group_ = 0;
    uint64_t reported_bytes_ = 0;
  };

  // Of an answer that CheckFetch has seen. `ends`: of the groups that were asked for, if any.
  // REQUIRES: stripes >= 1.
  ArrivingPrefix(const FetchRequest& request, CheckedFetch checked, ReceivePool& pool,
                 std::vector<GroupEnd> ends = {}, size_t stripes = 1);
  ~ArrivingPrefix() override;

  size_t stripes() const { return stripes_.size(); }
  // REQUIRES: i < stripes().
  Stripe& stripe(size_t i) { return *stripes_[i]; }
  // Every stripe. Only while none is drawn.
  bool Done() const;
  bool grouped() const { return groups_ > 1; }

  // The rest is drawn by a thread of this object: by `draw`, which fills the prefix to its end or
  // says why not, and which `stop`, called from another thread, ends soon. Where the system has no
  // thread to give, it is drawn here, before this returns. Once. REQUIRES: grouped(), and Await(1)
  // before it is handed out.
  void DrawBehind(std::function<absl::Status(ArrivingPrefix&)> draw, std::function<void()> stop);

  absl::Status Await(size_t groups) const override;
  Arrival arrival() const override;

 private:
  absl::Status TakeMemory(size_t entry);
  void Reached(Stripe& stripe);
  void MakeViews(bool all);

  ReceivePool& pool_;                   // until the first group is there
  std::vector<CheckedExtent> extents_;  // rows, then the checkpoint
  std::vector<EntryKey> keys_;
  size_t row_count_ = 0;
  size_t groups_ = 1;
  uint64_t total_bytes_ = 0;
  std::vector<ReceivePool::Buffer> memory_;  // each its stripe's, until that has brought a group
  std::vector<std::unique_ptr<Stripe>> stripes_;
  bool viewed_ = false;
  const int64_t begun_nanos_;

  mutable Mutex mutex_;
  size_t arrived_groups_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t arrived_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t arrived_nanos_ ABSL_GUARDED_BY(mutex_) = 0;
  bool damaged_ ABSL_GUARDED_BY(mutex_) = false;
  bool behind_ ABSL_GUARDED_BY(mutex_) = false;  // a thread draws
  // Why what is not there never will be.
  absl::Status end_ ABSL_GUARDED_BY(mutex_) = absl::UnavailableError("the prefix did not arrive");
  std::function<void()> stop_;
  std::thread drawer_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_ARRIVING_PREFIX_H_
