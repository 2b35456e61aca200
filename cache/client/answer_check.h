// answer_check.h: what the daemon says, believed only after it was checked. Every offset lies in
// the mapping, every count is at most what was asked, every part is as the layout says.
//
// Threads:   pure functions.
// Units:     bytes, blocks.
// Errors:    UNAVAILABLE "the daemon's answer is wrong: ...": a peer that answers so is not one to
// go on with.
//            FAILED_PRECONDITION from CheckRegistration for another version, naming both.
#ifndef CAIRN_CACHE_CLIENT_ANSWER_CHECK_H_
#define CAIRN_CACHE_CLIENT_ANSWER_CHECK_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/client/cache_api.h"
#include "cairn/v1/cache.pb.h"

namespace cairn::cache {

struct CheckedRegistration {
  Registration registration;  // mapped: not decided here
  std::string token;
  std::string attach_socket;  // a name without a path; may be empty
  uint64_t arena_bytes = 0;
  uint64_t gpu_bytes = 0;  // of the pool in GPU memory; 0: none
  uint16_t bulk_port = 0;  // 0: none
};

absl::StatusOr<CheckedRegistration> CheckRegistration(const v1::Registration& answer);

absl::StatusOr<MatchResult> CheckMatch(const v1::MatchResponse& answer, size_t chain_blocks);

struct FetchAsked {
  size_t chain_blocks = 0;
  bool checkpoint = false;
  bool groups = false;
};

// How long the memory is that the daemon's offsets are in.
struct MappedBytes {
  uint64_t arena = 0;
  uint64_t gpu_pool = 0;  // 0: none is mapped
};

// Every entry, with its part table, lies in the arena, and where the answer says so in the pool.
// Nothing is copied: the answer itself may be used afterwards.
absl::Status CheckMapped(const v1::MappedPrefix& answer, const FetchAsked& asked,
                         const MappedBytes& mapped, const EntryShapes& shapes);
// What came leased with a match: the first checkpoint's prefix, whole.
absl::Status CheckLeased(const v1::MappedPrefix& answer, const MatchResult& match,
                         const MappedBytes& mapped, const EntryShapes& shapes);

struct CheckedExtent {
  uint64_t bytes = 0;
  std::vector<EntryPart> parts;
};

struct CheckedFetch {
  std::vector<CheckedExtent> rows;
  std::optional<CheckedExtent> checkpoint;
  uint64_t host_bytes = 0;
  uint64_t disk_bytes = 0;
  bool grouped = false;
};

// The head of a stream.
absl::StatusOr<CheckedFetch> CheckFetch(const v1::FetchResponse& answer, const FetchAsked& asked,
                                        const EntryShapes& shapes);

// Of what comes by the bulk port, one for each stripe: at most `streams`, of which 0 is 1 as in the
// request. None: there is nothing to draw, says the daemon.
absl::StatusOr<std::vector<std::string>> CheckTickets(const v1::BulkResponse& answer,
                                                      uint32_t streams);

absl::StatusOr<std::vector<ReserveResult>> CheckReserve(const v1::ReserveResponse& answer,
                                                        size_t items);

absl::StatusOr<std::vector<absl::Status>> CheckCommit(const v1::CommitResponse& answer,
                                                      size_t items);

absl::StatusOr<std::vector<NamedCount>> CheckStats(const v1::StatsResponse& answer);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_ANSWER_CHECK_H_
