#include "cache/client/answer_check.h"

#include <algorithm>

#include "cache/client/bulk_protocol.h"
#include "cache/client/protocol.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

template <typename... Text>
absl::Status Wrong(const Text&... text) {
  return absl::UnavailableError(absl::StrCat("the daemon's answer is wrong: ", text...));
}

absl::StatusOr<CheckedExtent> CheckExtent(const v1::Extent& extent,
                                          const std::vector<uint32_t>& part_bytes,
                                          uint64_t entry_bytes) {
  if (extent.payload_bytes() != entry_bytes) {
    return Wrong("an entry of ", extent.payload_bytes(), " bytes where the layout has ",
                 entry_bytes);
  }
  if (static_cast<size_t>(extent.part_xxh3_size()) != part_bytes.size()) {
    return Wrong("an entry of ", extent.part_xxh3_size(), " parts where the layout has ",
                 part_bytes.size());
  }
  CheckedExtent out;
  out.bytes = entry_bytes;
  out.parts.reserve(part_bytes.size());
  for (size_t i = 0; i < part_bytes.size(); ++i) {
    out.parts.push_back({part_bytes[i], extent.part_xxh3(static_cast<int>(i))});
  }
  return out;
}

// `room`: the entry and its part table; `memory`: what they must lie in, so many bytes.
absl::Status CheckPlace(uint64_t offset, uint64_t room, const char* memory, uint64_t bytes) {
  // Subtracting from the larger side: the sum could wrap.
  if (room > bytes || offset > bytes - room) {
    return Wrong("an entry at ", offset, " + ", room, " outside of the ", memory, " of ", bytes,
                 " bytes");
  }
  if (offset % kIoAlignment != 0) return Wrong("an entry at the unaligned offset ", offset);
  return absl::OkStatus();
}

uint64_t RoomBytes(uint64_t entry_bytes, size_t parts) {
  return PartTableOffset(entry_bytes) + parts * sizeof(uint64_t);
}

}  // namespace

absl::StatusOr<CheckedRegistration> CheckRegistration(const v1::Registration& answer) {
  if (answer.protocol_version() != kProtocolVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("the daemon speaks protocol version ", answer.protocol_version(),
                     ", this client version ", kProtocolVersion, ": upgrade the older one"));
  }
  if (answer.layout_version() != kLayoutVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("the daemon stores layout version ", answer.layout_version(),
                     ", this client uses version ", kLayoutVersion, ": upgrade the older one"));
  }
  CheckedRegistration out;
  if (answer.token().size() != kTokenBytes) {
    return Wrong("token of ", answer.token().size(), " bytes instead of ", kTokenBytes);
  }
  const std::optional<Digest> root = Digest::FromBytes(answer.root());
  if (!root.has_value()) {
    return Wrong("root of ", answer.root().size(), " bytes instead of ", Digest::kBytes);
  }
  if (answer.attach_socket().size() > kNameBytesMax ||
      answer.attach_socket().find('/') != std::string::npos) {
    return Wrong("attach_socket must be a name of at most ", kNameBytesMax, " bytes without '/'");
  }
  if (answer.policy().size() > kNameBytesMax) {
    return Wrong("policy of more than ", kNameBytesMax, " bytes");
  }
  absl::StatusOr<CheckpointPolicy> policy = CheckpointPolicy::Parse(answer.policy());
  if (!policy.ok()) return Wrong("policy: ", std::string(policy.status().message()));
  out.registration.root = *root;
  out.registration.policy = *policy;
  out.token = answer.token();
  out.attach_socket = answer.attach_socket();
  out.arena_bytes = answer.arena_bytes();
  out.gpu_bytes = answer.gpu_bytes();
  if (answer.bulk_port() > UINT16_MAX) return Wrong("bulk_port ", answer.bulk_port());
  out.bulk_port = static_cast<uint16_t>(answer.bulk_port());
  return out;
}

