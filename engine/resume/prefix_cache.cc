#include "engine/resume/prefix_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/client/digest_chain.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

// Reservations taken at once before a prefill; what lies beyond is reserved when it is put.
constexpr size_t kReserveAhead = 1024;
// That a prefix arrives in: the first step waits for one of them at least, and an entry's share of
// one is still worth a system call.
constexpr size_t kGroupsMax = 8;

double SecondsSince(const Clock& clock, int64_t start) {
  return static_cast<double>(clock.NowNanos() - start) * 1e-9;
}

// Against its checksums; the sizes of its parts are the layout's.
bool Verified(const cache::EntryView& entry) { return entry.Verify().ok(); }

bool SizesMatch(const StoredPrefix& prefix, const KvLayout& layout) {
  const auto rows_bytes = static_cast<size_t>(layout.rows_entry_bytes());
  const auto checkpoint_bytes = static_cast<size_t>(layout.checkpoint_bytes());
  return std::ranges::all_of(
             prefix.rows, [&](const auto& entry) { return entry.payload.size() == rows_bytes; }) &&
         (prefix.checkpoint == nullptr || prefix.checkpoint->payload.size() == checkpoint_bytes);
}

}  // namespace

PrefixCache::PrefixCache(absl::StatusOr<std::unique_ptr<cache::CacheApi>> cache,
                         const CachedModel& model, Clock& clock, Options options)
    : model_(model),
      clock_(clock),
      options_(std::move(options)),
      costs_(options_.costs != nullptr ? options_.costs : std::make_shared<CostModel>()) {
  const cache::LayoutDescriptor layout = model.Descriptor();
  rows_parts_ = layout.part_bytes(cache::LayoutScope::kPrefix);
  checkpoint_parts_ = layout.part_bytes(cache::LayoutScope::kTrailing);
  if (!cache.ok()) {
    Detach(cache.status().ToString());
    return;
  }
  cache_ = std::move(cache).value();
  if (cache_ == nullptr) return;
  puts_ = options_.puts != nullptr ? options_.puts
                                   : std::make_shared<PutQueue>(cache_, options_.put_queue_bytes);
}

PrefixCache::~PrefixCache() = default;

void PrefixCache::Detach(const std::string& why) {
  cache_.reset();
  if (!said_ && options_.say)
    options_.say(absl::StrCat("cache not used, prefilling instead: ", why));
  said_ = true;
}

ResumeReport PrefixCache::Resume(std::span<const int32_t> tokens, CachedSession& session) {
  ResumeReport report;
  AbandonReservations();
  chain_.clear();
  output_end_.reset();
  stored_blocks_ = 0;
  branch_blocks_ = 0;
  found_.clear();
  mapped_.reset();
  arriving_.reset();
  pending_.clear();
  pending_bytes_ = 0;
  tainted_ = false;
  if (!attached()) return report;
  Extend(tokens);
  if (const absl::Status status = TryResume(tokens, session, report); !status.ok()) {
    Detach(status.ToString());
  }
  return report;
}

absl::StatusOr<cache::MatchResult> PrefixCache::MatchOrWait(std::span<const Digest> chain,
                                                            ResumeReport& report) {
  const int64_t start = clock_.NowNanos();
  CAIRN_ASSIGN_OR_RETURN(cache::MatchResult match, Match(chain));
  report.match_seconds += SecondsSince(clock_, start);
  std::vector<cache::ReserveItem> items = Missing(match, chain);
  if (items.empty()) return match;
  const absl::StatusOr<std::vector<cache::ReserveResult>> reserved =
      cache_->Reserve(items, absl::ZeroDuration());
  // The session's other sequences hold all it may have: computed without, and reserved when put.
  if (absl::IsResourceExhausted(reserved.status())) return match;
  CAIRN_RETURN_IF_ERROR(reserved.status());
  const std::vector<cache::ReserveResult>& results = *reserved;
  if (results.size() != items.size())
    return absl::InternalError("the cache answered another number of reservations");
  std::optional<size_t> last_wait;
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].state == cache::ReserveState::kGo)
      reservations_[items[i].key] = results[i].reservation;
    if (results[i].state == cache::ReserveState::kWait) last_wait = i;
  }
  if (!last_wait.has_value() || options_.wait <= absl::ZeroDuration()) return match;

  // Another engine is at it: the deepest entry that it makes and we need is worth waiting for.
  match.leased.reset();
  const int64_t wait_start = clock_.NowNanos();
  const cache::ReserveItem deepest = items[*last_wait];
  CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::ReserveResult> waited,
                         cache_->Reserve({&deepest, 1}, options_.wait));
  if (waited.size() == 1 && waited[0].state == cache::ReserveState::kGo) {
    reservations_[deepest.key] = waited[0].reservation;  // given up by its maker
  }
  report.wait_seconds = SecondsSince(clock_, wait_start);
  return Match(chain);
}

