// Goal: no answer of a daemon, however wrong, is believed. Method: an honest answer is taken, one
// field at a time is made a lie.
#include "cache/client/answer_check.h"

#include <functional>

#include "cache/client/protocol.h"
#include "gtest/gtest.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr uint64_t kArena = 1 << 20;

LayoutDescriptor Layout() {
  LayoutDescriptor layout;
  layout.model = "m";
  layout.numerics = "plain";
  layout.components = {{"a", LayoutScope::kPrefix, 4, 32, 64, 0, "x"},
                       {"b", LayoutScope::kPrefix, 128, 1, 100, 0, "x"},
                       {"w", LayoutScope::kTrailing, 1, 128, 40, 0, "x"}};
  return layout;
}

void ExpectLie(const absl::Status& status, const std::string& text) {
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_NE(std::string(status.message()).find(text), std::string::npos) << status;
}

v1::Registration HonestRegistration() {
  v1::Registration answer;
  answer.set_protocol_version(kProtocolVersion);
  answer.set_layout_version(kLayoutVersion);
  answer.set_token(std::string(kTokenBytes, 't'));
  answer.set_root(std::string(Digest::kBytes, 'r'));
  answer.set_policy("every:4096+ends");
  answer.set_attach_socket("cairn.sock.fd");
  answer.set_arena_bytes(kArena);
  return answer;
}

TEST(AnswerCheck, RegistrationIsRead) {
  const auto checked = CheckRegistration(HonestRegistration());
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->registration.policy.ToString(), "every:4096+ends");
  EXPECT_EQ(checked->arena_bytes, kArena);
}