absl::StatusOr<MatchResult> CheckMatch(const v1::MatchResponse& answer, size_t chain_blocks) {
  if (answer.rows_blocks() > chain_blocks) {
    return Wrong("rows_blocks ", answer.rows_blocks(), " of ", chain_blocks, " asked");
  }
  if (answer.rows_host_blocks() > answer.rows_blocks()) {
    return Wrong("rows_host_blocks ", answer.rows_host_blocks(), " over rows_blocks ",
                 answer.rows_blocks());
  }
  if (answer.checkpoints_size() > static_cast<int>(kCheckpointHitsMax)) {
    return Wrong(answer.checkpoints_size(), " checkpoints, at most ", kCheckpointHitsMax);
  }
  MatchResult out{answer.rows_blocks(), answer.rows_host_blocks()};
  out.checkpoints.reserve(static_cast<size_t>(answer.checkpoints_size()));
  uint32_t above = answer.rows_blocks() + 1;
  for (const v1::CheckpointHit& hit : answer.checkpoints()) {
    if (hit.blocks() == 0 || hit.blocks() >= above) {
      return Wrong("checkpoints not deepest first within rows_blocks");
    }
    above = hit.blocks();
    if (hit.tier() != static_cast<uint32_t>(Tier::kHost) &&
        hit.tier() != static_cast<uint32_t>(Tier::kDisk)) {
      return Wrong("tier ", hit.tier());
    }
    out.checkpoints.push_back({hit.blocks(), static_cast<Tier>(hit.tier())});
  }
  out.branches = answer.branches();
  return out;
}

absl::Status CheckMapped(const v1::MappedPrefix& answer, const FetchAsked& asked,
                         const MappedBytes& mapped, const EntryShapes& shapes) {
  const int entries = answer.offsets_size();
  if (answer.table_xxh3_size() != entries) {
    return Wrong(answer.table_xxh3_size(), " tables of ", entries, " entries");
  }
  if (answer.checkpoint() && !asked.checkpoint) return Wrong("a checkpoint nobody asked for");
  if (answer.checkpoint() && entries == 0) return Wrong("a checkpoint without a place");
  const int rows = entries - (answer.checkpoint() ? 1 : 0);
  if (static_cast<size_t>(rows) > asked.chain_blocks) {
    return Wrong(rows, " rows of ", asked.chain_blocks, " asked");
  }
  if (answer.checkpoint() && static_cast<size_t>(rows) != asked.chain_blocks) {
    return Wrong("a checkpoint behind ", rows, " of ", asked.chain_blocks, " rows");
  }
  const uint64_t rows_room = RoomBytes(shapes.rows_bytes, shapes.rows.size());
  const uint64_t checkpoint_room = RoomBytes(shapes.checkpoint_bytes, shapes.checkpoint.size());
  const auto room = [&](int i) { return i < rows ? rows_room : checkpoint_room; };
  for (int i = 0; i < entries; ++i) {
    CAIRN_RETURN_IF_ERROR(CheckPlace(answer.offsets(i), room(i), "arena", mapped.arena));
  }
  if (answer.gpu_offsets_size() > entries) {
    return Wrong(answer.gpu_offsets_size(), " copies in GPU memory of ", entries, " entries");
  }
  for (int i = 0; i < answer.gpu_offsets_size(); ++i) {
    CAIRN_RETURN_IF_ERROR(CheckPlace(answer.gpu_offsets(i), room(i), "GPU pool", mapped.gpu_pool));
  }
  return absl::OkStatus();
}

absl::Status CheckLeased(const v1::MappedPrefix& answer, const MatchResult& match,
                         const MappedBytes& mapped, const EntryShapes& shapes) {
  if (match.checkpoints.empty()) return Wrong("a lease without a checkpoint to resume from");
  const uint32_t blocks = match.checkpoints.front().blocks;
  if (!answer.checkpoint() || static_cast<uint32_t>(answer.offsets_size()) != blocks + 1) {
    return Wrong("a lease of ", answer.offsets_size(), " entries for ", blocks,
                 " blocks and their checkpoint");
  }
  return CheckMapped(answer, {blocks, true}, mapped, shapes);
}