absl::StatusOr<cache::MatchResult> PrefixCache::Match(std::span<const Digest> chain) {
  CAIRN_ASSIGN_OR_RETURN(cache::MatchResult match, cache_->Match(chain, {.lease_host = true}));
  CAIRN_RETURN_IF_ERROR(CheckMatch(match, chain.size()));
  branch_blocks_ = match.branches ? match.rows_blocks : 0;
  found_ = match.checkpoints;
  return match;
}

std::vector<cache::ReserveItem> PrefixCache::Missing(const cache::MatchResult& match,
                                                     std::span<const Digest> chain) const {
  std::vector<cache::ReserveItem> items;
  const auto add = [&](size_t block, EntryKind kind) {
    const Digest& parent = block == 0 ? cache_->registration().root : chain[block - 1];
    items.push_back({{chain[block], kind}, parent, static_cast<uint32_t>(block)});
  };
  if (branch_blocks_ > 0 && cache_->registration().policy.branches &&
      Wants(branch_blocks_, std::ssize(chain_))) {
    add(match.rows_blocks - 1, EntryKind::kCheckpoint);
  }
  for (size_t i = match.rows_blocks; i < chain.size() && items.size() + 2 <= kReserveAhead; ++i) {
    add(i, EntryKind::kRows);
    if (Wants(static_cast<int64_t>(i) + 1, std::ssize(chain_))) add(i, EntryKind::kCheckpoint);
  }
  return items;
}

bool PrefixCache::Wants(int64_t blocks, int64_t end) const {
  for (const cache::CheckpointHit& hit : found_) {
    if (hit.blocks == blocks) return false;
  }
  return cache_->registration().policy.Wants(static_cast<uint64_t>(blocks), blocks == end,
                                             blocks == branch_blocks_);
}

