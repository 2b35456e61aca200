// Goal: one maker a key, whoever asks and however makers end; no waiter is left behind. Threads are
// ordered by what they wait for (PollingWaiter::Await), time by the fake clock; nothing sleeps.
#include <gtest/gtest.h>

#include <future>

#include "cache/core/core_rig.h"
#include "cache/core/stopped_reader.h"
#include "store/device/shared_memory.h"

namespace cairn::cache {
namespace {

constexpr EntryKind kRows = EntryKind::kRows;

class FlightTest : public testing::Test {
 protected:
  using Answer = absl::StatusOr<std::vector<ReserveResult>>;

  // Asks in another thread; returns when it waits.
  std::future<Answer> AskAndWait(SessionId by, const ReserveItem& item) {
    const uint64_t before = rig_.waiter.waits();
    auto answer = std::async(std::launch::async, [this, by, item] {
      return rig_.core->Reserve(by, {&item, 1}, absl::Seconds(30));
    });
    rig_.waiter.Await(before);
    return answer;
  }

  CoreRig rig_;
  const std::vector<Digest> chain_ = rig_.Chain(1);
  const ReserveItem item_ = rig_.Item(chain_, 0, kRows);
};

TEST_F(FlightTest, WaiterIsToldOfTheCommit) {
  const uint64_t id = rig_.Reserve(item_);
  const SessionId other = rig_.Open();
  auto answer = AskAndWait(other, item_);
  ASSERT_TRUE(rig_.CommitOne(id, item_.key).ok());
  EXPECT_EQ((*answer.get())[0].state, ReserveState::kExists);
}

TEST_F(FlightTest, FirstWaiterTakesOverFromAVanishedMaker) {
  const SessionId maker = rig_.Open(), first = rig_.Open(), second = rig_.Open();
  ASSERT_NE(rig_.Reserve(item_, maker), 0u);
  auto a = AskAndWait(first, item_);
  auto b = AskAndWait(second, item_);
  rig_.core->CloseSession(maker);
  const Answer taken = a.get();
  ASSERT_EQ((*taken)[0].state, ReserveState::kGo);
  EXPECT_EQ(b.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  ASSERT_TRUE(rig_.CommitOne((*taken)[0].reservation, item_.key, false, first).ok());
  EXPECT_EQ((*b.get())[0].state, ReserveState::kExists);
  EXPECT_EQ(rig_.Stat("open_reservations"), 0u);
}

// Nobody else is set to making what is nearly made.
TEST_F(FlightTest, ACommitThatCopiesOutlivesItsSession) {
  const SessionId maker = rig_.Open(), other = rig_.Open();
  const uint64_t id = rig_.Reserve(item_, maker);
  auto answer = AskAndWait(other, item_);
  const std::vector<uint8_t> payload = PayloadOf(item_.key);
  const auto memory = *store::SharedMemory::Create("payload", {.bytes = kIoAlignment});
  std::copy(payload.begin(), payload.end(), memory.writable().begin());
  const StoppedReader reader(memory.bytes());
  auto commit = std::async(std::launch::async, [&] {
    const CoreCommitItem item{id, memory.bytes(), PartsOf(kRows, payload)};
    return (*rig_.core->Commit(maker, {&item, 1}, false))[0];
  });
  reader.Await();
  rig_.core->CloseSession(maker);
  EXPECT_EQ(rig_.Stat("open_reservations"), 1u);
  reader.LetGo();
  EXPECT_TRUE(commit.get().ok());
  EXPECT_EQ((*answer.get())[0].state, ReserveState::kExists);
  EXPECT_EQ(rig_.Stat("open_reservations"), 0u);
  EXPECT_EQ(rig_.Fetch(chain_, other)->rows.size(), 1u);
}

TEST_F(FlightTest, WaiterTakesOverFromAbortFailureAndDeadline) {
  const SessionId other = rig_.Open();
  uint64_t id = rig_.Reserve(item_);
  auto answer = AskAndWait(other, item_);
  ASSERT_TRUE(rig_.core->Abort(rig_.session, {&id, 1}).ok());
  id = (*answer.get())[0].reservation;
  ASSERT_NE(id, 0u);

  answer = AskAndWait(rig_.session, item_);
  std::vector<uint8_t> payload = PayloadOf(item_.key);
  const std::vector<EntryPart> parts = PartsOf(kRows, payload);
  payload[0] ^= 1;
  const CoreCommitItem bad{id, payload, parts};
  ASSERT_TRUE(absl::IsDataLoss((*rig_.core->Commit(other, {&bad, 1}, false))[0]));
  id = (*answer.get())[0].reservation;
  ASSERT_NE(id, 0u);

  rig_.clock.Advance(absl::Minutes(29) + absl::Seconds(50));
  answer = AskAndWait(other, item_);
  rig_.clock.Advance(absl::Seconds(11));  // past the maker's 30 minutes, within the wait of 30 s
  EXPECT_EQ((*answer.get())[0].state, ReserveState::kGo);
  EXPECT_TRUE(absl::IsAborted(rig_.CommitOne(id, item_.key)));
}

TEST_F(FlightTest, WaitIsBounded) {
  ASSERT_NE(rig_.Reserve(item_), 0u);
  const SessionId other = rig_.Open();
  auto answer = AskAndWait(other, item_);
  rig_.clock.Advance(absl::Seconds(31));
  EXPECT_EQ((*answer.get())[0].state, ReserveState::kWait);
}

TEST_F(FlightTest, ClosedSessionStopsWaitingAndIsGivenNothing) {
  const uint64_t id = rig_.Reserve(item_);
  const SessionId leaving = rig_.Open(), staying = rig_.Open();
  auto gone = AskAndWait(leaving, item_);
  auto stays = AskAndWait(staying, item_);
  rig_.core->CloseSession(leaving);
  EXPECT_TRUE(absl::IsAborted(gone.get().status()));
  ASSERT_TRUE(rig_.core->Abort(rig_.session, {&id, 1}).ok());
  EXPECT_EQ((*stays.get())[0].state, ReserveState::kGo);
}

TEST_F(FlightTest, EightEnginesMakeEachBlockOnce) {
  rig_.core.reset();
  rig_.sizes.background = true;
  rig_.sizes.host_units = 256;
  rig_.host.reset(), rig_.disk.reset();
  rig_.Start();
  constexpr size_t kThreads = 8, kBlocks = 24;
  const std::vector<Digest> chain = rig_.Chain(kBlocks);
  std::vector<SessionId> sessions;
  for (size_t t = 0; t < kThreads; ++t) sessions.push_back(rig_.Open());
  std::vector<std::atomic<int>> made(kBlocks);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < kBlocks; ++i) {
        const ReserveItem item = rig_.Item(chain, i, kRows, sessions[t]);
        const auto answer = rig_.core->Reserve(sessions[t], {&item, 1}, absl::Seconds(60));
        ASSERT_TRUE(answer.ok()) << answer.status();
        ASSERT_NE((*answer)[0].state, ReserveState::kWait);
        if ((*answer)[0].state != ReserveState::kGo) continue;
        ++made[i];
        const bool durable = i % 4 == 0;
        const absl::Status status =
            rig_.CommitOne((*answer)[0].reservation, item.key, durable, sessions[t]);
        ASSERT_TRUE(status.ok()) << status;
      }
      ASSERT_EQ(rig_.Fetch(chain, sessions[t])->rows.size(), kBlocks);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < kBlocks; ++i) EXPECT_EQ(made[i], 1) << i;
  EXPECT_EQ(rig_.Stat("commit_entries"), kBlocks);
  ASSERT_TRUE(rig_.core->Flush(absl::Seconds(60)).ok());
  EXPECT_EQ(rig_.Stat("disk_entries"), kBlocks);
}

TEST_F(FlightTest, ManyFetchesReadFromDiskOnce) {
  rig_.sizes.background = true;
  rig_.sizes.host_units = 128;
  constexpr size_t kThreads = 8, kBlocks = 32;
  const std::vector<Digest> chain = rig_.Chain(kBlocks);
  rig_.DropFromHost();
  ASSERT_TRUE(rig_.PutAll(chain).ok());
  rig_.DropFromHost();
  std::vector<SessionId> sessions;
  for (size_t t = 0; t < kThreads; ++t) sessions.push_back(rig_.Open());
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const auto prefix = rig_.Fetch(chain, sessions[t]);
      ASSERT_TRUE(prefix.ok()) << prefix.status();
      ASSERT_EQ(prefix->rows.size(), kBlocks);
      ASSERT_TRUE(prefix->checkpoint.has_value());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(rig_.Stat("promoted_entries"), kBlocks + 1);
}

// Eight engines over few texts, in tiers too small for all of them, some of them vanishing:
// whatever is answered is right.
TEST_F(FlightTest, ManyEnginesUnderPressureNeverGetAWrongByte) {
  rig_.core.reset(), rig_.host.reset(), rig_.disk.reset();
  rig_.sizes.background = true;
  rig_.sizes.host_units = 96;
  rig_.sizes.disk_bytes = 1 << 20;
  rig_.sizes.segment_bytes = 128 << 10;
  rig_.Start();
  constexpr size_t kThreads = 8;
  std::vector<std::vector<Digest>> texts;
  for (int leaf = 0; leaf < 8; ++leaf) texts.push_back(rig_.Chain(12, leaf % 2, 6, leaf));
  std::vector<std::vector<SessionId>> sessions(kThreads);
  for (auto& own : sessions) {
    for (int i = 0; i < 4; ++i) own.push_back(rig_.Open());
  }
  const uint64_t arena = rig_.core->arena_bytes();
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      SeededRandom random(t);
      for (const SessionId session : sessions[t]) {
        bool vanished = false;
        for (int round = 0; round < 12 && !vanished; ++round) {
          const std::vector<Digest>& chain = texts[random.Next() % texts.size()];
          auto prefix = rig_.Fetch(chain, session);  // checks every byte
          const size_t have = prefix.ok() ? prefix->rows.size() : 0;
          for (size_t i = have; i < chain.size(); ++i) {
            const ReserveItem item = rig_.Item(chain, i, kRows, session);
            const auto answer = rig_.core->Reserve(session, {&item, 1}, absl::Seconds(60));
            if (!answer.ok()) break;
            if ((*answer)[0].state == ReserveState::kExists) continue;
            if (random.Next() % 32 == 0) {  // vanishes while it makes a block
              vanished = true;
              break;
            }
            const absl::Status status =
                rig_.CommitOne((*answer)[0].reservation, item.key, random.Next() % 8 == 0, session);
            if (!status.ok()) break;
          }
          if (prefix.ok() && random.Next() % 4 != 0) {
            ASSERT_TRUE(rig_.core->Release(session, prefix->lease).ok());
          }
          ASSERT_LE(rig_.host->stats().used_bytes, arena);
          ASSERT_LE(rig_.disk->stats().used_bytes, rig_.sizes.disk_bytes);
        }
        rig_.core->CloseSession(session);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(rig_.Stat("open_reservations"), 0u);
  EXPECT_EQ(rig_.Stat("open_leases"), 0u);
  EXPECT_EQ(rig_.Stat("host_pinned_bytes"), 0u);
  EXPECT_EQ(rig_.Stat("checksum_failures"), 0u);
  EXPECT_EQ(rig_.Stat("lost_entries"), 0u);
}

}  // namespace
}  // namespace cairn::cache
