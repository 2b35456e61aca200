// verifier.h: re-reads what is stored, in all tiers, every part of it, and compares it with its
// checksums; what lies in GPU memory is looked at by the GPU. What is damaged is withdrawn, counted
// and logged; where another tier's copy is good it stands in, and on disk it is written anew.
//
// No lock is held while bytes are read; an entry that is looked at does not go meanwhile, and all
// others may come and go.
//
// Threads:   any; passes of several run side by side.
// Ownership: residency, copies on the GPU, waiter and clock outlive it.
// Units:     bytes; nanoseconds of Clock.
// Errors:    CANCELLED: `progress` said so, or End was called.
#ifndef CAIRN_CACHE_CORE_VERIFIER_H_
#define CAIRN_CACHE_CORE_VERIFIER_H_

#include <functional>

#include "cache/core/cache_core.h"
#include "cache/core/gpu_copies.h"
#include "cache/core/residency.h"
#include "cache/core/waiter.h"
#include "store/device/file_system.h"

namespace cairn::cache {

class Verifier {
 public:
  // Told at the beginning, at the end, and between entries at least once a second while it waits;
  // false ends the pass.
  using Progress = std::function<bool(const VerifyReport&)>;

  // `gpu` may be null.
  Verifier(Residency& residency, GpuCopies* gpu, Waiter& waiter, Clock& clock)
      : residency_(residency), gpu_(gpu), waiter_(waiter), clock_(clock) {}

  absl::StatusOr<VerifyReport> Pass(const VerifyOptions& options, const Progress& progress);
  // False: End was called first.
  bool WaitUntil(int64_t nanos) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  // Ends all passes and waits, those to come too.
  void End() ABSL_LOCKS_EXCLUDED(residency_.mutex);

 private:
  struct Work;

  void CountAll(Work& work) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  bool Tell(Work& work);
  // Until the rate allows the next entry.
  bool AwaitTurn(Work& work);
  bool ending() ABSL_LOCKS_EXCLUDED(residency_.mutex);
  void One(const EntryKey& key, Work& work) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  bool HostIsGood(EntryRef ref, const store::HostPin& pin, Work& work)
      ABSL_LOCKS_EXCLUDED(residency_.mutex);
  absl::Status ReadDisk(const EntryKey& key, uint64_t bytes, Work& work);
  // True: it is damaged, and was taken away.
  bool GpuIsDamaged(EntryRef ref, const store::GpuPin& pin, uint64_t bytes, Work& work)
      ABSL_LOCKS_EXCLUDED(residency_.mutex);

  Residency& residency_;
  GpuCopies* const gpu_;
  Waiter& waiter_;
  Clock& clock_;
  bool ending_ ABSL_GUARDED_BY(residency_.mutex) = false;
  CondVar ended_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_VERIFIER_H_