absl::Status PrefixCache::TryResume(std::span<const int32_t> tokens, CachedSession& session,
                                    ResumeReport& report) {
  // At least one token is computed, or there would be no logits to sample from.
  const size_t usable = (tokens.size() - 1) / kBlockTokens;
  const std::span<const Digest> chain(chain_.data(), std::min(usable, chain_.size()));
  if (chain.empty()) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(cache::MatchResult match, MatchOrWait(chain, report));
  stored_blocks_ = match.rows_blocks;
  const Overlap overlap{.groups = Overlaps(session) ? kGroupsMax : 1,
                        .bytes_min = options_.overlap_bytes_min,
                        .step_tokens = options_.step_tokens,
                        .prompt_tokens = std::ssize(tokens)};
  const ResumePoints found =
      RankResumePoints(match, model_, *costs_, /*deepest_first=*/options_.always_load, overlap);
  for (const ResumePoint& point : found.points) {
    if (!options_.always_load && !found.Pays(point)) {
      report.recompute_was_cheaper = true;
      costs_->ObserveDeclined();
      return absl::OkStatus();
    }
    CAIRN_ASSIGN_OR_RETURN(const bool resumed,
                           ResumeAt(point, match, chain.first(point.blocks), session, report));
    if (resumed || report.fetch_was_late) return absl::OkStatus();
    found_.clear();  // not all of it is as it was
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> PrefixCache::ResumeAt(const ResumePoint& point, cache::MatchResult& match,
                                           std::span<const Digest> chain, CachedSession& session,
                                           ResumeReport& report) {
  const int64_t start = clock_.NowNanos();
  const std::vector<LayerGroup> groups = GroupsOf(point, session);
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<cache::FetchedPrefix> fetched,
                         TakeOrFetch(point, match, chain, groups, report));
  if (fetched == nullptr) return false;
  const double fetch_seconds = SecondsSince(clock_, start);
  report.fetch_seconds += fetch_seconds;
  const int64_t restore_start = clock_.NowNanos();
  CAIRN_ASSIGN_OR_RETURN(const bool restored, Restore(point, fetched, groups, session, report));
  report.restore_seconds += SecondsSince(clock_, restore_start);
  if (!restored) return false;
  if (report.arriving) {
    arriving_ = fetched;
    arriving_groups_ = groups.size();
    arriving_tokens_ = point.tokens();
    arriving_before_ = std::max(fetch_seconds - fetched->arrival().seconds, 0.0);
  } else {
    costs_->ObserveFetch(fetched->host_bytes, fetched->disk_bytes, SecondsSince(clock_, start));
  }
  report.copied_bytes = fetched->copied_bytes;
  if (!session.reads_in_place()) {
    report.copied_bytes += fetched->payload_bytes();
  } else if (fetched->copied_bytes == 0) {
    mapped_ = fetched;
  }
  report.prefix_tokens = point.tokens();
  if (const ReplayPlan* plan = session.replay(); plan != nullptr) {
    report.replay_token_layers = plan->TokenLayers();
    report.replay_rectangle_token_layers = plan->RectangleTokenLayers();
  }
  report.host_bytes = fetched->host_bytes;
  report.disk_bytes = fetched->disk_bytes;
  report.gpu_bytes = session.restored().gpu_bytes;
  return true;
}

std::vector<LayerGroup> PrefixCache::GroupsOf(const ResumePoint& point,
                                              const CachedSession& session) const {
  if (point.replay || !Overlaps(session)) return {};
  if (point.host_bytes + point.disk_bytes < options_.overlap_bytes_min) return {};
  return model_.layout.Groups(point.blocks, kGroupsMax);
}

bool PrefixCache::Overlaps(const CachedSession& session) const {
  return !cache_->registration().mapped && session.takes_arriving();
}

absl::StatusOr<std::shared_ptr<cache::FetchedPrefix>> PrefixCache::TakeOrFetch(
    const ResumePoint& point, cache::MatchResult& match, std::span<const Digest> chain,
    std::span<const LayerGroup> groups, ResumeReport& report) {
  // A hit in host memory came with the match; another one than this is not wanted any more.
  const std::shared_ptr<cache::FetchedPrefix> leased = std::move(match.leased);
  if (!point.replay && leased != nullptr && leased->rows.size() == chain.size()) return leased;
  absl::Duration deadline = options_.fetch_deadline;
  if (!options_.always_load) deadline = std::min(deadline, costs_->FetchPatience(point.tokens()));
  std::vector<cache::PartGroup> parts;
  for (const LayerGroup& group : groups) parts.push_back(group.parts);
  const int64_t start = clock_.NowNanos();
  absl::StatusOr<std::unique_ptr<cache::FetchedPrefix>> got = cache_->Fetch(
      {.chain = chain, .checkpoint = !point.replay, .deadline = deadline, .groups = parts});
  // No room for it in the daemon's memory: a miss, not a reason to leave.
  if (absl::IsResourceExhausted(got.status())) return nullptr;
  if (absl::IsDeadlineExceeded(got.status())) {
    // Too slow to be worth it, and it is remembered. If the daemon hangs the next call tells.
    costs_->ObserveFetch(point.host_bytes, point.disk_bytes, SecondsSince(clock_, start));
    report.fetch_was_late = true;
    return nullptr;
  }
  CAIRN_RETURN_IF_ERROR(got.status());
  return std::shared_ptr<cache::FetchedPrefix>(std::move(*got));
}

absl::StatusOr<bool> PrefixCache::Restore(
    const ResumePoint& point, const std::shared_ptr<const cache::FetchedPrefix>& fetched,
    std::span<const LayerGroup> groups, CachedSession& session, ResumeReport& report) const {
  if (fetched->rows.size() < point.blocks) return false;  // went meanwhile
  if (!point.replay && !fetched->checkpoint.has_value()) return false;
  // What was streamed has been checked as it arrived.
  StoredPrefix prefix{.rows = std::span(fetched->rows).first(point.blocks),
                      .verified = fetched->verified,
                      .owner = fetched};
  if (point.replay) {
    prefix.replay = ReplayPlan::To(model_.config, point.tokens());
  } else {
    prefix.checkpoint = &*fetched->checkpoint;
  }
  if (!SizesMatch(prefix, model_.layout)) {
    return absl::InternalError("the cache answered with an entry of another size");
  }
  report.arriving = !groups.empty() && !fetched->arrival().ended;
  if (report.arriving) {
    prefix.arriving = fetched.get();
    prefix.groups.assign(groups.begin(), groups.end());
  } else if (const absl::Status whole = fetched->Await(groups.size()); !whole.ok()) {
    report.checksum_failures += absl::IsDataLoss(whole) ? 1 : 0;
    return false;
  }
  const absl::Status restored = session.Restore(prefix);
  report.checksum_failures += session.restored().checksum_failures;
  if (absl::IsDataLoss(restored)) {
    ++report.checksum_failures;
    return false;
  }
  CAIRN_RETURN_IF_ERROR(restored);
  return true;
}

void PrefixCache::AwaitStart(int64_t tokens_left) const {
  if (arriving_ == nullptr) return;
  const double computing = costs_->PrefillSeconds(
      arriving_tokens_, arriving_tokens_ + std::min(tokens_left, options_.step_tokens));
  for (size_t groups = 1; groups <= arriving_groups_; ++groups) {
    if (!arriving_->Await(groups).ok()) return;
    const cache::Arrival so_far = arriving_->arrival();
    if (so_far.seconds * (1 - so_far.share) <= computing * so_far.share) return;
  }
}

void PrefixCache::NoteArrival() {
  if (arriving_ == nullptr) return;
  const std::shared_ptr<const cache::FetchedPrefix> arriving = std::move(arriving_);
  const absl::Status status = arriving->Await(arriving_groups_);
  // One that was too slow is remembered; what else cut it off says nothing of its cost.
  if (status.ok() || absl::IsDeadlineExceeded(status)) {
    costs_->ObserveFetch(arriving->host_bytes, arriving->disk_bytes,
                         arriving_before_ + arriving->arrival().seconds);
  }
  if (!status.ok()) Taint();
}

bool PrefixCache::StillIntact() {
  NoteArrival();
  if (mapped_ != nullptr && !std::all_of(mapped_->rows.begin(), mapped_->rows.end(), Verified)) {
    Taint();
  }
  for (PutItem& item : pending_) puts_->Add(std::move(item));
  pending_.clear();
  pending_bytes_ = 0;
  return !tainted_;
}

void PrefixCache::Taint() {
  tainted_ = true;
  mapped_.reset();
  for (const PutItem& item : pending_) {
    if (item.reservation.has_value()) reservations_[item.name.key] = *item.reservation;
  }
  pending_.clear();
  pending_bytes_ = 0;
  AbandonReservations();
}

bool PrefixCache::Settle(CachedSession& session, int64_t* in_shared) {
  if (mapped_ == nullptr) return true;
  const std::shared_ptr<const cache::FetchedPrefix> mapped = std::move(mapped_);
  for (size_t i = 0; i < mapped->rows.size(); ++i) {
    absl::StatusOr<SharedRows::Block> block =
        CopyMappedRows(mapped->rows[i], chain_[i], options_.shared);
    if (!block.ok()) {
      Taint();
      return false;
    }
    if (in_shared != nullptr && options_.shared != nullptr) {
      *in_shared += static_cast<int64_t>((*block)->size());
    }
    session.ReplaceRows(static_cast<int64_t>(i), *std::move(block));
  }
  return true;
}

void PrefixCache::Extend(std::span<const int32_t> tokens) {
  for (size_t i = chain_.size(); (i + 1) * kBlockTokens <= tokens.size(); ++i) {
    const Digest parent = i == 0 ? cache_->registration().root : chain_[i - 1];
    chain_.push_back(cache::BlockDigest(parent, i, tokens.subspan(i * kBlockTokens, kBlockTokens)));
  }
}

}  // namespace cairn::engine
