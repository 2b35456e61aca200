#include "tests/crash/trial.h"

#include <signal.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "tests/crash/worker.h"
#include "tools/cairnctl/admin_client.h"

namespace cairn::crash {
namespace {

constexpr size_t kWorkers = 2;
// Operations of one worker: to fill the store; until a point must have been hit; after an audit.
constexpr uint64_t kFillOperations = 120, kHitOperations = 800, kAfterOperations = 5;
constexpr uint64_t kRandomKillMicrosMax = 400'000;
constexpr uint64_t kStartKillMicrosMax = 60'000;
constexpr uint64_t kHitsMax = 4;
constexpr int kTailAttemptsMax = 8;
constexpr absl::Duration kCallMax = absl::Seconds(30);

const FaultPointInfo& InfoOf(FaultPoint point) { return kFaultPoints[static_cast<size_t>(point)]; }

class TrialRun {
 public:
  TrialRun(uint64_t seed, const DaemonPlace& place, Oracle& oracle)
      : place_(place), oracle_(oracle), random_(seed) {}

  absl::Status Fill() {
    CAIRN_RETURN_IF_ERROR(StartServing());
    CAIRN_RETURN_IF_ERROR(Work(kFillOperations));
    CAIRN_RETURN_IF_ERROR(Stop());
    // Stopping may have evicted too. From here on the oracle knows what is there.
    CAIRN_RETURN_IF_ERROR(StartServing());
    CAIRN_RETURN_IF_ERROR(AuditNow());
    return Stop();
  }

  absl::Status Run(const Trial& trial) {
    CAIRN_RETURN_IF_ERROR(Crash(trial));
    const bool made = std::filesystem::exists(place_.data() + "/FORMAT");
    if (made && !catalog_lost_) CAIRN_RETURN_IF_ERROR(Check("after the crash"));
    CAIRN_RETURN_IF_ERROR(StartServing());
    CAIRN_RETURN_IF_ERROR(AuditNow());
    CAIRN_RETURN_IF_ERROR(Work(kAfterOperations));
    CAIRN_RETURN_IF_ERROR(Stop());
    if (result_.sealed_after == result_.sealed_before) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("of ", result_.sealed_before, " entries on disk ",
                                            result_.sealed_after, " came back"));
  }

  const TrialResult& result() const { return result_; }

 private:
  uint64_t Draw(uint64_t below) { return random_.Next() % below; }
  FaultPoint DrawPoint(const std::set<FaultStage>& stages) {
    std::vector<FaultPoint> points;
    for (const FaultPointInfo& info : kFaultPoints) {
      if (stages.contains(info.stage)) points.push_back(info.point);
    }
    return points[Draw(points.size())];
  }

  absl::Status Crash(const Trial& trial) {
    switch (trial.kind) {
      case TrialKind::kPoint:
        return CrashAt(trial.point);
      case TrialKind::kRandom:
        return CrashAtRandom();
      case TrialKind::kDouble:
        return CrashDeeply();
      case TrialKind::kIdle:
        return CrashAtRest();
      case TrialKind::kCatalog:
        CAIRN_RETURN_IF_ERROR(CrashWorking(DrawPoint({FaultStage::kServing})));
        return DeleteCatalog();
    }
    return absl::InternalError("no such kind of trial");
  }

  absl::Status CrashAt(FaultPoint point) {
    switch (InfoOf(point).stage) {
      case FaultStage::kServing:
        return CrashWorking(point);
      case FaultStage::kStop:
        CAIRN_RETURN_IF_ERROR(StartServing());
        CAIRN_RETURN_IF_ERROR(Work(kAfterOperations));
        daemon_->Arm({point});
        daemon_->Terminate();
        return AwaitKilled(point);
      case FaultStage::kFirstStart:
        break;
      case FaultStage::kStart:
        CAIRN_RETURN_IF_ERROR(CrashWorking(DrawPoint({FaultStage::kServing})));
        break;
      case FaultStage::kStartTail:
        return CrashAtTail(point);
      case FaultStage::kStartTorn:
        CAIRN_RETURN_IF_ERROR(CrashWorking(FaultPoint::kCreateAllocated));
        break;
      case FaultStage::kStartLost:
        CAIRN_RETURN_IF_ERROR(CrashWorking(DrawPoint({FaultStage::kServing})));
        CAIRN_RETURN_IF_ERROR(DeleteCatalog());
        break;
      case FaultStage::kStartMarked:
        CAIRN_RETURN_IF_ERROR(CrashWorking(DrawPoint({FaultStage::kServing})));
        MarkForRebuild();
        break;
    }
    CAIRN_RETURN_IF_ERROR(Start(FaultArm{point}));
    ++result_.kills_at_start;
    return AwaitKilled(point);
  }