TEST(AnswerCheck, OtherVersionsAreNamed) {
  v1::Registration answer = HonestRegistration();
  answer.set_protocol_version(kProtocolVersion + 6);
  EXPECT_EQ(CheckRegistration(answer).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(CheckRegistration(answer).status().message()).find("version 7"),
            std::string::npos);
  answer = HonestRegistration();
  answer.set_layout_version(kLayoutVersion + 6);
  EXPECT_EQ(CheckRegistration(answer).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(AnswerCheck, RegistrationLies) {
  const std::vector<std::pair<std::string, std::function<void(v1::Registration&)>>> lies = {
      {"token", [](auto& a) { a.set_token("short"); }},
      {"root", [](auto& a) { a.set_root("short"); }},
      {"attach_socket", [](auto& a) { a.set_attach_socket("../elsewhere"); }},
      {"attach_socket", [](auto& a) { a.set_attach_socket(std::string(300, 'x')); }},
      {"policy", [](auto& a) { a.set_policy("sometimes"); }},
      {"policy", [](auto& a) { a.set_policy(std::string(300, 'x')); }},
  };
  for (const auto& [text, lie] : lies) {
    v1::Registration answer = HonestRegistration();
    lie(answer);
    ExpectLie(CheckRegistration(answer).status(), text);
  }
}

v1::MatchResponse HonestMatch() {
  v1::MatchResponse answer;
  answer.set_rows_blocks(5);
  answer.set_rows_host_blocks(3);
  for (const uint32_t blocks : {5u, 2u}) {
    answer.add_checkpoints()->set_blocks(blocks);
    answer.mutable_checkpoints()->rbegin()->set_tier(1);
  }
  return answer;
}

TEST(AnswerCheck, MatchLies) {
  ASSERT_TRUE(CheckMatch(HonestMatch(), 5).ok());
  ExpectLie(CheckMatch(HonestMatch(), 4).status(), "rows_blocks 5 of 4");
  const std::vector<std::function<void(v1::MatchResponse&)>> lies = {
      [](auto& a) { a.set_rows_host_blocks(6); },
      [](auto& a) { a.mutable_checkpoints(0)->set_blocks(6); },
      [](auto& a) { a.mutable_checkpoints(1)->set_blocks(5); },
      [](auto& a) { a.mutable_checkpoints(1)->set_blocks(0); },
      [](auto& a) { a.mutable_checkpoints(0)->set_tier(9); },
      [](auto& a) {
        for (int i = 0; i < 20; ++i) a.add_checkpoints();
      },
  };
  for (const auto& lie : lies) {
    v1::MatchResponse answer = HonestMatch();
    lie(answer);
    ExpectLie(CheckMatch(answer, 8).status(), "wrong");
  }
}

void FillExtent(v1::Extent* extent, uint64_t offset, const std::vector<uint32_t>& parts) {
  extent->set_arena_offset(offset);
  uint64_t bytes = 0;
  for (const uint32_t part : parts) {
    bytes += part;
    extent->add_part_xxh3(part);
  }
  extent->set_payload_bytes(bytes);
}

v1::FetchResponse HonestFetch(const EntryShapes& shapes) {
  v1::FetchResponse answer;
  answer.set_lease(9);
  FillExtent(answer.add_rows(), 0, shapes.rows);
  FillExtent(answer.add_rows(), 4096, shapes.rows);
  FillExtent(answer.mutable_checkpoint(), 8192, shapes.checkpoint);
  return answer;
}

TEST(AnswerCheck, FetchIsReadByTheLayout) {
  const EntryShapes shapes(Layout());
  const auto checked = CheckFetch(HonestFetch(shapes), {2, true, kArena}, shapes);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->lease, 9u);
  ASSERT_EQ(checked->rows.size(), 2u);
  EXPECT_EQ(checked->rows[1].offset, 4096u);
  EXPECT_EQ(checked->rows[1].parts, (std::vector<EntryPart>{{2048, 2048}, {100, 100}}));
  EXPECT_EQ(checked->checkpoint->bytes, 5120u);
}

TEST(AnswerCheck, FetchLies) {
  const EntryShapes shapes(Layout());
  const std::vector<std::pair<std::string, std::function<void(v1::FetchResponse&)>>> lies = {
      {"3 rows of 2", [&](auto& a) { FillExtent(a.add_rows(), 0, shapes.rows); }},
      {"outside", [](auto& a) { a.mutable_rows(0)->set_arena_offset(kArena); }},
      {"outside", [](auto& a) { a.mutable_rows(1)->set_arena_offset(kArena - 2147); }},
      // The sum of offset and length wraps to something small.
      {"outside", [](auto& a) { a.mutable_rows(0)->set_arena_offset(UINT64_MAX - 4095); }},
      {"outside", [](auto& a) { a.mutable_checkpoint()->set_arena_offset(kArena - 4096); }},
      {"unaligned", [](auto& a) { a.mutable_rows(0)->set_arena_offset(8); }},
      {"layout has 2148", [](auto& a) { a.mutable_rows(0)->set_payload_bytes(2149); }},
      {"layout has 5120", [](auto& a) { a.mutable_checkpoint()->set_payload_bytes(1ull << 60); }},
      {"layout has 2", [](auto& a) { a.mutable_rows(1)->add_part_xxh3(1); }},
  };
  for (const auto& [text, lie] : lies) {
    v1::FetchResponse answer = HonestFetch(shapes);
    lie(answer);
    ExpectLie(CheckFetch(answer, {2, true, kArena}, shapes).status(), text);
  }
  ExpectLie(CheckFetch(HonestFetch(shapes), {2, false, kArena}, shapes).status(), "nobody asked");
}

TEST(AnswerCheck, ReserveCommitAndStatsLies) {
  v1::ReserveResponse reserve;
  reserve.add_results()->set_state(2);
  EXPECT_TRUE(CheckReserve(reserve, 1).ok());
  ExpectLie(CheckReserve(reserve, 2).status(), "1 results for 2");
  reserve.mutable_results(0)->set_state(4);
  ExpectLie(CheckReserve(reserve, 1).status(), "state 4");
  reserve.mutable_results(0)->set_state(0);
  ExpectLie(CheckReserve(reserve, 1).status(), "state 0");

  v1::CommitResponse commit;
  commit.add_statuses()->set_code(static_cast<uint32_t>(absl::StatusCode::kDataLoss));
  ExpectLie(CheckCommit(commit, 2).status(), "1 statuses for 2");
  EXPECT_TRUE(absl::IsDataLoss((*CheckCommit(commit, 1))[0]));
  commit.mutable_statuses(0)->set_code(77);
  EXPECT_TRUE(absl::IsInternal((*CheckCommit(commit, 1))[0]));

  v1::StatsResponse stats;
  stats.add_counts()->set_name(std::string(300, 'x'));
  ExpectLie(CheckStats(stats).status(), "name");
  stats.Clear();
  for (uint32_t i = 0; i <= kStatsCountsMax; ++i) stats.add_counts();
  ExpectLie(CheckStats(stats).status(), "counts");
}

TEST(Protocol, StatusesMeetTheVocabularyAndAreCut) {
  EXPECT_TRUE(absl::IsUnavailable(FromGrpc(grpc::Status(grpc::StatusCode::CANCELLED, "x"))));
  EXPECT_TRUE(absl::IsUnavailable(FromGrpc(grpc::Status(grpc::StatusCode::UNKNOWN, "x"))));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(FromGrpc(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "x"))));
  EXPECT_TRUE(absl::IsNotFound(FromGrpc(ToGrpc(absl::NotFoundError("x")))));
  const grpc::Status huge(grpc::StatusCode::ABORTED, std::string(1 << 20, 'x'));
  EXPECT_TRUE(absl::IsAborted(FromGrpc(huge)));
  EXPECT_LE(FromGrpc(huge).message().size(), 1024u);
}

}  // namespace
}  // namespace cairn::cache
