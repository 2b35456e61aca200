// Goal: traces are read or refused by line; hits are contiguous prefixes; capacity and leaves are
// respected; the oracle is the best there is. Method: traces of a few requests worked out by hand,
// and a search over all that could be kept in tiny cases.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cache/policy/simple_policies.h"
#include "store/base/random.h"
#include "tools/cairn-replay/block_replay.h"
#include "tools/cairn-replay/byte_replay.h"
#include "tools/cairn-replay/trace.h"

namespace cairn::replay {
namespace {

using Ids = std::vector<std::vector<int>>;

absl::StatusOr<Trace> Parse(const std::string& text) {
  std::istringstream in(text);
  return ParseTrace(in, "t");
}

Trace Make(const Ids& requests) {
  std::string text;
  for (const auto& ids : requests) {
    absl::StrAppend(&text, R"({"timestamp": 0, "input_length": )", 512 * ids.size(),
                    R"(, "output_length": 1, "hash_ids": [)", absl::StrJoin(ids, ","), "]}\n");
  }
  auto trace = Parse(text);
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *std::move(trace);
}

uint64_t Lru(const Ids& ids, uint64_t capacity, Evictable evictable) {
  const auto policy = cache::MakeLru();
  return ReplayBlocks(Make(ids), capacity, evictable, *policy);
}

TEST(Trace, ABlockIsItsIdAndAllBefore) {
  const Trace trace = Make({{1, 2}, {1, 3}, {2}, {1, 2}});
  EXPECT_EQ(trace.nodes.size(), 4u);
  EXPECT_EQ(trace.blocks_requested, 7u);
  EXPECT_EQ(trace.requests[0].blocks, trace.requests[3].blocks);
  EXPECT_EQ(trace.nodes[1].parent, 0u);
  EXPECT_EQ(trace.nodes[1].depth, 1u);
}

TEST(Trace, BadLinesAreNamed) {
  const std::string good = R"({"timestamp": 0, "input_length": 9, "hash_ids": [1]})";
  const std::pair<std::string, std::string> cases[] = {
      {"x", "t:2: is not a JSON object"},
      {"[1]", "t:2: is not a JSON object"},
      {R"({"input_length": 9, "hash_ids": [1]})", "t:2: \"timestamp\""},
      {R"({"timestamp": 0, "input_length": -1, "hash_ids": [1]})", "t:2: \"input_length\""},
      {R"({"timestamp": 0, "input_length": 1})", "t:2: \"hash_ids\""},
      {R"({"timestamp": 0, "input_length": 1, "hash_ids": ["a"]})", "whole number"},
  };
  for (const auto& [line, message] : cases) {
    const auto trace = Parse(absl::StrCat(good, "\n", line, "\n"));
    ASSERT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << line;
    EXPECT_NE(std::string(trace.status().message()).find(message), std::string::npos)
        << trace.status();
  }
  EXPECT_FALSE(Parse("\n").ok());
  EXPECT_TRUE(Parse(good + "\n\n" + good).ok());
  EXPECT_EQ(ReadTrace("/no/such/trace").status().code(), absl::StatusCode::kNotFound);
}

TEST(BlockReplay, OnlyTheContiguousPrefixIsHit) {
  // 2 is the least recently used after the third request, and 3 stands behind it.
  EXPECT_EQ(Lru({{1, 2, 3}, {1}, {9}, {1, 2, 3}}, 3, Evictable::kAny), 2u);
  EXPECT_EQ(Lru({{1, 2, 3}, {1, 2, 3}}, 3, Evictable::kAny), 3u);
}

TEST(BlockReplay, LeavesGoBeforeWhatTheyStandOn) {
  // Any: 1 goes first, and with it every hit. Leaves: 3 goes, and 1 and 2 stay.
  EXPECT_EQ(Lru({{1, 2, 3}, {9}, {1, 2}}, 3, Evictable::kAny), 0u);
  EXPECT_EQ(Lru({{1, 2, 3}, {9}, {1, 2}}, 3, Evictable::kLeaves), 2u);
}

// The most hits that any choice of what to keep after each request can have.
uint64_t Best(const Trace& trace, size_t capacity) {
  using Set = std::vector<bool>;
  std::map<Set, uint64_t> states{{Set(trace.nodes.size(), false), 0}};
  for (const Request& request : trace.requests) {
    std::map<Set, uint64_t> next;
    for (const auto& state : states) {
      Set set = state.first;
      uint64_t hits = state.second;
      for (size_t i = 0; i < request.blocks.size() && set[request.blocks[i]]; ++i) ++hits;
      for (const NodeId block : request.blocks) set[block] = true;
      for (uint32_t mask = 0; mask < 1u << set.size(); ++mask) {
        Set kept = set;
        for (size_t i = 0; i < set.size(); ++i) kept[i] = set[i] && (mask >> i & 1) != 0;
        if (static_cast<size_t>(std::count(kept.begin(), kept.end(), true)) > capacity) continue;
        uint64_t& best = next[kept];
        best = std::max(best, hits);
      }
    }
    states = std::move(next);
  }
  uint64_t best = 0;
  for (const auto& [set, hits] : states) best = std::max(best, hits);
  return best;
}

TEST(Oracle, IsTheBestThereIs) {
  SeededRandom random(11);
  for (int round = 0; round < 20; ++round) {
    Ids ids;
    for (int i = 0; i < 8; ++i) {
      std::vector<int> request;
      for (uint64_t j = 0, length = 1 + random.Next() % 3; j < length; ++j) {
        request.push_back(static_cast<int>(random.Next() % 2));
      }
      ids.push_back(request);
    }
    Trace trace = Make(ids);
    if (trace.nodes.size() > 9) continue;
    for (const uint64_t capacity : {1, 2, 4}) {
      EXPECT_EQ(OracleBlocks(trace, capacity), Best(trace, capacity)) << round << " " << capacity;
    }
  }
}

constexpr uint64_t kFlashNode = 4 * 449'824, kFlashCheckpoint = 3'719'168;

TokenCounts Bytes(const Ids& ids, const std::string& checkpoints, uint64_t capacity) {
  const auto layout = ReplayLayout::Make("flash", checkpoints);
  EXPECT_TRUE(layout.ok()) << layout.status();
  const auto policy = cache::MakeLru();
  return ReplayBytes(Make(ids), *layout, capacity, *policy);
}

TEST(ByteReplay, ResumesAtTheDeepestCheckpointWithinTheRows) {
  constexpr uint64_t kRoom = 100 * kFlashCheckpoint;
  const Ids ids = {{1, 2, 3}, {1, 2, 3}, {1, 2, 7}};
  EXPECT_EQ(Bytes(ids, "ends", kRoom).hit, 3u * 512);         // the third finds none at 2
  EXPECT_EQ(Bytes(ids, "every:1024", kRoom).hit, 2u * 1024);  // both resume after 2
  EXPECT_EQ(Bytes(ids, "full", kRoom).hit, (3u + 2u) * 512);
  EXPECT_EQ(Bytes(ids, "every:384", kRoom).hit, 1536u + 768u);
  EXPECT_EQ(Bytes(ids, "ends", kRoom).recomputed, 9u * 512 - 3u * 512);
}

TEST(ByteReplay, WithoutCheckpointsTheWindowIsReplayed) {
  Ids ids(2);
  for (int i = 0; i < 10; ++i) {
    for (auto& request : ids) request.push_back(i);
  }
  EXPECT_EQ(Bytes(ids, "zero", 100 * kFlashNode).hit, 10u * 512 - 127u * 42 / 2);
  EXPECT_EQ(Bytes({{1}, {1}}, "zero", 100 * kFlashNode).hit, 0u);
}

TEST(ByteReplay, CapacityIsInBytes) {
  const Ids ids = {{1}, {2}, {1}};
  EXPECT_EQ(Bytes(ids, "ends", 2 * (kFlashNode + kFlashCheckpoint)).hit, 512u);
  EXPECT_EQ(Bytes(ids, "ends", 2 * (kFlashNode + kFlashCheckpoint) - 1).hit, 0u);
  EXPECT_EQ(Bytes(ids, "ends", kFlashNode - 1).hit, 0u);
}

TEST(ByteReplay, BadNamesAreRefused) {
  EXPECT_FALSE(ReplayLayout::Make("small", "full").ok());
  EXPECT_FALSE(ReplayLayout::Make("pro", "some").ok());
  EXPECT_FALSE(ReplayLayout::Make("pro", "branches").ok());
  EXPECT_FALSE(ReplayLayout::Make("pro", "ends:ttl=1h").ok());
}

}  // namespace
}  // namespace cairn::replay
