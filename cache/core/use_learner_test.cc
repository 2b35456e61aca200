// Goal: uses are noted cheaply, learned from in the background, and never lost to the policy.
#include "cache/core/use_learner.h"

#include <gtest/gtest.h>

#include "cache/client/digest_chain.h"
#include "cache/core/core_rig.h"

namespace cairn::cache {
namespace {

TEST(TierOrder, ALongQueueOfUsesStaysBoundedAndInOrder) {
  TierOrder order(*MakePolicy("lru", {}));
  std::vector<uint32_t> slots;
  for (EntryNumber entry = 0; entry < 3; ++entry) {
    slots.push_back(order.Add(entry, {}));
    order.SetEvictable(slots.back(), true);
  }
  for (int i = 0; i < 100'000; ++i) order.Used(slots[i % 2 == 0 ? 0 : 2]);
  EXPECT_LE(order.noted_uses(), size_t{1} << 15);
  EXPECT_EQ(order.Victim(), 1u);
  EXPECT_EQ(order.noted_uses(), 0u);
  order.Used(slots[1]);
  order.Used(slots[0]);
  EXPECT_TRUE(order.Learn(1));
  EXPECT_EQ(order.noted_uses(), 1u);
  EXPECT_FALSE(order.Learn(1));
  EXPECT_EQ(order.Victim(), 2u);
}

TEST(UseLearner, LearnsWhatWasNotedWithoutBeingAsked) {
  const auto host = *store::HostTier::Create(
      {.capacity_bytes = 1 << 20, .memory = store::ArenaMemory::kAtUse, .memory_failed = nullptr});
  FakeClock clock;
  SeededRandom random(1);
  Residency residency(*host, nullptr, clock, {.random = &random});
  UseLearner learner(residency, /*background=*/true);
  const Digest root = Sha256(std::vector<uint8_t>{1});
  EntryRef ref;
  {
    MutexLock lock(&residency.mutex);
    ref = {residency.index.Add(BlockDigest(root, 0, std::vector<int32_t>(kBlockTokens)),
                               {root, root, 0}),
           EntryKind::kRows};
    ref->bytes = 1;
    residency.index.SetPresent(ref, Place::kHost, true);
    // More than it learns from, and than it is told of at once.
    for (int i = 0; i < 20'000; ++i) residency.index.Touch(ref);
    learner.Noted();
  }
  const auto unlearned = [&residency] {
    MutexLock lock(&residency.mutex);
    return residency.index.unlearned_uses();
  };
  while (unlearned() != 0) std::this_thread::yield();
}

}  // namespace
}  // namespace cairn::cache