  // While one group of puts is synced the next one may be going to another segment, so that the
  // crash finds the one before sealed, whose unwritten end is cut off already. Then the start has
  // nothing to cut, and serves.
  absl::Status CrashAtTail(FaultPoint point) {
    for (int attempt = 0; attempt < kTailAttemptsMax; ++attempt) {
      CAIRN_RETURN_IF_ERROR(CrashWorking(FaultPoint::kPutSynced));
      CAIRN_RETURN_IF_ERROR(Start(FaultArm{point}));
      ++result_.kills_at_start;
      CAIRN_ASSIGN_OR_RETURN(const bool serves, daemon_->AwaitServing());
      if (!serves) return AwaitKilled(point);
      daemon_->Kill();
      CAIRN_RETURN_IF_ERROR(AwaitKilled({}));
    }
    return absl::DataLossError(absl::StrCat("none of ", kTailAttemptsMax,
                                            " starts behind an unfinished put reached ",
                                            std::string(InfoOf(point).text)));
  }

  absl::Status CrashWorking(FaultPoint point) {
    CAIRN_RETURN_IF_ERROR(StartServing());
    daemon_->Arm({point, 1 + Draw(kHitsMax)});
    CAIRN_RETURN_IF_ERROR(Work(kHitOperations));
    return AwaitKilled(point);
  }

  absl::Status CrashAtRandom() {
    CAIRN_RETURN_IF_ERROR(StartServing());
    absl::Notification never;
    const absl::Duration after = absl::Microseconds(Draw(kRandomKillMicrosMax));
    std::thread killer([&] {
      never.WaitForNotificationWithTimeout(after);
      daemon_->Kill();
    });
    const absl::Status worked = Work(UINT64_MAX);
    killer.join();
    CAIRN_RETURN_IF_ERROR(worked);
    return AwaitKilled({});
  }

  absl::Status CrashDeeply() {
    CAIRN_RETURN_IF_ERROR(CrashWorking(DrawPoint({FaultStage::kServing})));
    std::set<FaultStage> stages = {FaultStage::kStart, FaultStage::kStartTail};
    switch (Draw(4)) {
      case 0:
        CAIRN_RETURN_IF_ERROR(DeleteCatalog());
        stages.insert(FaultStage::kStartLost);
        break;
      case 1:
        MarkForRebuild();
        stages.insert({FaultStage::kStartLost, FaultStage::kStartMarked});
        break;
      default:
        break;
    }
    for (uint64_t depth = 1 + Draw(kCrashesDeepMax); depth > 0; --depth) {
      const bool by_time = Draw(3) == 0;
      const FaultArm arm{DrawPoint(stages)};
      CAIRN_RETURN_IF_ERROR(Start(by_time ? std::nullopt : std::optional(arm)));
      if (by_time) {
        absl::Notification never;
        never.WaitForNotificationWithTimeout(absl::Microseconds(Draw(kStartKillMicrosMax)));
      } else {
        CAIRN_RETURN_IF_ERROR(daemon_->AwaitServing().status());
      }
      daemon_->Kill();  // unless it died of the point
      ++result_.kills_at_start;
      CAIRN_RETURN_IF_ERROR(AwaitKilled({}));
    }
    return absl::OkStatus();
  }

  absl::Status CrashAtRest() {
    CAIRN_RETURN_IF_ERROR(StartServing());
    CAIRN_RETURN_IF_ERROR(Work(kAfterOperations));
    ctl::AdminClient admin(place_.admin_socket(), kCallMax);
    // What found no room beside pinned entries is not on disk, and not expected there.
    const absl::Status flushed = admin.Flush(kCallMax);
    if (!absl::IsResourceExhausted(flushed)) CAIRN_RETURN_IF_ERROR(flushed);
    CAIRN_ASSIGN_OR_RETURN(sealed_, ListDisk(place_));
    result_.sealed_before = sealed_.size();
    daemon_->Kill();
    return AwaitKilled({});
  }

  // As the daemon does when it finds its catalog damaged.
  void MarkForRebuild() {
    std::ofstream(place_.data() + "/REBUILD").flush();
    catalog_lost_ = true;
    moved_aside_max_ = 1;
  }

  absl::Status DeleteCatalog() {
    std::error_code error;
    std::filesystem::remove_all(place_.data() + "/catalog", error);
    catalog_lost_ = true;
    return error ? absl::UnavailableError(error.message()) : absl::OkStatus();
  }

  absl::Status Start(std::optional<FaultArm> arm) {
    started_nanos_ = RealClock().NowNanos();
    CAIRN_ASSIGN_OR_RETURN(daemon_, DaemonProcess::Start(place_, arm));
    return absl::OkStatus();
  }

  absl::Status StartServing() {
    CAIRN_RETURN_IF_ERROR(Start(std::nullopt));
    CAIRN_ASSIGN_OR_RETURN(const bool serves, daemon_->AwaitServing());
    if (serves) return absl::OkStatus();
    CAIRN_ASSIGN_OR_RETURN(const DaemonEnd end, daemon_->AwaitEnd());
    return absl::DataLossError(absl::StrCat("the daemon does not start: ", end.ToString()));
  }

