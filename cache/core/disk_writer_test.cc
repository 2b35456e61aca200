// Goal: batches that overlap keep the order of their commits: nothing is found on disk before what
// it builds on, a failure reaches its descendants and nobody else, and who waits for a batch does
// not wait for the next one.
#include "cache/core/disk_writer.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "cache/core/core_rig.h"

namespace cairn::cache {
namespace {

// Reads and writes wait while it is closed.
class GatedFileSystem final : public store::FileSystem {
 public:
  explicit GatedFileSystem(store::FileSystem& base) : base_(base) {}
  void Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  void AwaitWaiting() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return waiting_ > 0; });
  }

  absl::StatusOr<std::unique_ptr<store::File>> Open(const std::string& path,
                                                    store::OpenMode mode) override {
    return base_.Open(path, mode);
  }
  absl::Status MakeDirectory(const std::string& path) override { return base_.MakeDirectory(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return base_.List(path);
  }
  absl::Status SyncDirectory(const std::string& path) override { return base_.SyncDirectory(path); }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return base_.Rename(from, to);
  }
  absl::Status Unlink(const std::string& path) override { return base_.Unlink(path); }
  absl::StatusOr<bool> Exists(const std::string& path) override { return base_.Exists(path); }
  absl::StatusOr<std::unique_ptr<store::FileLock>> Lock(const std::string& path) override {
    return base_.Lock(path);
  }
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override {
    return base_.FreeBytes(path);
  }

 private:
  void Run(std::span<store::IoRequest> requests, const store::IoFinished& finished) override {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      ++waiting_;
      changed_.notify_all();
      changed_.wait(lock, [this] { return !closed_; });
      --waiting_;
    }
    base_.Submit(requests, finished);
  }

  store::FileSystem& base_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;  // guarded by mutex_, as the next
  int waiting_ = 0;
};

class DiskWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    host_ = *store::HostTier::Create({.capacity_bytes = 64 * kIoAlignment, .prefault = false});
    store::RecoveryReport report;
    disk_ =
        *store::DiskTier::Open({.directory = "/data", .capacity_bytes = 8 << 20}, gated_,
                               std::make_unique<store::MemoryCatalog>(catalog_), clock_, &report);
    residency_ = std::make_unique<Residency>(*host_, disk_.get(), clock_, PrefixIndex::Options());
  }

  // Rows of block `index` of the one chain there is, committed and queued.
  EntryRef Commit(DiskWriter& writer, uint32_t index) {
    const Digest root = Sha256({});
    EntryAttributes attributes{root, index == 0 ? root : DigestOf(index - 1), index};
    MutexLock lock(&residency_->mutex);
    const EntryKey key{DigestOf(index), EntryKind::kRows};
    const std::vector<uint8_t> payload = PayloadOf(key);
    store::HostRoom room = *residency_->ReserveHost(payload.size(), 2);
    std::copy(payload.begin(), payload.end(), room.bytes().begin());
    const EntryRef ref{residency_->index.Add(key.digest, attributes), key.kind};
    EXPECT_TRUE(residency_
                    ->PublishHost(ref,
                                  {key, PartsOf(key.kind, payload), EncodeAttributes(attributes)},
                                  std::move(room))
                    .ok());
    residency_->index.AddHold(ref, 1);
    writer.Enqueue(ref);
    return ref;
  }
  static Digest DigestOf(uint32_t index) {
    const uint8_t bytes[] = {static_cast<uint8_t>(index)};
    return Sha256(bytes);
  }
  bool OnDisk(EntryRef ref) { return disk_->Contains(ref.key()); }

  FakeClock clock_;
  PollingWaiter waiter_;
  store::MemoryFileSystem files_;
  store::FaultyFileSystem device_{files_};
  GatedFileSystem gated_{device_};
  std::shared_ptr<store::MemoryCatalogDisk> catalog_ = std::make_shared<store::MemoryCatalogDisk>();
  std::unique_ptr<store::HostTier> host_;
  std::unique_ptr<store::DiskTier> disk_;
  std::unique_ptr<Residency> residency_;
};

