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
  answer.set_gpu_bytes(7);
  return answer;
}

TEST(AnswerCheck, RegistrationIsRead) {
  const auto checked = CheckRegistration(HonestRegistration());
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->registration.policy.ToString(), "every:4096+ends");
  EXPECT_EQ(checked->arena_bytes, kArena);
  EXPECT_EQ(checked->gpu_bytes, 7u);
}

TEST(AnswerCheck, OtherVersionsAreNamed) {
  v1::Registration answer = HonestRegistration();
  answer.set_protocol_version(kProtocolVersion + 5);
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
  EXPECT_FALSE(CheckMatch(HonestMatch(), 5)->branches);
  v1::MatchResponse branches = HonestMatch();
  branches.set_branches(true);
  EXPECT_TRUE(CheckMatch(branches, 5)->branches);
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

void FillExtent(v1::Extent* extent, const std::vector<uint32_t>& parts) {
  uint64_t bytes = 0;
  for (const uint32_t part : parts) {
    bytes += part;
    extent->add_part_xxh3(part);
  }
  extent->set_payload_bytes(bytes);
}

v1::FetchResponse HonestFetch(const EntryShapes& shapes) {
  v1::FetchResponse answer;
  FillExtent(answer.add_rows(), shapes.rows);
  FillExtent(answer.add_rows(), shapes.rows);
  FillExtent(answer.mutable_checkpoint(), shapes.checkpoint);
  return answer;
}

TEST(AnswerCheck, FetchIsReadByTheLayout) {
  const EntryShapes shapes(Layout());
  const auto checked = CheckFetch(HonestFetch(shapes), {2, true}, shapes);
  ASSERT_TRUE(checked.ok()) << checked.status();
  ASSERT_EQ(checked->rows.size(), 2u);
  EXPECT_EQ(checked->rows[1].parts, (std::vector<EntryPart>{{2048, 2048}, {100, 100}}));
  EXPECT_EQ(checked->checkpoint->bytes, 5120u);
}

TEST(AnswerCheck, FetchLies) {
  const EntryShapes shapes(Layout());
  const std::vector<std::pair<std::string, std::function<void(v1::FetchResponse&)>>> lies = {
      {"3 rows of 2", [&](auto& a) { FillExtent(a.add_rows(), shapes.rows); }},
      {"layout has 2148", [](auto& a) { a.mutable_rows(0)->set_payload_bytes(2149); }},
      {"layout has 5120", [](auto& a) { a.mutable_checkpoint()->set_payload_bytes(1ull << 60); }},
      {"layout has 2", [](auto& a) { a.mutable_rows(1)->add_part_xxh3(1); }},
  };
  for (const auto& [text, lie] : lies) {
    v1::FetchResponse answer = HonestFetch(shapes);
    lie(answer);
    ExpectLie(CheckFetch(answer, {2, true}, shapes).status(), text);
  }
  ExpectLie(CheckFetch(HonestFetch(shapes), {2, false}, shapes).status(), "nobody asked");
}

TEST(AnswerCheck, GroupsComeOnlyWhereTheyWereAskedFor) {
  const EntryShapes shapes(Layout());
  v1::FetchResponse answer = HonestFetch(shapes);
  EXPECT_FALSE(CheckFetch(answer, {2, true, /*groups=*/true}, shapes)->grouped);
  answer.set_grouped(true);
  EXPECT_TRUE(CheckFetch(answer, {2, true, /*groups=*/true}, shapes)->grouped);
  ExpectLie(CheckFetch(answer, {2, true, /*groups=*/false}, shapes).status(), "nobody asked");
}

v1::MappedPrefix HonestMapped() {
  v1::MappedPrefix answer;
  answer.set_lease(9);
  for (const uint64_t offset : {0u, 4096u, 8192u}) {
    answer.add_offsets(offset);
    answer.add_table_xxh3(offset);
  }
  answer.set_checkpoint(true);
  return answer;
}

TEST(AnswerCheck, MappedLies) {
  const EntryShapes shapes(Layout());
  ASSERT_TRUE(CheckMapped(HonestMapped(), {2, true}, {kArena}, shapes).ok());
  const std::vector<std::pair<std::string, std::function<void(v1::MappedPrefix&)>>> lies = {
      {"2 rows of 1", nullptr},
      {"2 tables of 3", [](auto& a) { a.mutable_table_xxh3()->RemoveLast(); }},
      {"4 tables of 3", [](auto& a) { a.add_table_xxh3(1); }},
      {"3 rows of 2", [](auto& a) { a.set_checkpoint(false); }},
      {"behind 1 of 2",
       [](auto& a) {
         a.mutable_offsets()->RemoveLast();
         a.mutable_table_xxh3()->RemoveLast();
       }},
      {"without a place",
       [](auto& a) {
         a.clear_offsets();
         a.clear_table_xxh3();
       }},
      {"outside", [](auto& a) { a.set_offsets(0, kArena); }},
      {"outside", [](auto& a) { a.set_offsets(1, kArena - 2167); }},
      // The sum of offset and length wraps to something small.
      {"outside", [](auto& a) { a.set_offsets(0, UINT64_MAX - 4095); }},
      {"outside", [](auto& a) { a.set_offsets(2, kArena - 4096); }},
      {"unaligned", [](auto& a) { a.set_offsets(0, 8); }},
      // No pool is mapped.
      {"outside of the GPU pool", [](auto& a) { a.add_gpu_offsets(0); }},
  };
  for (const auto& [text, lie] : lies) {
    v1::MappedPrefix answer = HonestMapped();
    if (lie) lie(answer);
    ExpectLie(CheckMapped(answer, {lie ? 2u : 1u, true}, {kArena}, shapes), text);
  }
  ExpectLie(CheckMapped(HonestMapped(), {2, false}, {kArena}, shapes), "nobody asked");
}

TEST(AnswerCheck, TheTableOfTheLastEntryLiesInTheArenaToo) {
  // A checkpoint of one page, and 8 B of table behind it.
  LayoutDescriptor layout = Layout();
  layout.components[2].rows = 1;
  layout.components[2].row_bytes = 4096;
  const EntryShapes shapes(layout);
  v1::MappedPrefix answer = HonestMapped();
  answer.set_offsets(2, kArena - 4096);
  ExpectLie(CheckMapped(answer, {2, true}, {kArena}, shapes), "outside");
  answer.set_offsets(2, kArena - 8192);
  EXPECT_TRUE(CheckMapped(answer, {2, true}, {kArena}, shapes).ok());
}

TEST(AnswerCheck, CopiesInGpuMemoryLieInThePool) {
  const EntryShapes shapes(Layout());
  constexpr uint64_t kPool = 64 << 10;
  const auto check = [&](const std::vector<uint64_t>& offsets) {
    v1::MappedPrefix answer = HonestMapped();
    answer.mutable_gpu_offsets()->Add(offsets.begin(), offsets.end());
    return CheckMapped(answer, {2, true}, {kArena, kPool}, shapes);
  };
  EXPECT_TRUE(check({}).ok());
  EXPECT_TRUE(check({8192}).ok());
  EXPECT_TRUE(check({8192, 0, 4096}).ok());
  ExpectLie(check({0, 4096, 8192, 12288}), "4 copies in GPU memory of 3 entries");
  ExpectLie(check({kPool}), "outside of the GPU pool");
  ExpectLie(check({0, UINT64_MAX - 4095}), "outside of the GPU pool");
  ExpectLie(check({0, 4096, kPool - 4096}), "outside of the GPU pool");  // longer than rows
  ExpectLie(check({0, 4100}), "unaligned");
}

TEST(AnswerCheck, ALeaseIsTheMatchsFirstCheckpointOrALie) {
  const EntryShapes shapes(Layout());
  MatchResult match{.rows_blocks = 3, .rows_host_blocks = 3};
  ExpectLie(CheckLeased(HonestMapped(), match, {kArena}, shapes), "without a checkpoint");
  match.checkpoints = {{2, Tier::kHost}, {1, Tier::kHost}};
  EXPECT_TRUE(CheckLeased(HonestMapped(), match, {kArena}, shapes).ok());
  match.checkpoints[0].blocks = 3;
  ExpectLie(CheckLeased(HonestMapped(), match, {kArena}, shapes), "3 entries for 3 blocks");
}

TEST(AnswerCheck, TicketsThatDoNotFit) {
  const std::string ticket = "0123456789abcdef";
  v1::BulkResponse answer;
  EXPECT_TRUE(CheckTickets(answer, 2)->empty());
  answer.set_ticket(ticket);
  EXPECT_EQ(*CheckTickets(answer, 1), std::vector{ticket});
  EXPECT_EQ(*CheckTickets(answer, 0), std::vector{ticket});
  answer.add_more_tickets(ticket);
  EXPECT_EQ(CheckTickets(answer, 2)->size(), 2u);
  ExpectLie(CheckTickets(answer, 1).status(), "2 tickets for 1");
  answer.mutable_more_tickets(0)->pop_back();
  ExpectLie(CheckTickets(answer, 2).status(), "a ticket of 15");
  answer.mutable_more_tickets(0)->append("fg");
  ExpectLie(CheckTickets(answer, 2).status(), "a ticket of 17");
  answer.set_more_tickets(0, ticket);
  answer.clear_ticket();
  ExpectLie(CheckTickets(answer, 2).status(), "a ticket of 0");
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
