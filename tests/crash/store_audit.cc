#include "tests/crash/store_audit.h"

#include <filesystem>
#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "store/base/clock.h"
#include "store/base/limits.h"
#include "tests/crash/worker.h"
#include "tools/cairnctl/admin_client.h"

namespace cairn::crash {
namespace {

constexpr absl::Duration kCallMax = absl::Seconds(30);

absl::Status Broken(const std::string& what) { return absl::DataLossError(what); }

class Audit {
 public:
  Audit(const DaemonPlace& place, const AuditOptions& options, Oracle& oracle)
      : place_(place), options_(options), oracle_(oracle) {}

  absl::StatusOr<AuditResult> Run() {
    CAIRN_ASSIGN_OR_RETURN(cache_, ConnectCrashCache(place_));
    // First of all, while the index may still be filled: hits need not wait for it.
    CAIRN_RETURN_IF_ERROR(CheckPrefixes());
    CAIRN_ASSIGN_OR_RETURN(result_.on_disk, ListDisk(place_));
    CAIRN_RETURN_IF_ERROR(CheckPresence());
    CAIRN_RETURN_IF_ERROR(CheckFigures());
    CAIRN_RETURN_IF_ERROR(CheckNothingElse());
    return result_;
  }

 private:
  // Every prefix that was ever begun: what a match finds can be fetched, whole and exact.
  absl::Status CheckPrefixes() {
    for (const Prefix& prefix : oracle_.Prefixes()) {
      CAIRN_ASSIGN_OR_RETURN(const cache::MatchResult match, cache_->Match(prefix.chain));
      if (match.rows_blocks == 0) continue;
      CAIRN_RETURN_IF_ERROR(Fetch(prefix, match.rows_blocks, /*checkpoint=*/false));
      if (result_.first_hit_nanos == 0) {
        result_.first_hit_nanos = RealClock().NowNanos();
      }
      for (const cache::CheckpointHit& hit : match.checkpoints) {
        CAIRN_RETURN_IF_ERROR(Fetch(prefix, hit.blocks, /*checkpoint=*/true));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Fetch(const Prefix& prefix, uint32_t blocks, bool checkpoint) {
    const auto chain = std::span(prefix.chain).first(blocks);
    const cache::FetchRequest request{.chain = chain, .checkpoint = checkpoint};
    absl::StatusOr<std::unique_ptr<cache::FetchedPrefix>> answer = cache_->Fetch(request);
    if (absl::IsResourceExhausted(answer.status())) {
      // The arena is small, and releases travel behind the calls.
      CAIRN_RETURN_IF_ERROR(AwaitReleases());
      answer = cache_->Fetch(request);
    }
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<cache::FetchedPrefix> fetched, std::move(answer));
    if (fetched->rows.size() != blocks || fetched->checkpoint.has_value() != checkpoint) {
      return Broken(absl::StrCat("prefix ", prefix.number, ": ", blocks, " blocks ",
                                 checkpoint ? "and a checkpoint " : "", "were matched, ",
                                 fetched->rows.size(), " and ", fetched->checkpoint.has_value(),
                                 " could be fetched"));
    }
    result_.entries += checkpoint ? 1 : blocks;
    return CheckFetched(*fetched, chain, result_.bytes);
  }

  absl::StatusOr<std::map<std::string, uint64_t>> Figures() {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::NamedCount> counts, cache_->Stats());
    std::map<std::string, uint64_t> figures;
    for (const cache::NamedCount& count : counts) figures[count.name] = count.value;
    return figures;
  }

  absl::Status AwaitReleases() {
    const int64_t end = RealClock().NowNanos() + absl::ToInt64Nanoseconds(kCallMax);
    while (RealClock().NowNanos() < end) {
      CAIRN_ASSIGN_OR_RETURN(auto figures, Figures());
      if (figures["open_leases"] == 0) return absl::OkStatus();
    }
    return Broken("a lease is held that nobody holds");
  }

  // Nothing that was never begun; nothing gone that was acknowledged, but by eviction.
  absl::Status CheckPresence() {
    for (const EntryKey& key : result_.on_disk) {
      if (!oracle_.Knows(key)) {
        return Broken(absl::StrCat("entry ", key.digest.ToHex(), " was never put"));
      }
    }
    const Oracle::Missing missing = oracle_.EndPinsAndCompare(result_.on_disk);
    result_.certain = missing.certain;
    result_.missing = missing.evictable.size();
    if (!missing.kept.empty()) {
      return Broken(absl::StrCat(missing.kept.size(), " pinned entries are lost; the first is ",
                                 missing.kept[0].digest.ToHex()));
    }
    if (result_.missing <= options_.evicted_max) return absl::OkStatus();
    return Broken(absl::StrCat(
        result_.missing, " of ", result_.certain, " acknowledged entries are lost, ",
        options_.evicted_max, " were evicted; the first is ", missing.evictable[0].digest.ToHex()));
  }

  absl::Status CheckFigures() {
    CAIRN_ASSIGN_OR_RETURN(auto figures, Figures());
    for (const char* zero : {"checksum_failures", "disk_checksum_failures", "lost_entries",
                             "disk_read_failures", "startup_unreadable_entries"}) {
      if (figures[zero] != 0) return Broken(absl::StrCat(zero, " is ", figures[zero]));
    }
    if (!options_.catalog_lost && figures["startup_orphan_entries"] != 0) {
      return Broken(absl::StrCat(figures["startup_orphan_entries"], " orphans"));
    }
    uint64_t files = 0, bytes = 0;
    for (const auto& file : std::filesystem::directory_iterator(place_.data() + "/segments")) {
      ++files;
      bytes += file.file_size();
    }
    if (files != figures["disk_segments"] || bytes != figures["disk_used_bytes"]) {
      return Broken(absl::StrCat("leaked: ", files, " files of ", bytes, " bytes for ",
                                 figures["disk_segments"], " segments of ",
                                 figures["disk_used_bytes"]));
    }
    if (bytes > kDiskBytes) return Broken(absl::StrCat("over capacity: ", bytes));
    return absl::OkStatus();
  }

  // Crashes leave no garbage behind that grows.
  absl::Status CheckNothingElse() const {
    const std::set<std::string> known = {"FORMAT", "LOCK", "catalog", "segments", "tenant.key"};
    uint64_t moved_aside = 0;
    for (const auto& file : std::filesystem::directory_iterator(place_.data())) {
      const std::string name = file.path().filename().string();
      if (absl::StartsWith(name, "catalog.damaged-")) {
        ++moved_aside;
      } else if (!known.contains(name)) {
        return Broken(absl::StrCat("left behind: ", name));
      }
    }
    if (moved_aside <= options_.moved_aside_max) return absl::OkStatus();
    return Broken(absl::StrCat(moved_aside, " catalogs moved aside"));
  }

  const DaemonPlace& place_;
  const AuditOptions& options_;
  Oracle& oracle_;
  std::unique_ptr<cache::CacheApi> cache_;
  AuditResult result_;
};

}  // namespace

absl::StatusOr<std::set<EntryKey>> ListDisk(const DaemonPlace& place) {
  ctl::AdminClient admin(place.admin_socket(), kCallMax);
  v1::ListRequest request;
  request.set_limit(kListEntriesMax);
  CAIRN_ASSIGN_OR_RETURN(const v1::ListResponse list, admin.List(request));
  std::set<EntryKey> there;
  for (const v1::ListedPrefix& listed : list.prefixes()) {
    const std::optional<Digest> digest = Digest::FromBytes(listed.digest());
    if (!digest.has_value()) return absl::DataLossError("a listed digest is none");
    if (listed.rows_disk()) there.insert({*digest, EntryKind::kRows});
    if (listed.checkpoint_disk()) there.insert({*digest, EntryKind::kCheckpoint});
  }
  return there;
}

absl::StatusOr<AuditResult> AuditStore(const DaemonPlace& place, const AuditOptions& options,
                                       Oracle& oracle) {
  return Audit(place, options, oracle).Run();
}

}  // namespace cairn::crash