TEST_F(DiskWriterTest, AChildInTheNextBatchFollowsItsParent) {
  DiskWriter writer(*residency_, waiter_, /*background=*/false);
  const EntryRef parent = Commit(writer, 0);
  writer.Stage();
  const EntryRef child = Commit(writer, 1);
  writer.Stage();  // while the parent is on its way
  EXPECT_FALSE(OnDisk(parent) || OnDisk(child));
  writer.Publish();
  EXPECT_TRUE(OnDisk(parent) && OnDisk(child));
  EXPECT_TRUE(writer.WaitSaved(child).ok());
}

TEST_F(DiskWriterTest, ASyncThatFailsUnderTwoBatchesIsMended) {
  DiskWriter writer(*residency_, waiter_, /*background=*/false);
  const EntryRef parent = Commit(writer, 0);
  writer.Stage();
  const EntryRef child = Commit(writer, 1);
  writer.Stage();
  device_.SetPlan({.fail_at = 1, .status = absl::UnavailableError("EIO")});
  writer.Publish();
  EXPECT_TRUE(writer.WaitSaved(parent).ok());  // put again, elsewhere
  EXPECT_TRUE(writer.WaitSaved(child).ok());
  EXPECT_TRUE(OnDisk(parent) && OnDisk(child));
}

TEST_F(DiskWriterTest, AChildIsNotPublishedWithoutItsParent) {
  DiskWriter writer(*residency_, waiter_, /*background=*/false);
  const EntryRef parent = Commit(writer, 0);
  writer.Stage();
  device_.SetPlan({.fail_at = 1, .status = absl::UnavailableError("gone"), .fail_for_ever = true});
  const EntryRef child = Commit(writer, 1);
  writer.Publish();  // of the parent alone
  device_.SetPlan({});
  EXPECT_FALSE(OnDisk(parent));
  EXPECT_TRUE(writer.WaitSaved(child).code() == absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(OnDisk(child));
  // A later descendant takes both along.
  const EntryRef last = Commit(writer, 2);
  EXPECT_TRUE(writer.WaitSaved(last).ok());
  EXPECT_TRUE(OnDisk(parent) && OnDisk(child) && OnDisk(last));
}

TEST_F(DiskWriterTest, AStagedChildIsRefusedWhenItsParentFails) {
  DiskWriter writer(*residency_, waiter_, /*background=*/false);
  const EntryRef parent = Commit(writer, 0);
  writer.Stage();
  const EntryRef child = Commit(writer, 1);
  writer.Stage();
  // Damaged in host memory after it was written: what is staged is dropped with the first failure
  // of the device, and the tier finds the damage when it is put again.
  const std::span<const uint8_t> payload = host_->Find(parent.key())->payload();
  const_cast<uint8_t*>(payload.data())[7] ^= 1;
  device_.SetPlan({.fail_at = 1, .status = absl::UnavailableError("EIO")});
  writer.Publish();
  EXPECT_FALSE(OnDisk(parent));
  EXPECT_FALSE(OnDisk(child));
}

TEST_F(DiskWriterTest, WhoWaitsForABatchDoesNotWaitForTheNext) {
  DiskWriter writer(*residency_, waiter_, /*background=*/true);
  EXPECT_TRUE(writer.WaitSaved(Commit(writer, 0)).ok());  // makes the segment
  gated_.Close();
  const EntryRef second = Commit(writer, 1);
  gated_.AwaitWaiting();
  // `second` is being written and stays so; what was saved is not held up by it.
  const EntryRef first = [&] {
    MutexLock lock(&residency_->mutex);
    return EntryRef{residency_->index.Find(DigestOf(0)), EntryKind::kRows};
  }();
  EXPECT_TRUE(writer.WaitSaved(first).ok());
  EXPECT_FALSE(OnDisk(second));
  gated_.Open();
  EXPECT_TRUE(writer.WaitSaved(second).ok());
}

TEST_F(DiskWriterTest, DestructionWritesWhatIsQueuedAndInFlight) {
  std::vector<EntryRef> refs;
  {
    DiskWriter writer(*residency_, waiter_, /*background=*/true);
    gated_.Close();
    for (uint32_t i = 0; i < 20; ++i) refs.push_back(Commit(writer, i));
    gated_.AwaitWaiting();
    gated_.Open();
  }
  for (const EntryRef ref : refs) EXPECT_TRUE(OnDisk(ref));
}

}  // namespace
}  // namespace cairn::cache
