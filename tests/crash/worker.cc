#include "tests/crash/worker.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/client/remote_cache.h"
#include "cache/core/derived_entry.h"

namespace cairn::crash {
namespace {

// Prefixes that one worker ever names: more than the disk holds, so that puts evict, and few enough
// that what was evicted is put again.
constexpr uint64_t kPrefixesPerWorker = 48;
// Of these, the ones that most fetches go to: they stay, scattered over the segments, and reclaim
// has to move them.
constexpr uint64_t kHotPrefixes = 4;
// A call that takes longer is a hang.
constexpr absl::Duration kCallMax = absl::Seconds(30);

bool Gone(const absl::Status& status) { return absl::IsUnavailable(status); }

}  // namespace

absl::StatusOr<std::unique_ptr<cache::CacheApi>> ConnectCrashCache(const DaemonPlace& place) {
  cache::RemoteCacheOptions options;
  options.connect_timeout = options.call_timeout = options.commit_timeout = kCallMax;
  options.stall_timeout = kCallMax;
  options.staging_bytes_max = 16 << 20;
  return cache::ConnectCache("unix:" + place.socket(), CrashSpec(), options);
}

absl::Status Worker::Run(uint64_t operations_max) {
  const auto work = [&]() -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(cache_, ConnectCrashCache(place_));
    admin_ = std::make_unique<ctl::AdminClient>(place_.admin_socket(), kCallMax);
    CAIRN_RETURN_IF_ERROR(PinHot());
    while (result_.operations < operations_max) {
      CAIRN_RETURN_IF_ERROR(One());
      ++result_.operations;
    }
    return absl::OkStatus();
  };
  const absl::Status status = work();
  result_.daemon_gone = Gone(status);
  // Mapped bytes outlive the daemon.
  CAIRN_RETURN_IF_ERROR(CheckHeld());
  held_.reset();
  cache_.reset();
  return result_.daemon_gone ? absl::OkStatus() : status;
}

