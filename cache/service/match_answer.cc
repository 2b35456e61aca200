#include "cache/service/match_answer.h"

#include <utility>

namespace cairn::cache {

void EncodeMapped(const LeasedPrefix& prefix, v1::MappedPrefix* out) {
  const bool checkpoint = prefix.checkpoint.has_value();
  const int entries = static_cast<int>(prefix.rows.size() + (checkpoint ? 1 : 0));
  out->set_lease(prefix.lease);
  out->mutable_offsets()->Reserve(entries);
  out->mutable_table_xxh3()->Reserve(entries);
  const auto add = [out](const LeasedEntry& entry) {
    out->mutable_offsets()->AddAlreadyReserved(entry.arena_offset);
    out->mutable_table_xxh3()->AddAlreadyReserved(entry.table_xxh3);
  };
  for (const LeasedEntry& entry : prefix.rows) add(entry);
  if (checkpoint) add(*prefix.checkpoint);
  out->set_checkpoint(checkpoint);
  out->set_host_bytes(prefix.host_bytes);
  out->set_disk_bytes(prefix.disk_bytes);
  out->mutable_gpu_offsets()->Add(prefix.gpu_offsets.begin(), prefix.gpu_offsets.end());
}

std::function<void()> ReleaseOf(ServiceState& state, std::shared_ptr<ClientSession> session,
                                LeaseId lease) {
  return [&state, session = std::move(session), lease] {
    state.core.Release(session->core_id(), lease).IgnoreError();
  };
}

absl::Status AnswerMatch(ServiceState& state, const std::shared_ptr<ClientSession>& session,
                         std::span<const Digest> chain, std::optional<LeaseId> lease,
                         v1::MatchResponse* out, std::function<void()>* undo) {
  CoreMatch match;
  if (lease.has_value()) {
    CAIRN_ASSIGN_OR_RETURN(match, state.core.MatchAndLease(session->core_id(), chain, *lease));
  } else {
    CAIRN_ASSIGN_OR_RETURN(match.found, state.core.Match(session->core_id(), chain));
  }
  out->set_rows_blocks(match.found.rows_blocks);
  out->set_rows_host_blocks(match.found.rows_host_blocks);
  out->set_branches(match.found.branches);
  for (const CheckpointHit& hit : match.found.checkpoints) {
    v1::CheckpointHit* to = out->add_checkpoints();
    to->set_blocks(hit.blocks);
    to->set_tier(static_cast<uint32_t>(hit.tier));
  }
  if (match.leased.has_value()) {
    EncodeMapped(*match.leased, out->mutable_leased());
    *undo = ReleaseOf(state, session, match.leased->lease);
  }
  return absl::OkStatus();
}

}  // namespace cairn::cache
