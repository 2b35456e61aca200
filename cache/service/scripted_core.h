// scripted_core.h: for tests of what a client believes and a daemon passes on: a core that answers
// what it is told.
//
// Threads: any; what it answers is set before it is asked. Errors: as told.
#ifndef CAIRN_CACHE_SERVICE_SCRIPTED_CORE_H_
#define CAIRN_CACHE_SERVICE_SCRIPTED_CORE_H_

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <vector>

#include "cache/core/cache_core.h"
#include "cache/core/core_rig.h"
#include "store/base/checksum.h"
#include "store/device/shared_memory.h"

namespace cairn::cache {

// Answers matches and Fetch by what the test says; all else as an empty cache.
class ScriptedCore final : public CacheCore {
 public:
  ScriptedCore() : arena_(*store::SharedMemory::Create("scripted", {.bytes = 64 * kIoAlignment})) {}

  std::function<absl::StatusOr<MatchResult>()> match = [] { return MatchResult(); };
  std::function<absl::StatusOr<LeasedPrefix>()> fetch = [] { return LeasedPrefix(); };
  std::function<absl::StatusOr<CoreMatch>()> match_and_lease = [] { return CoreMatch(); };
  std::atomic<LeaseId> asked_lease = 0, released_lease = 0;  // the last ones
  std::function<absl::StatusOr<store::GpuExport>()> attach_gpu = [] { return store::GpuExport(); };
  uint64_t claimed_arena_bytes = 64 * kIoAlignment;
  uint64_t claimed_gpu_bytes = 0;

  // An entry of true bytes and sizes for the rig's layout.
  LeasedEntry Entry(EntryKind kind, uint64_t offset) {
    const EntryKey key{{}, kind};
    const std::vector<uint8_t> payload = PayloadOf(key);
    std::copy(payload.begin(), payload.end(), arena_.writable().begin() + ptrdiff_t(offset));
    const std::vector<EntryPart> parts = PartsOf(kind, payload);
    uint8_t* const table = arena_.writable().data() + offset + PartTableOffset(payload.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      std::memcpy(table + i * sizeof(uint64_t), &parts[i].xxh3, sizeof(uint64_t));
    }
    return {key,
            offset,
            arena_.bytes().subspan(offset, payload.size()),
            {reinterpret_cast<const uint64_t*>(table), parts.size()},
            Checksum({table, parts.size() * sizeof(uint64_t)})};
  }
  LeasedPrefix Honest() {
    LeasedPrefix prefix;
    prefix.rows = {Entry(EntryKind::kRows, 4096), Entry(EntryKind::kRows, 8192)};
    prefix.checkpoint = Entry(EntryKind::kCheckpoint, 12288);
    return prefix;
  }

  absl::StatusOr<SessionId> OpenSession(const NamespaceSpec&, Registration*) override { return 1; }
  void CloseSession(SessionId) override {}
  absl::StatusOr<MatchResult> Match(SessionId, std::span<const Digest>) override { return match(); }
  absl::StatusOr<CoreMatch> MatchAndLease(SessionId, std::span<const Digest>,
                                          LeaseId lease) override {
    asked_lease = lease;
    return match_and_lease();
  }
  absl::StatusOr<LeasedPrefix> Fetch(SessionId, const FetchRequest&) override { return fetch(); }
  absl::Status Release(SessionId, LeaseId lease) override {
    released_lease = lease;
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<ReserveResult>> Reserve(SessionId, std::span<const ReserveItem>,
                                                     absl::Duration) override {
    return std::vector<ReserveResult>(3);
  }
  absl::StatusOr<std::vector<absl::Status>> Commit(SessionId, std::span<const CoreCommitItem>,
                                                   bool) override {
    return std::vector<absl::Status>();
  }
  absl::Status Abort(SessionId, std::span<const uint64_t>) override { return absl::OkStatus(); }
  absl::StatusOr<store::GpuExport> AttachGpu(SessionId) override { return attach_gpu(); }
  std::vector<NamedCount> Stats() override { return std::vector<NamedCount>(2000); }
  std::vector<ListedPrefix> List(const ListFilter&) override { return {}; }
  absl::StatusOr<uint64_t> Evict(const ListFilter&, uint64_t*) override { return 0; }
  absl::Status Pin(const Digest&, bool) override { return absl::OkStatus(); }
  absl::StatusOr<VerifyReport> Verify(const VerifyOptions&,
                                      const std::function<bool(const VerifyReport&)>&) override {
    return VerifyReport();
  }
  absl::Status Flush(absl::Duration) override { return absl::OkStatus(); }
  int arena_fd() const override { return arena_.descriptor(); }
  uint64_t arena_bytes() const override { return claimed_arena_bytes; }
  uint64_t gpu_bytes() const override { return claimed_gpu_bytes; }

 private:
  store::SharedMemory arena_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_SCRIPTED_CORE_H_
