// fault_point.h: named places at which a test may end the process: CAIRN_FAULT_POINT(kPutSynced).
//
// In a program that is shipped they are nothing: the macro only checks that the name exists. With
// CAIRN_FAULT_POINTS defined (tests/crash builds such a cairnd) each counts its hits on a board
// that lives outside of the process, and the one that is armed there raises SIGKILL at its k-th
// hit.
//
// The list below is the only one: tests/crash walks it and fails for a point that is never reached.
//
// Threads: any. Ownership: the board belongs to who started the process.
#ifndef CAIRN_STORE_BASE_FAULT_POINT_H_
#define CAIRN_STORE_BASE_FAULT_POINT_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cairn {

// What must be going on for a point to be reached.
enum class FaultStage : uint8_t {
  kServing,      // puts, fetches and evictions in a store at its limit
  kFirstStart,   // in an empty directory
  kStart,        // any start
  kStartTail,    // after a crash between the sync and the catalog batch of a put into a young store
  kStartTorn,    // after a crash while a segment was made
  kStartLost,    // the catalog was deleted
  kStartMarked,  // the catalog is marked for a rebuild
  kStop,         // a clean stop
};

// X(name, text, stage)
#define CAIRN_FAULT_POINT_LIST(X)                                        \
  /* cache/core: reserve, commit to host memory */                       \
  X(kReserveMade, "reserve.made", kServing)                              \
  X(kCommitStarted, "commit.started", kServing)                          \
  X(kCommitRoomTaken, "commit.room_taken", kServing)                     \
  X(kCommitCopied, "commit.copied", kServing)                            \
  X(kCommitPublished, "commit.published", kServing)                      \
  X(kCommitQueued, "commit.queued", kServing)                            \
  X(kCommitEnded, "commit.ended", kServing)                              \
  X(kCommitSaved, "commit.saved", kServing)                              \
  X(kHostEvict, "host.evict", kServing)                                  \
  X(kFetchRead, "fetch.read", kServing)                                  \
  X(kFetchPromoted, "fetch.promoted", kServing)                          \
  X(kVerifyRead, "verify.read", kServing)                                \
  /* cache/core: host memory to disk, eviction from disk */              \
  X(kWriterBatchTaken, "writer.batch_taken", kServing)                   \
  X(kWriterBatchPut, "writer.batch_put", kServing)                       \
  X(kWriterBatchFinished, "writer.batch_finished", kServing)             \
  X(kEvictChosen, "evict.chosen", kServing) /* once an entry */          \
  X(kEvictBeforeErase, "evict.before_erase", kServing)                   \
  X(kEvictErased, "evict.erased", kServing)                              \
  /* store/tier: put and publish */                                      \
  X(kPutClaimed, "put.claimed", kServing)                                \
  X(kPutRoomTaken, "put.room_taken", kServing)                           \
  X(kPutRecordWritten, "put.record_written", kServing)                   \
  X(kPutWritten, "put.written", kServing)                                \
  X(kPutSynced, "put.synced", kServing)                                  \
  X(kPublishCounted, "publish.counted", kServing)                        \
  X(kPublishCatalogued, "publish.catalogued", kServing)                  \
  X(kPublishFinished, "publish.finished", kServing)                      \
  X(kPutDone, "put.done", kServing)                                      \
  /* store/segment: create, seal, drop */                                \
  X(kCreateNumbered, "create.numbered", kServing)                        \
  X(kCreateOpened, "create.opened", kServing)                            \
  X(kCreateAllocated, "create.allocated", kServing)                      \
  X(kCreateHeaded, "create.headed", kServing)                            \
  X(kCreateSynced, "create.synced", kServing)                            \
  X(kCreateFolderSynced, "create.folder_synced", kServing)               \
  X(kSealBegun, "seal.begun", kServing)                                  \
  X(kSealTruncated, "seal.truncated", kServing)                          \
  X(kDropChosen, "drop.chosen", kServing)                                \
  X(kDropBeforeUnlink, "drop.before_unlink", kServing)                   \
  X(kDropUnlinked, "drop.unlinked", kServing)                            \
  /* store/tier: erase and reclaim */                                    \
  X(kEraseBegun, "erase.begun", kServing)                                \
  X(kEraseCatalogued, "erase.catalogued", kServing)                      \
  X(kEraseCounted, "erase.counted", kServing)                            \
  X(kReclaimBegun, "reclaim.begun", kServing)                            \
  X(kReclaimVictim, "reclaim.victim", kServing)                          \
  X(kReclaimScanned, "reclaim.scanned", kServing)                        \
  X(kReclaimRead, "reclaim.read", kServing)                              \
  X(kReclaimRewritten, "reclaim.rewritten", kServing)                    \
  X(kReclaimBeforeRepublish, "reclaim.before_republish", kServing)       \
  X(kReclaimRepublished, "reclaim.republished", kServing)                \
  X(kReclaimMoved, "reclaim.moved", kServing)                            \
  /* store/recovery */                                                   \
  X(kFormatWritten, "format.written", kFirstStart)                       \
  X(kFormatRenamed, "format.renamed", kFirstStart)                       \
  X(kRecoverBegun, "recover.begun", kStart)                              \
  X(kRecoverFilesOpened, "recover.files_opened", kStart)                 \
  X(kRecoverStoreFound, "recover.store_found", kStart)                   \
  X(kRecoverCatalogOpened, "recover.catalog_opened", kStart)             \
  X(kRecoverTailScanned, "recover.tail_scanned", kStartTail)             \
  X(kRecoverBeforeAdopt, "recover.before_adopt", kStartTail)             \
  X(kRecoverAdopted, "recover.adopted", kStartTail)                      \
  X(kRecoverUnfinishedRemoved, "recover.unfinished_removed", kStartTorn) \
  X(kRecoverMovedAside, "recover.moved_aside", kStartMarked)             \
  X(kRecoverRebuildScanned, "recover.rebuild_scanned", kStartLost)       \
  X(kRecoverRebuilt, "recover.rebuilt", kStartLost)                      \
  X(kRecoverTailTruncated, "recover.tail_truncated", kStartTail)         \
  X(kRecoverTailReserved, "recover.tail_reserved", kStartTail)           \
  X(kRecoverTailSynced, "recover.tail_synced", kStartTail)               \
  X(kRecoverBeforeSettle, "recover.before_settle", kStart)               \
  X(kRecoverSettled, "recover.settled", kStart)                          \
  X(kRecoverUnmarked, "recover.unmarked", kStartMarked)                  \
  /* store/tier: survey; cache/core: the index */                        \
  X(kSurveyBegun, "survey.begun", kStart)                                \
  X(kSurveyWalked, "survey.walked", kStart)                              \
  X(kSurveyEnded, "survey.ended", kStart)                                \
  X(kIndexLoaded, "index.loaded", kStart)                                \
  X(kIndexCleaned, "index.cleaned", kStart)                              \
  /* cache/daemon */                                                     \
  X(kDaemonDiskOpened, "daemon.disk_opened", kStart)                     \
  X(kDaemonKeyLoaded, "daemon.key_loaded", kStart)                       \
  X(kDaemonServing, "daemon.serving", kStart)                            \
  X(kShutdownBegun, "shutdown.begun", kStop)                             \
  X(kShutdownCallsEnded, "shutdown.calls_ended", kStop)                  \
  X(kShutdownFlushed, "shutdown.flushed", kStop)