// What of the hot prefixes lies on disk now must stay there as long as this daemon lives.
absl::Status Worker::PinHot() {
  for (uint64_t i = 0; i < kHotPrefixes; ++i) {
    const Prefix prefix =
        MakePrefix(cache_->registration().root, id_ * kPrefixesPerWorker + i, kBlocksMax);
    CAIRN_ASSIGN_OR_RETURN(const cache::MatchResult match, cache_->Match(prefix.chain));
    if (match.rows_blocks == 0) continue;
    const absl::Status pinned =
        admin_->Pin(std::string(prefix.chain[match.rows_blocks - 1].AsView()), true).status();
    if (absl::IsNotFound(pinned)) continue;  // evicted since
    CAIRN_RETURN_IF_ERROR(pinned);
    v1::ListRequest request;
    request.mutable_filter()->set_prefix(std::string(prefix.chain[0].AsView()));
    CAIRN_ASSIGN_OR_RETURN(const v1::ListResponse list, admin_->List(request));
    for (const v1::ListedPrefix& listed : list.prefixes()) {
      const std::optional<Digest> digest = Digest::FromBytes(listed.digest());
      if (digest.has_value() && listed.pinned() && listed.rows_disk()) {
        oracle_.Keep({*digest, EntryKind::kRows});
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Worker::One() {
  const uint64_t die = Draw(100);
  if (die < 50) return Put();
  if (die < 90) return Fetch();
  if (die < 93) return AbortOne();
  if (die < 95) return EvictByOperator();
  if (die < 97) {
    const absl::Status flushed = admin_->Flush(kCallMax);
    // What does not fit beside leased entries stays in host memory, and is said.
    return absl::IsResourceExhausted(flushed) ? absl::OkStatus() : flushed;
  }
  if (die < 98) return VerifyByOperator();
  return CheckHeld();
}

absl::Status Worker::VerifyByOperator() {
  const absl::StatusOr<v1::VerifyEvent> report = admin_->Verify({}, [](const v1::VerifyEvent&) {});
  if (absl::IsResourceExhausted(report.status())) return absl::OkStatus();  // another client's
  CAIRN_RETURN_IF_ERROR(report.status());
  if (report->damaged() == 0) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("WRONG: a verification found ", report->damaged(), " damaged copies"));
}

Prefix Worker::DrawPrefix(bool fresh) {
  const bool hot = !fresh && Draw(2) == 0;
  const uint64_t number = id_ * kPrefixesPerWorker + Draw(hot ? kHotPrefixes : kPrefixesPerWorker);
  return MakePrefix(cache_->registration().root, number, 1 + Draw(kBlocksMax));
}

std::vector<cache::ReserveItem> Worker::ItemsOf(const Prefix& prefix) const {
  std::vector<cache::ReserveItem> items;
  for (size_t i = 0; i < prefix.chain.size(); ++i) {
    const Digest& parent = i == 0 ? cache_->registration().root : prefix.chain[i - 1];
    items.push_back({{prefix.chain[i], EntryKind::kRows}, parent, static_cast<uint32_t>(i)});
  }
  items.push_back(items.back());
  items.back().key.kind = EntryKind::kCheckpoint;
  return items;
}

absl::Status Worker::Put() {
  const Prefix prefix = DrawPrefix(/*fresh=*/true);
  const std::vector<cache::ReserveItem> items = ItemsOf(prefix);
  oracle_.Begin(prefix);
  CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::ReserveResult> reserved,
                         cache_->Reserve(items, absl::ZeroDuration()));
  return Commit(items, reserved, /*durable=*/Draw(2) == 0);
}

absl::Status Worker::Commit(std::span<const cache::ReserveItem> items,
                            std::span<const cache::ReserveResult> reserved, bool durable) {
  std::vector<std::unique_ptr<cache::StagingBuffer>> staging;
  std::vector<cache::CommitItem> commits;
  std::vector<EntryKey> keys;
  for (size_t i = 0; i < items.size(); ++i) {
    if (reserved[i].state != cache::ReserveState::kGo) continue;
    const EntryKey& key = items[i].key;
    const std::vector<uint8_t> payload = cache::DerivedPayload(CrashSpec().layout, key);
    CAIRN_ASSIGN_OR_RETURN(auto buffer, cache_->Stage(payload.size()));
    std::memcpy(buffer->bytes.data(), payload.data(), payload.size());
    commits.push_back({reserved[i].reservation, buffer.get(),
                       cache::PartsOfPayload(CrashSpec().layout, key.kind, payload)});
    staging.push_back(std::move(buffer));
    keys.push_back(key);
    oracle_.Maybe(key);
  }
  if (commits.empty()) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(const std::vector<absl::Status> statuses,
                         cache_->Commit(commits, durable));
  for (size_t i = 0; i < keys.size(); ++i) {
    const absl::Status& status = statuses[i];
    if (status.ok() && durable) oracle_.Certain(keys[i]);
    if (Gone(status)) return status;
    // No room beside what is held, or what it builds on was evicted meanwhile.
    if (!status.ok() && !absl::IsResourceExhausted(status) && !absl::IsFailedPrecondition(status)) {
      return absl::DataLossError(absl::StrCat("WRONG: a commit was answered ", status.ToString()));
    }
  }
  return absl::OkStatus();
}

absl::Status Worker::Fetch() {
  const Prefix prefix = DrawPrefix(/*fresh=*/false);
  CAIRN_ASSIGN_OR_RETURN(const cache::MatchResult match, cache_->Match(prefix.chain));
  if (match.rows_blocks == 0) return absl::OkStatus();
  const auto chain = std::span(prefix.chain).first(match.rows_blocks);
  absl::StatusOr<std::unique_ptr<cache::FetchedPrefix>> fetched = cache_->Fetch({.chain = chain});
  // The arena is small, and two workers hold parts of it.
  if (absl::IsResourceExhausted(fetched.status())) return absl::OkStatus();
  CAIRN_RETURN_IF_ERROR(fetched.status());
  CAIRN_RETURN_IF_ERROR(CheckFetched(**fetched, chain, result_.bytes_verified));
  if (Draw(8) != 0) return absl::OkStatus();
  CAIRN_RETURN_IF_ERROR(CheckHeld());
  held_ = *std::move(fetched);
  held_chain_.assign(chain.begin(), chain.end());
  return absl::OkStatus();
}

absl::Status Worker::CheckHeld() {
  if (held_ == nullptr) return absl::OkStatus();
  return CheckFetched(*held_, held_chain_, result_.bytes_verified);
}

absl::Status Worker::AbortOne() {
  const Prefix prefix = DrawPrefix(/*fresh=*/true);
  CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::ReserveResult> reserved,
                         cache_->Reserve(ItemsOf(prefix), absl::ZeroDuration()));
  std::vector<uint64_t> given;
  for (const cache::ReserveResult& result : reserved) {
    if (result.state == cache::ReserveState::kGo) given.push_back(result.reservation);
  }
  return cache_->Abort(given);
}

absl::Status Worker::EvictByOperator() {
  const Prefix prefix = DrawPrefix(/*fresh=*/true);
  const Digest& top = prefix.chain.back();
  // Everything that continues it goes too.
  const Prefix whole = MakePrefix(cache_->registration().root, prefix.number, kBlocksMax);
  for (size_t i = prefix.chain.size() - 1; i < whole.chain.size(); ++i) {
    for (const EntryKind kind : {EntryKind::kRows, EntryKind::kCheckpoint}) {
      const EntryKey key{whole.chain[i], kind};
      if (oracle_.Knows(key)) oracle_.Maybe(key);
    }
  }
  v1::EvictRequest request;
  request.mutable_filter()->set_prefix(std::string(top.AsView()));
  const absl::Status evicted = admin_->Evict(request).status();
  return absl::IsNotFound(evicted) ? absl::OkStatus() : evicted;
}

}  // namespace cairn::crash
