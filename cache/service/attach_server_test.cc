// Goal: memory changes hands only for open sessions and within bounds, from many threads at once,
// and a silent peer holds up nobody. Method: in-process sockets, so that this runs under every
// sanitizer; over the kernel's in service_test.cc.
#include "cache/service/attach_server.h"

#include <thread>

#include "cache/client/attach_client.h"
#include "cache/client/protocol.h"
#include "cache/core/core_rig.h"
#include "cache/service/service_state.h"
#include "store/base/random.h"

namespace cairn::cache {
namespace {

constexpr char kPath[] = "/cairn.sock.fd";

struct AttachRig {
  AttachRig() : server(*AttachServer::Start(kPath, sockets, *core.core, sessions)) {}
  AttachClient Client(const std::string& token) {
    return AttachClient(sockets, kPath, token, absl::Seconds(20));
  }

  CoreRig core{{.disk_bytes = 0}};
  store::MemorySockets sockets;
  SessionTable sessions{SystemRandom()};
  std::unique_ptr<AttachServer> server;
};

TEST(Attach, TheArenaIsTheDaemons) {
  AttachRig rig;
  const auto session = rig.sessions.Add(1, true);
  const auto arena = rig.Client(session->token()).TakeArena(rig.core.core->arena_bytes());
  ASSERT_TRUE(arena.ok()) << arena.status();
  EXPECT_EQ(arena->size(), rig.core.core->arena_bytes());
  EXPECT_TRUE(arena->writable().empty());
}

TEST(Attach, AnEndedSessionGetsNothing) {
  AttachRig rig;
  const auto session = rig.sessions.Add(1, true);
  AttachClient client = rig.Client(session->token());
  const auto memory = *store::SharedMemory::Create("s", {.bytes = kIoAlignment});
  ASSERT_TRUE(client.GiveStaging(memory.descriptor(), kIoAlignment).ok());
  rig.sessions.Remove(session->token());
  EXPECT_TRUE(absl::IsAborted(client.GiveStaging(memory.descriptor(), kIoAlignment).status()));
  EXPECT_TRUE(absl::IsAborted(client.TakeArena(rig.core.core->arena_bytes()).status()));
  EXPECT_EQ(rig.sessions.size(), 0u);
  // Who still has a call in flight reads on.
  EXPECT_TRUE(session->StagingRange(0, 0, kIoAlignment).ok());
}

TEST(Attach, PiecesAreBoundedAndEachHasItsOwnId) {
  AttachRig rig;
  const auto session = rig.sessions.Add(1, true);
  const auto memory = *store::SharedMemory::Create("s", {.bytes = kIoAlignment});
  std::vector<std::thread> threads;
  std::atomic<uint64_t> ids{0};
  std::atomic<uint32_t> refused{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      AttachClient client = rig.Client(session->token());
      for (uint32_t i = 0; i < kStagingPiecesMax / 4 + 1; ++i) {
        const auto id = client.GiveStaging(memory.descriptor(), kIoAlignment);
        if (id.ok()) {
          ids |= uint64_t{1} << *id;
        } else {
          EXPECT_TRUE(absl::IsResourceExhausted(id.status())) << id.status();
          ++refused;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ids, UINT64_MAX);
  EXPECT_EQ(refused, 4u);
}

TEST(Attach, NonsenseIsAnsweredAndSilenceHoldsUpNobody) {
  AttachRig rig;
  const auto session = rig.sessions.Add(1, true);
  const auto silent = rig.sockets.Connect(kPath, absl::Seconds(20));
  ASSERT_TRUE(silent.ok());
  const auto strange = rig.sockets.Connect(kPath, absl::Seconds(20));
  const std::vector<uint8_t> nonsense(11, 7);
  ASSERT_TRUE((*strange)->Send(nonsense, -1, absl::Seconds(20)).ok());
  EXPECT_EQ((*strange)->Receive(4096, absl::Seconds(20))->bytes.size(), 256u);
  EXPECT_TRUE(rig.Client(session->token()).TakeArena(rig.core.core->arena_bytes()).ok());
  rig.server.reset();  // does not wait for the silent one longer than its second
}

TEST(SessionTable, RangesStayInTheirPiece) {
  SessionTable sessions(SystemRandom());
  const auto session = sessions.Add(1, true);
  EXPECT_NE(session->token(), sessions.Add(2, true)->token());
  ASSERT_TRUE(session->AddStaging(*store::SharedMemory::Create("s", {.bytes = 8192})).ok());
  EXPECT_TRUE(session->StagingRange(0, 8192 - 10, 10).ok());
  for (const auto& [piece, offset, bytes] : {std::tuple<uint32_t, uint64_t, uint64_t>{1, 0, 1},
                                             {0, 8192 - 9, 10},
                                             {0, UINT64_MAX - 4, 10},
                                             {0, 0, 8193}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(session->StagingRange(piece, offset, bytes).status()));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(sessions.Find("short").status()));
  EXPECT_TRUE(absl::IsAborted(sessions.Find(std::string(kTokenBytes, 'x')).status()));
}

TEST(WorkGauge, AStopSeesWorkAndItsEnd) {
  WorkGauge gauge;
  EXPECT_TRUE(gauge.AwaitNone(std::chrono::milliseconds(0)));
  WorkGauge::Token token = gauge.Hold();
  EXPECT_FALSE(gauge.AwaitNone(std::chrono::milliseconds(1)));
  std::thread ending([&] { token.reset(); });
  EXPECT_TRUE(gauge.AwaitNone(std::chrono::seconds(20)));
  ending.join();
}

TEST(ByteBudget, NeverBelowNothing) {
  ByteBudget budget(100);
  EXPECT_TRUE(budget.TryClaim(60));
  EXPECT_FALSE(budget.TryClaim(41));
  EXPECT_TRUE(budget.TryClaim(40));
  budget.Return(60);
  EXPECT_TRUE(budget.TryClaim(60));
  EXPECT_FALSE(budget.TryClaim(UINT64_MAX));
}

}  // namespace
}  // namespace cairn::cache
