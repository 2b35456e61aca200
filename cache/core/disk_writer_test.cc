// Goal: batches side by side keep the order of their commits: nothing is found on disk before what
// it builds on, a failure reaches its descendants and nobody else, and who waits for a batch does
// not wait for the next one. Method: a gate that holds each batch's writes until the test lets them
// go, in the order it likes.
#include "cache/core/disk_writer.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <set>

#include "cache/core/core_rig.h"

namespace cairn::cache {
namespace {

// Submits are numbered from 1 while it is closed, and wait until they are let go.
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
  void LetGo(size_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    let_go_.insert(number);
    changed_.notify_all();
  }
  // Returns when so many have come.
  void Await(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return came_ >= count; });
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
      const size_t number = closed_ ? ++came_ : 0;
      changed_.notify_all();
      changed_.wait(lock, [&] { return !closed_ || let_go_.contains(number); });
    }
    base_.Submit(requests, finished);
  }

  store::FileSystem& base_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;  // guarded by mutex_, as the next two
  size_t came_ = 0;
  std::set<size_t> let_go_;
};

class DiskWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    host_ = *store::HostTier::Create(
        {.capacity_bytes = 64 * kIoAlignment, .memory = store::ArenaMemory::kAtUse});
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

// Two batches, the second built on the first, both being written.
class OverlappingTest : public DiskWriterTest {
 protected:
  void Start() {
    EXPECT_TRUE(writer_->WaitSaved(Commit(*writer_, 0)).ok());  // makes the segment
    gated_.Close();
    parent_ = Commit(*writer_, 1);
    gated_.Await(1);
    child_ = Commit(*writer_, 2);
    gated_.Await(2);
  }
  // Lets the child be written and synced, one operation each.
  void WriteChild() {
    device_.SetPlan({});
    gated_.LetGo(2);
    while (device_.operations() < 2) std::this_thread::yield();
  }

  std::optional<DiskWriter> writer_;
  EntryRef parent_, child_;
};

TEST_F(OverlappingTest, WhoWaitsForABatchDoesNotWaitForTheNext) {
  writer_.emplace(*residency_, waiter_, /*background=*/true);
  Start();
  gated_.LetGo(1);
  EXPECT_TRUE(writer_->WaitSaved(parent_).ok());
  EXPECT_TRUE(OnDisk(parent_));
  EXPECT_FALSE(OnDisk(child_));
  gated_.Open();
  EXPECT_TRUE(writer_->WaitSaved(child_).ok());
  EXPECT_TRUE(OnDisk(child_));
}

TEST_F(OverlappingTest, AChildThatIsWrittenFirstIsFoundAfterItsParent) {
  writer_.emplace(*residency_, waiter_, /*background=*/true);
  Start();
  WriteChild();
  EXPECT_FALSE(OnDisk(child_));
  gated_.Open();
  EXPECT_TRUE(writer_->WaitSaved(child_).ok());
  EXPECT_TRUE(OnDisk(parent_) && OnDisk(child_));
}

TEST_F(OverlappingTest, AWrittenChildIsNotFoundWhenItsParentFails) {
  writer_.emplace(*residency_, waiter_, /*background=*/true);
  Start();
  WriteChild();
  device_.SetPlan({.fail_at = 1, .status = absl::UnavailableError("gone"), .fail_for_ever = true});
  gated_.Open();
  EXPECT_TRUE(absl::IsResourceExhausted(writer_->WaitSaved(child_)));
  EXPECT_TRUE(absl::IsResourceExhausted(writer_->WaitSaved(parent_)));
  EXPECT_FALSE(OnDisk(parent_) || OnDisk(child_));
  // A later descendant takes both along.
  device_.SetPlan({});
  const EntryRef last = Commit(*writer_, 3);
  EXPECT_TRUE(writer_->WaitSaved(last).ok());
  EXPECT_TRUE(OnDisk(parent_) && OnDisk(child_) && OnDisk(last));
}

TEST_F(OverlappingTest, AParentDamagedInHostMemoryTakesItsWrittenChildAlong) {
  writer_.emplace(*residency_, waiter_, /*background=*/true);
  Start();
  WriteChild();
  const std::span<const uint8_t> payload = host_->Find(parent_.key())->payload();
  const_cast<uint8_t*>(payload.data())[7] ^= 1;
  gated_.Open();
  EXPECT_TRUE(absl::IsResourceExhausted(writer_->WaitSaved(child_)));
  EXPECT_TRUE(absl::IsDataLoss(writer_->WaitSaved(parent_)));
  EXPECT_FALSE(OnDisk(parent_) || OnDisk(child_));
}

TEST_F(OverlappingTest, ASyncThatFailsIsMended) {
  writer_.emplace(*residency_, waiter_, /*background=*/true);
  Start();
  // The parent's write, then its sync.
  device_.SetPlan({.fail_at = 2, .status = absl::UnavailableError("EIO")});
  gated_.LetGo(1);
  while (device_.operations() < 2) std::this_thread::yield();
  gated_.Open();
  EXPECT_TRUE(writer_->WaitSaved(parent_).ok());  // put again, elsewhere
  EXPECT_TRUE(writer_->WaitSaved(child_).ok());   // its segment has a verdict
  EXPECT_TRUE(OnDisk(parent_) && OnDisk(child_));
}

TEST_F(OverlappingTest, WhileItIsPausedNothingIsInFlight) {
  writer_.emplace(*residency_, waiter_, /*background=*/true);
  Start();
  std::thread opener([this] { gated_.Open(); });
  std::optional<DiskWriter::Pause> pause(std::in_place, *writer_);
  EXPECT_TRUE(OnDisk(parent_) && OnDisk(child_));
  const EntryRef last = Commit(*writer_, 3);
  EXPECT_TRUE(absl::IsDeadlineExceeded(writer_->Drain(0, clock_)));
  EXPECT_FALSE(OnDisk(last));
  pause.reset();
  EXPECT_TRUE(writer_->WaitSaved(last).ok());
  opener.join();
}

TEST_F(DiskWriterTest, DestructionWritesWhatIsQueuedAndInFlight) {
  std::vector<EntryRef> refs;
  {
    DiskWriter writer(*residency_, waiter_, /*background=*/true);
    gated_.Close();
    for (uint32_t i = 0; i < 20; ++i) refs.push_back(Commit(writer, i));
    gated_.Await(1);
    gated_.Open();
  }
  for (const EntryRef ref : refs) EXPECT_TRUE(OnDisk(ref));
}

TEST_F(DiskWriterTest, WithoutThreadsWhoWaitsDoesTheWork) {
  DiskWriter writer(*residency_, waiter_, /*background=*/false);
  std::vector<EntryRef> refs;
  for (uint32_t i = 0; i < 20; ++i) refs.push_back(Commit(writer, i));
  EXPECT_FALSE(OnDisk(refs[0]));
  EXPECT_TRUE(writer.WaitSaved(refs[19]).ok());
  for (const EntryRef ref : refs) EXPECT_TRUE(OnDisk(ref));
}

}  // namespace
}  // namespace cairn::cache
