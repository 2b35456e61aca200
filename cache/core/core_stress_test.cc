// Goal: under load from many threads every byte that is handed out is right, both tiers stay under
// their limits at every instant, and nothing is held once all is over. Method: clients that put,
// match, fetch, vanish and an operator, each at random from a seed, on tiers far too small for
// them, and a scrubber at full speed; a watcher looks at the tiers and at the files all the while.
// ThreadSanitizer runs it too.
#include <gtest/gtest.h>

#include "cache/core/core_rig.h"

namespace cairn::cache {
namespace {

constexpr size_t kClients = 4;
constexpr int kStepsOfAClient = 250;
constexpr int kTexts = 40;
constexpr size_t kBlocks = 6;
constexpr uint64_t kHostUnits = 64;
constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint64_t kStoreFileBytes = kIoAlignment;  // the store's identity, beside the segments

class CoreStress : public ::testing::Test {
 protected:
  CoreStress()
      : rig_({.host_units = kHostUnits,
              .disk_bytes = kDiskBytes,
              .segment_bytes = 128 << 10,
              .background = true,
              // Never rests: its rate is beyond any device's.
              .options = {.scrub_bytes_per_second = 1ull << 50,
                          .scrub_round_min = absl::ZeroDuration()}}) {
    for (int text = 0; text < kTexts; ++text) {
      // Every other text continues the one before it.
      chains_.push_back(rig_.Chain(kBlocks, text / 2, text % 2 == 0 ? SIZE_MAX : 3, text));
    }
  }

  // What may be refused under load, and nothing else.
  static void ExpectFair(const absl::Status& status) {
    switch (status.code()) {
      case absl::StatusCode::kOk:
      case absl::StatusCode::kAlreadyExists:       // another client makes it, or has made it
      case absl::StatusCode::kResourceExhausted:   // all that lies there is held
      case absl::StatusCode::kFailedPrecondition:  // what it builds on has been evicted
        return;
      default:
        ADD_FAILURE() << status;
    }
  }

  SessionId Open() {
    Registration registration;
    absl::StatusOr<SessionId> opened = rig_.core->OpenSession(RigSpec(), &registration);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *opened;
  }

  absl::Status Put(std::span<const Digest> chain, bool durable, SessionId session) {
    for (size_t i = 0; i < chain.size(); ++i) {
      for (const EntryKind kind : {EntryKind::kRows, EntryKind::kCheckpoint}) {
        if (kind == EntryKind::kCheckpoint && i + 1 < chain.size()) continue;
        const ReserveItem item = rig_.Item(chain, i, kind);
        const uint64_t reservation = rig_.Reserve(item, session);
        if (reservation == 0) continue;
        CAIRN_RETURN_IF_ERROR(rig_.CommitOne(reservation, item.key, durable, session));
      }
    }
    return absl::OkStatus();
  }

  void Release(SessionId session, LeasedPrefix& held) {
    for (const LeasedEntry& entry : held.rows) CoreRig::ExpectTrue(entry);
    if (held.lease != 0) ExpectFair(rig_.core->Release(session, held.lease));
    held = LeasedPrefix{};
  }

  LeasedPrefix Fetch(std::span<const Digest> chain, SessionId session) {
    absl::StatusOr<LeasedPrefix> prefix = rig_.Fetch(chain, session);
    ExpectFair(prefix.status());
    return prefix.ok() ? *std::move(prefix) : LeasedPrefix{};
  }