  absl::Status Work(uint64_t operations_max) {
    std::vector<std::unique_ptr<Worker>> workers;
    std::vector<absl::Status> statuses(kWorkers);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < kWorkers; ++i) {
      workers.push_back(std::make_unique<Worker>(place_, oracle_, i, random_.Next()));
    }
    for (size_t i = 0; i < kWorkers; ++i) {
      threads.emplace_back([&, i] { statuses[i] = workers[i]->Run(operations_max); });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < kWorkers; ++i) {
      CAIRN_RETURN_IF_ERROR(statuses[i]);
      result_.operations += workers[i]->result().operations;
      result_.bytes_verified += workers[i]->result().bytes_verified;
    }
    return absl::OkStatus();
  }

  void CountHits() {
    for (size_t i = 0; i < kFaultPoints.size(); ++i) {
      result_.hits[i] += daemon_->hits(kFaultPoints[i].point);
    }
  }

  // `point`: where it must die; nullopt: anywhere, but of SIGKILL.
  absl::Status AwaitKilled(std::optional<FaultPoint> point) {
    const absl::StatusOr<DaemonEnd> end = daemon_->AwaitEnd();
    if (!end.ok() && point.has_value()) {
      return absl::DataLossError(absl::StrCat("the point ", std::string(InfoOf(*point).text),
                                              " was reached only ", daemon_->hits(*point),
                                              " times"));
    }
    CAIRN_RETURN_IF_ERROR(end.status());
    CountHits();
    ++result_.kills;
    if (end->signal == SIGKILL) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("the daemon was not killed by us: ", end->ToString()));
  }

  absl::Status AuditNow() {
    const size_t evict = static_cast<size_t>(FaultPoint::kEvictChosen);
    // In all lives since the store was copied, the one that serves now included.
    const AuditOptions options{
        .evicted_max = result_.hits[evict] + daemon_->hits(FaultPoint::kEvictChosen),
        .catalog_lost = catalog_lost_,
        .moved_aside_max = moved_aside_max_};
    CAIRN_ASSIGN_OR_RETURN(result_.audit, AuditStore(place_, options, oracle_));
    if (result_.audit.first_hit_nanos != 0) {
      result_.first_hit_nanos = result_.audit.first_hit_nanos - started_nanos_;
    }
    for (const EntryKey& key : sealed_) {
      result_.sealed_after += result_.audit.on_disk.contains(key) ? 1 : 0;
    }
    return absl::OkStatus();
  }

  absl::Status Stop() {
    daemon_->Terminate();
    CAIRN_ASSIGN_OR_RETURN(const DaemonEnd end, daemon_->AwaitEnd());
    CountHits();
    if (end.signal != 0 || end.exit_code != 0) {
      return absl::DataLossError(absl::StrCat("a clean stop ", end.ToString()));
    }
    return Check("after a clean stop");
  }

  absl::Status Check(const std::string& when) const {
    CAIRN_ASSIGN_OR_RETURN(const DaemonEnd end, CheckDirectory(place_));
    if (end.signal == 0 && end.exit_code == 0) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("cairnd --check ", when, " ", end.ToString()));
  }

  const DaemonPlace place_;
  Oracle& oracle_;
  SeededRandom random_;
  std::unique_ptr<DaemonProcess> daemon_;
  TrialResult result_;
  std::set<EntryKey> sealed_;
  int64_t started_nanos_ = 0;
  bool catalog_lost_ = false;
  uint64_t moved_aside_max_ = 0;
};

absl::Status MakeFolder(const std::string& work) {
  std::error_code error;
  std::filesystem::remove_all(work, error);
  if (!error) std::filesystem::create_directories(work, error);
  return error ? absl::UnavailableError(absl::StrCat("cannot make ", work, ": ", error.message()))
               : absl::OkStatus();
}

}  // namespace

absl::Status PrepareStore(const DaemonPlace& place, uint64_t seed, Oracle& oracle) {
  CAIRN_RETURN_IF_ERROR(MakeFolder(place.work));
  return TrialRun(seed, place, oracle).Fill();
}

absl::StatusOr<TrialResult> RunTrial(const Trial& trial, const DaemonPlace& prepared,
                                     const DaemonPlace& place, const Oracle& known) {
  CAIRN_RETURN_IF_ERROR(MakeFolder(place.work));
  // A full store reclaims, and then the tail may be that of a move, which nobody adopts.
  const FaultStage stage = InfoOf(trial.point).stage;
  const bool empty = trial.kind == TrialKind::kPoint &&
                     (stage == FaultStage::kFirstStart || stage == FaultStage::kStartTail);
  Oracle oracle(empty ? Oracle() : known);
  TrialRun run(trial.seed, place, oracle);
  if (!empty) {
    std::error_code error;
    std::filesystem::copy(prepared.data(), place.data(), std::filesystem::copy_options::recursive,
                          error);
    if (error) return absl::UnavailableError(absl::StrCat("copy: ", error.message()));
  }
  CAIRN_RETURN_IF_ERROR(run.Run(trial));
  return run.result();
}

}  // namespace cairn::crash