#define CAIRN_FAULT_POINT_NAME(name, text, stage) name,
enum class FaultPoint : uint32_t { CAIRN_FAULT_POINT_LIST(CAIRN_FAULT_POINT_NAME) };
#undef CAIRN_FAULT_POINT_NAME

struct FaultPointInfo {
  FaultPoint point;
  std::string_view text;
  FaultStage stage;
};
#define CAIRN_FAULT_POINT_INFO(name, text, stage) \
  FaultPointInfo{FaultPoint::name, text, FaultStage::stage},
inline constexpr auto kFaultPoints =
    std::to_array<FaultPointInfo>({CAIRN_FAULT_POINT_LIST(CAIRN_FAULT_POINT_INFO)});
#undef CAIRN_FAULT_POINT_INFO

// Shared memory under this descriptor of the process, made by who started it; zero but for `magic`.
inline constexpr int kFaultBoardDescriptor = 200;
struct FaultBoard {
  static constexpr uint64_t kMagic = 0x3144524f42545246;
  static constexpr uint32_t kNone = UINT32_MAX;
  uint64_t magic = kMagic;
  // The armed point, and how many hits of it are still to come before the last one. May be set
  // while the process runs: hits_left first.
  std::atomic<uint64_t> hits_left{0};
  std::atomic<uint32_t> armed{kNone};
  std::array<std::atomic<uint64_t>, kFaultPoints.size()> hits{};
};
static_assert(std::atomic<uint64_t>::is_always_lock_free, "the board is shared by two processes");

#ifdef CAIRN_FAULT_POINTS
void HitFaultPoint(FaultPoint point);
#define CAIRN_FAULT_POINT(name) ::cairn::HitFaultPoint(::cairn::FaultPoint::name)
#else
#define CAIRN_FAULT_POINT(name) static_cast<void>(::cairn::FaultPoint::name)
#endif

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_FAULT_POINT_H_