absl::StatusOr<CheckedFetch> CheckFetch(const v1::FetchResponse& answer, const FetchAsked& asked,
                                        const EntryShapes& shapes) {
  if (static_cast<size_t>(answer.rows_size()) > asked.chain_blocks) {
    return Wrong(answer.rows_size(), " rows of ", asked.chain_blocks, " asked");
  }
  if (answer.has_checkpoint() && !asked.checkpoint) return Wrong("a checkpoint nobody asked for");
  if (answer.grouped() && !asked.groups) return Wrong("groups that nobody asked for");
  CheckedFetch out;
  out.grouped = answer.grouped();
  out.host_bytes = answer.host_bytes();
  out.disk_bytes = answer.disk_bytes();
  out.rows.reserve(static_cast<size_t>(answer.rows_size()));
  for (const v1::Extent& extent : answer.rows()) {
    CAIRN_ASSIGN_OR_RETURN(CheckedExtent checked,
                           CheckExtent(extent, shapes.rows, shapes.rows_bytes));
    out.rows.push_back(std::move(checked));
  }
  if (answer.has_checkpoint()) {
    CAIRN_ASSIGN_OR_RETURN(out.checkpoint, CheckExtent(answer.checkpoint(), shapes.checkpoint,
                                                       shapes.checkpoint_bytes));
  }
  return out;
}

absl::StatusOr<std::vector<ReserveResult>> CheckReserve(const v1::ReserveResponse& answer,
                                                        size_t items) {
  if (static_cast<size_t>(answer.results_size()) != items) {
    return Wrong(answer.results_size(), " results for ", items, " items");
  }
  std::vector<ReserveResult> out;
  out.reserve(items);
  for (const v1::ReserveResult& result : answer.results()) {
    if (result.state() < static_cast<uint32_t>(ReserveState::kExists) ||
        result.state() > static_cast<uint32_t>(ReserveState::kWait)) {
      return Wrong("reserve state ", result.state());
    }
    out.push_back({static_cast<ReserveState>(result.state()), result.reservation()});
  }
  return out;
}

absl::StatusOr<std::vector<std::string>> CheckTickets(const v1::BulkResponse& answer,
                                                      uint32_t streams) {
  const auto more = static_cast<size_t>(answer.more_tickets_size());
  std::vector<std::string> out;
  if (answer.ticket().empty() && more == 0) return out;
  if (more >= std::max(streams, 1u)) return Wrong(more + 1, " tickets for ", streams, " streams");
  out = {answer.ticket()};
  out.insert(out.end(), answer.more_tickets().begin(), answer.more_tickets().end());
  for (const std::string& ticket : out) {
    if (ticket.size() != kTicketBytes) return Wrong("a ticket of ", ticket.size(), " bytes");
  }
  return out;
}

absl::StatusOr<std::vector<absl::Status>> CheckCommit(const v1::CommitResponse& answer,
                                                      size_t items) {
  if (static_cast<size_t>(answer.statuses_size()) != items) {
    return Wrong(answer.statuses_size(), " statuses for ", items, " items");
  }
  std::vector<absl::Status> out;
  out.reserve(items);
  for (const v1::ItemStatus& status : answer.statuses()) {
    out.push_back(StatusFromWire(status.code(), status.message()));
  }
  return out;
}

absl::StatusOr<std::vector<NamedCount>> CheckStats(const v1::StatsResponse& answer) {
  if (answer.counts_size() > static_cast<int>(kStatsCountsMax)) {
    return Wrong(answer.counts_size(), " counts, at most ", kStatsCountsMax);
  }
  std::vector<NamedCount> out;
  for (const v1::NamedCount& count : answer.counts()) {
    if (count.name().size() > kNameBytesMax) return Wrong("a count's name is too long");
    out.push_back({count.name(), count.value()});
  }
  return out;
}

}  // namespace cairn::cache