  void Step(SeededRandom& random, SessionId& session, LeasedPrefix& held) {
    const std::vector<Digest>& chain = chains_[random.Next() % kTexts];
    switch (random.Next() % 7) {
      case 0:
      case 1:
        return ExpectFair(Put(chain, /*durable=*/false, session));
      case 2:
        return ExpectFair(Put(chain, /*durable=*/true, session));
      case 3:  // and keeps it while others come and go
        Release(session, held);
        held = Fetch(chain, session);
        return;
      case 4: {
        LeasedPrefix prefix = Fetch(chain, session);
        return Release(session, prefix);
      }
      case 5: {
        absl::StatusOr<CoreMatch> match = rig_.core->MatchAndLease(session, chain);
        ASSERT_TRUE(match.ok()) << match.status();
        EXPECT_LE(match->found.rows_blocks, chain.size());
        if (match->leased.has_value()) Release(session, *match->leased);
        return;
      }
      default:  // vanishes with what it holds, in the middle of making something
        rig_.Reserve(rig_.Item(chain, 0, EntryKind::kRows), session);
        held = LeasedPrefix{};
        rig_.core->CloseSession(session);
        session = Open();
    }
  }

  void Client(uint64_t seed) {
    SeededRandom random(seed);
    SessionId session = Open();
    LeasedPrefix held;
    for (int step = 0; step < kStepsOfAClient && !HasFailure(); ++step) Step(random, session, held);
    rig_.core->CloseSession(session);
  }

  void Operator() {
    SeededRandom random(99);
    while (!clients_done_) {
      const Digest& block = chains_[random.Next() % kTexts][random.Next() % kBlocks];
      uint64_t kept = 0;
      const ListFilter below{.prefix = block, .leaves_only = true};
      ASSERT_TRUE(rig_.core->Evict(below, &kept).ok());
      const absl::StatusOr<VerifyReport> report = rig_.core->Verify({.filter = below}, nullptr);
      ASSERT_TRUE(report.ok()) << report.status();
      EXPECT_EQ(report->damaged(), 0u);
      if (rig_.core->Pin(block, true).ok()) {
        EXPECT_TRUE(rig_.core->Pin(block, false).ok());
      }
      ExpectFair(rig_.core->Flush(absl::Hours(1)));
    }
  }

  void Watch() {
    while (!clients_done_) {
      EXPECT_LE(rig_.host->stats().used_bytes, kHostUnits * kIoAlignment);
      EXPECT_LE(rig_.disk->stats().used_bytes, kDiskBytes);
      EXPECT_LE(rig_.files.UsedBytes(), kDiskBytes + kStoreFileBytes);
      ++looks_;
    }
  }

  CoreRig rig_;
  std::vector<std::vector<Digest>> chains_;
  std::atomic<bool> clients_done_{false};
  std::atomic<uint64_t> looks_{0};
};

TEST_F(CoreStress, EveryByteIsRightAndEveryLimitHolds) {
  std::vector<std::thread> clients;
  for (size_t i = 0; i < kClients; ++i) clients.emplace_back([this, i] { Client(i + 1); });
  std::thread keeper([this] { Operator(); });
  std::thread watcher([this] { Watch(); });
  for (std::thread& client : clients) client.join();
  clients_done_ = true;
  keeper.join();
  watcher.join();

  EXPECT_GT(looks_, 0u);
  // The load was what it is meant to be.
  EXPECT_GT(rig_.Stat("evicted_host_entries"), 0u);
  EXPECT_GT(rig_.Stat("evicted_disk_entries"), 0u);
  EXPECT_GT(rig_.Stat("promoted_entries"), 0u);
  EXPECT_GT(rig_.disk->stats().reclaimed_segments, 0u);
  // Nothing is left held.
  EXPECT_EQ(rig_.Stat("open_leases"), 0u);
  EXPECT_EQ(rig_.Stat("open_reservations"), 0u);
  EXPECT_LE(rig_.Stat("host_pinned_bytes"), kCheckpointUnits * kIoAlignment);  // the scrubber's
  // What went under the scrubber was no damage and no loss.
  EXPECT_GT(rig_.Stat("scrub_rounds"), 0u);
  EXPECT_GT(rig_.Stat("verified_entries"), 0u);
  EXPECT_EQ(rig_.Stat("checksum_failures"), 0u);
  EXPECT_EQ(rig_.Stat("lost_entries"), 0u);
}

}  // namespace
}  // namespace cairn::cache
