// The way out of prefix_cache.h: what was computed is put.
#include <utility>

#include "cache/client/digest_chain.h"
#include "engine/resume/prefix_cache.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

// Puts that may wait for a check of the rows they were computed from.
constexpr uint64_t kPendingBytesMax = 128ull << 20;

}  // namespace

int64_t PrefixCache::NextStop(int64_t position, int64_t end, int64_t prompt_end) const {
  if (!attached()) return end;
  for (int64_t blocks = position / kBlockTokens + 1; blocks * kBlockTokens < end; ++blocks) {
    if (Wants(blocks, prompt_end / kBlockTokens)) return blocks * kBlockTokens;
  }
  return end;
}

void PrefixCache::AbandonReservations() {
  std::vector<uint64_t> ids;
  for (const auto& [key, id] : reservations_) ids.push_back(id);
  reservations_.clear();
  if (puts_ != nullptr && !ids.empty()) puts_->Abandon(std::move(ids));
}

void PrefixCache::NoticeLoss() {
  if (cache_ != nullptr && puts_->detached()) Detach(puts_->stats().last_error);
}

void PrefixCache::Put(PutItem item) {
  if (tainted_) return;
  if (mapped_ == nullptr) {
    puts_->Add(std::move(item));
    return;
  }
  pending_bytes_ += item.size();
  pending_.push_back(std::move(item));
  if (pending_bytes_ > kPendingBytesMax) StillIntact();
}

PutItem PrefixCache::MakeItem(int64_t block, EntryKind kind, std::shared_ptr<const uint8_t> bytes) {
  const size_t i = static_cast<size_t>(block);
  PutItem item;
  item.name.key = {chain_[i], kind};
  item.name.parent = i == 0 ? cache_->registration().root : chain_[i - 1];
  item.name.index = static_cast<uint32_t>(block);
  if (const auto it = reservations_.find(item.name.key); it != reservations_.end()) {
    item.reservation = it->second;
    reservations_.erase(it);
  }
  item.bytes = std::move(bytes);
  item.part_bytes = kind == EntryKind::kRows ? rows_parts_ : checkpoint_parts_;
  return item;
}

absl::StatusOr<PutItem> PrefixCache::MakeCheckpoint(CachedSession& session) {
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<const uint8_t> state, session.ShareCheckpoint());
  return MakeItem(session.position() / kBlockTokens - 1, EntryKind::kCheckpoint, std::move(state));
}

absl::Status PrefixCache::TryStore(CachedSession& session, int64_t prompt_end) {
  const int64_t whole = session.position() / kBlockTokens;
  for (; stored_blocks_ < whole; ++stored_blocks_) {
    CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<const uint8_t> rows, session.ShareRows(stored_blocks_));
    Put(MakeItem(stored_blocks_, EntryKind::kRows, std::move(rows)));
  }
  if (session.position() % kBlockTokens != 0 || whole == 0) return absl::OkStatus();
  if (Wants(whole, prompt_end / kBlockTokens)) {
    CAIRN_ASSIGN_OR_RETURN(PutItem checkpoint, MakeCheckpoint(session));
    Put(std::move(checkpoint));
  } else if (cache_->registration().policy.ends && session.position() > prompt_end) {
    CAIRN_ASSIGN_OR_RETURN(output_end_, MakeCheckpoint(session));
  }
  return absl::OkStatus();
}

void PrefixCache::Store(CachedSession& session, std::span<const int32_t> tokens,
                        int64_t prompt_end) {
  NoteArrival();
  NoticeLoss();
  if (!attached() || session.replay() != nullptr) return;
  Extend(tokens);
  if (const absl::Status status = TryStore(session, prompt_end); !status.ok()) {
    Detach(status.ToString());
  }
}

void PrefixCache::Finish() {
  // Given up before Settle: what was computed from mapped rows needs the check that it waited for.
  if (mapped_ != nullptr) StillIntact();
  mapped_.reset();
  arriving_.reset();  // of a sequence that did not come to its first step
  if (attached() && output_end_.has_value()) Put(*std::move(output_end_));
  output_end_.reset();
  AbandonReservations();
}

bool PrefixCache::Flush(absl::Duration deadline) {
  const bool complete = puts_ == nullptr || puts_->Flush(deadline);
  NoticeLoss();
  return complete;
}

PutStats PrefixCache::put_stats() const { return puts_ == nullptr ? PutStats{} : puts_->stats(); }

}  // namespace cairn::engine
