// Goal: a core serves at once what its disk holds, before all of it is indexed; nothing that went
// meanwhile comes back; a damaged catalog costs no entry. Method: the walk over the catalog is held
// at a gate while calls are made, then let go.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "cache/core/core_rig.h"

namespace cairn::cache {
namespace {

constexpr EntryKind kRows = EntryKind::kRows;

class Gate {
 public:
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void AwaitSomebody() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return waiting_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int waiting_ = 0;
};

// A core with entries on disk that was started again and has indexed none of them.
class CoreLoading : public testing::Test {
 protected:
  CoreLoading() {
    EXPECT_TRUE(rig_.PutAll(chain_, true).ok());
    EXPECT_TRUE(rig_.PutAll(other_, true).ok());
    rig_.catalog->SetScanHook([this] { gate_.Pass(); });
    rig_.Restart();
    gate_.AwaitSomebody();
  }
  ~CoreLoading() override { gate_.Open(); }
  void AwaitIndexed() {
    gate_.Open();
    while (rig_.Stat("index_incomplete") != 0) std::this_thread::yield();
  }

  Gate gate_;
  CoreRig rig_{{.background = true}};
  const std::vector<Digest> chain_ = rig_.Chain(4), other_ = rig_.Chain(3, 9);
};

TEST_F(CoreLoading, ServesAtOnceWhatIsAskedFor) {
  EXPECT_EQ(rig_.Stat("index_blocks"), 0u);
  EXPECT_EQ(rig_.Rows(chain_), 4u);
  EXPECT_EQ(rig_.Stat("index_blocks"), 4u);  // and no more than that was looked at
  EXPECT_TRUE(rig_.Fetch(other_)->checkpoint.has_value());
  EXPECT_EQ(rig_.Rows(rig_.Chain(3, 77)), 0u);
  EXPECT_EQ(rig_.Stat("index_incomplete"), 1u);
  AwaitIndexed();
  EXPECT_EQ(rig_.core->List({}).size(), 7u);
  EXPECT_EQ(rig_.Stat("startup_entries"), 9u);  // each once
  EXPECT_EQ(rig_.Stat("startup_orphan_entries"), 0u);
  EXPECT_EQ(rig_.Rows(chain_), 4u);
}

TEST_F(CoreLoading, AnotherNamespaceFindsNothing) {
  EXPECT_EQ(rig_.core->Match(rig_.Open("a"), chain_)->rows_blocks, 0u);
}

TEST_F(CoreLoading, WhatWentMeanwhileStaysGone) {
  EXPECT_EQ(rig_.Rows(chain_), 4u);
  const EntryKey lost{chain_[2], kRows};
  ASSERT_TRUE(rig_.disk->Erase({&lost, 1}).ok());  // behind the core's back: a fetch finds out
  EXPECT_EQ(rig_.Fetch(chain_)->rows.size(), 2u);
  AwaitIndexed();
  EXPECT_EQ(rig_.Rows(chain_), 2u);
  // What was below it cannot be reached, and is erased after that.
  EXPECT_EQ(rig_.Stat("startup_orphan_entries"), 2u);
  while (rig_.Stat("disk_entries") > 6) std::this_thread::yield();
  EXPECT_EQ(rig_.Stat("disk_entries"), 6u);
}

TEST_F(CoreLoading, WhatIsPutMeanwhileStays) {
  const std::vector<Digest> fresh = rig_.Chain(2, 5);
  ASSERT_TRUE(rig_.PutAll(fresh, true).ok());
  AwaitIndexed();
  EXPECT_EQ(rig_.Rows(fresh), 2u);
  EXPECT_EQ(rig_.core->List({}).size(), 9u);
}

TEST(CoreLoadingDamage, ADamagedCatalogCostsNoEntry) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(4), other = rig.Chain(3, 9);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  ASSERT_TRUE(rig.PutAll(other, true).ok());
  ASSERT_TRUE(rig.catalog->FlipByte({chain[1], kRows}, 30, 4));
  rig.Restart();
  EXPECT_EQ(rig.Stat("index_incomplete"), 0u);
  EXPECT_EQ(rig.Stat("disk_mended_entries"), 1u);
  EXPECT_EQ(rig.Rows(other), 3u);
  EXPECT_EQ(rig.Rows(chain), 4u);
  rig.Restart();
  EXPECT_EQ(rig.Stat("index_incomplete"), 0u);
  EXPECT_EQ(rig.Rows(chain), 4u);
  EXPECT_EQ(rig.Rows(other), 3u);
}

// Found by the simulation: Reclaim's word for a damaged catalog was taken for damage of what it was
// to make room for, which was then thrown away. Now room is made all the same.
TEST(CoreLoadingDamage, ADamagedCatalogDoesNotCostWhatWaitsForTheDisk) {
  CoreRig rig({.host_units = 400, .disk_bytes = 1 << 20, .segment_bytes = 64 << 10});
  for (int stem = 0; stem < 18; ++stem) {
    ASSERT_TRUE(rig.PutAll(rig.Chain(4, stem), /*durable=*/true).ok());
  }
  ASSERT_TRUE(rig.catalog->FlipByte({rig.Chain(4, 0)[0], EntryKind::kRows}, 30, 4));
  rig.Restart();
  for (int stem = 100; stem < 200; ++stem) {
    const std::vector<Digest> chain = rig.Chain(1, stem);
    const absl::Status status = rig.Put(chain, 0, EntryKind::kRows, /*durable=*/true);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(rig.Rows(chain), 1u);
  }
  EXPECT_GT(rig.Stat("disk_reclaimed_segments"), 0u);
}

}  // namespace
}  // namespace cairn::cache
