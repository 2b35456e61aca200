// Goal: every file system keeps the contract of file_system.h. Method: one suite over the machine's
// (io_uring where the kernel allows it, pread and pwrite, and the page cache) and the one in
// memory.
#include "store/device/file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>

#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "store/device/faulty_file_system.h"
#include "store/device/memory_file_system.h"
#include "store/device/uring_file_system.h"

namespace cairn::store {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Kind {
  const char* name;
  std::function<std::unique_ptr<FileSystem>()> make;
};

class FileSystemTest : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/cairn_files_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    files_ = GetParam().make();
    ASSERT_TRUE(files_->MakeDirectory(folder_).ok());
  }
  void TearDown() override {
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }
  std::unique_ptr<File> Create(const std::string& name) {
    auto file = files_->Open(folder_ + "/" + name, OpenMode::kCreate);
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? *std::move(file) : nullptr;
  }
  absl::Status Do(IoRequest request) {
    files_->Submit({&request, 1});
    return request.status;
  }

  std::string folder_;
  std::unique_ptr<FileSystem> files_;
};

INSTANTIATE_TEST_SUITE_P(
    Kinds, FileSystemTest,
    ::testing::Values(Kind{"Uring", [] { return std::make_unique<UringFileSystem>(); }},
                      Kind{"Direct",
                           [] {
                             return std::make_unique<UringFileSystem>(
                                 UringFileSystem::Options{.use_bounce = false});
                           }},
                      Kind{"Pread",
                           [] {
                             return std::make_unique<UringFileSystem>(
                                 UringFileSystem::Options{.use_uring = false});
                           }},
                      Kind{"Buffered",
                           [] {
                             return std::make_unique<UringFileSystem>(
                                 UringFileSystem::Options{.use_direct = false});
                           }},
                      Kind{"Memory", [] { return std::make_unique<MemoryFileSystem>(); }}),
    [](const auto& test) { return test.param.name; });

IoBuffer Pattern(uint64_t bytes, uint64_t seed) {
  IoBuffer buffer(bytes);
  SeededRandom random(seed);
  for (size_t at = 0; at < buffer.bytes().size(); at += 97) {
    buffer.bytes()[at] = static_cast<uint8_t>(random.Next());
  }
  return buffer;
}

TEST_P(FileSystemTest, WritesAndReadsManyAtOnceFromTwoPlacesEach) {
  const auto file = Create("a");
  constexpr uint64_t kBytes = (3 << 20) + 8192;  // more than one piece, not a multiple of one
  std::vector<IoBuffer> heads, bodies;
  std::vector<IoRequest> requests;
  for (uint64_t i = 0; i < 20; ++i) {
    heads.push_back(Pattern(4096, i));
    bodies.push_back(Pattern(kBytes, 100 + i));
    requests.push_back(
        IoRequest::Write(*file, i * (kBytes + 4096), heads[i].bytes(), bodies[i].bytes()));
  }
  files_->Submit(requests);
  for (const IoRequest& request : requests) {
    ASSERT_TRUE(request.status.ok()) << request.status;
    EXPECT_EQ(request.bytes_done, kBytes + 4096);
  }
  EXPECT_EQ(*file->Size(), 20 * (kBytes + 4096));
  ASSERT_TRUE(file->Sync().ok());
  std::vector<IoBuffer> read_heads, read_bodies;
  requests.clear();
  for (uint64_t i = 0; i < 20; ++i) {
    read_heads.emplace_back(4096);
    read_bodies.emplace_back(kBytes);
    requests.push_back(
        IoRequest::Read(*file, i * (kBytes + 4096), read_heads[i].bytes(), read_bodies[i].bytes()));
  }
  files_->Submit(requests);
  for (uint64_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(requests[i].status.ok()) << requests[i].status;
    EXPECT_TRUE(std::equal(heads[i].bytes().begin(), heads[i].bytes().end(),
                           read_heads[i].bytes().begin()));
    EXPECT_TRUE(std::equal(bodies[i].bytes().begin(), bodies[i].bytes().end(),
                           read_bodies[i].bytes().begin()));
  }
}

TEST_P(FileSystemTest, TheEndOfTheFileCutsReadsShort) {
  const auto file = Create("a");
  ASSERT_TRUE(Do(IoRequest::Write(*file, 0, Pattern(8192, 1).bytes())).ok());
  IoBuffer buffer(3 << 20);
  IoRequest reads[] = {IoRequest::Read(*file, 4096, buffer.bytes().first(8192)),
                       IoRequest::Read(*file, 8192, buffer.bytes().first(4096)),
                       IoRequest::Read(*file, 1 << 20, buffer.bytes().subspan(1 << 20)),
                       IoRequest::Read(*file, 0, buffer.bytes().first(8192))};
  files_->Submit(reads);
  for (const IoRequest& read : reads) EXPECT_TRUE(read.status.ok()) << read.status;
  EXPECT_EQ(reads[0].bytes_done, 4096u);
  EXPECT_TRUE(reads[0].cut_short());
  EXPECT_EQ(reads[1].bytes_done, 0u);
  EXPECT_EQ(reads[2].bytes_done, 0u);
  EXPECT_EQ(reads[3].bytes_done, 8192u);
  EXPECT_FALSE(reads[3].cut_short());
  ASSERT_TRUE(file->Truncate(5000).ok());
  EXPECT_TRUE(Do(IoRequest::Read(*file, 0, buffer.bytes().first(8192))).ok());
  IoRequest read = IoRequest::Read(*file, 0, buffer.bytes().first(8192));
  files_->Submit({&read, 1});
  EXPECT_EQ(read.bytes_done, 5000u);
}

TEST_P(FileSystemTest, UnalignedRequestsAreRefusedEachForItself) {
  const auto file = Create("a");
  const IoBuffer buffer = Pattern(8192, 1);
  IoRequest writes[] = {IoRequest::Write(*file, 100, buffer.bytes()),
                        IoRequest::Write(*file, 0, buffer.bytes().first(100)),
                        IoRequest::Write(*file, 0, buffer.bytes().subspan(1, 4096)),
                        IoRequest::Write(*file, 0, buffer.bytes())};
  files_->Submit(writes);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(writes[i].status.code(), absl::StatusCode::kInvalidArgument) << i;
  }
  EXPECT_TRUE(writes[3].status.ok());
}

TEST_P(FileSystemTest, AllocatedSpaceReadsAsZeroAlsoAfterTruncation) {
  const auto file = Create("a");
  ASSERT_TRUE(Do(IoRequest::Write(*file, 0, Pattern(8192, 1).bytes())).ok());
  ASSERT_TRUE(file->Truncate(4096).ok());
  ASSERT_TRUE(file->Allocate(1 << 20).ok());
  EXPECT_EQ(*file->Size(), 1u << 20);
  ASSERT_TRUE(file->Allocate(8192).ok());  // never shrinks
  EXPECT_EQ(*file->Size(), 1u << 20);
  IoBuffer buffer = Pattern(8192, 2);
  ASSERT_TRUE(Do(IoRequest::Read(*file, 4096, buffer.bytes())).ok());
  EXPECT_TRUE(std::all_of(buffer.bytes().begin(), buffer.bytes().end(),
                          [](uint8_t byte) { return byte == 0; }));
}

TEST_P(FileSystemTest, NamesAreMadeListedRenamedAndRemoved) {
  Create("b");
  Create("a");
  EXPECT_EQ(files_->Open(folder_ + "/a", OpenMode::kCreate).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(files_->Open(folder_ + "/c", OpenMode::kReadWrite).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_TRUE(files_->Open(folder_ + "/a", OpenMode::kReadOnly).ok());
  ASSERT_TRUE(files_->MakeDirectory(folder_ + "/d").ok());
  ASSERT_TRUE(files_->MakeDirectory(folder_ + "/d").ok());
  EXPECT_THAT(*files_->List(folder_), ElementsAre("a", "b", "d"));
  ASSERT_TRUE(files_->Rename(folder_ + "/a", folder_ + "/b").ok());
  ASSERT_TRUE(files_->SyncDirectory(folder_).ok());
  EXPECT_THAT(*files_->List(folder_), ElementsAre("b", "d"));
  EXPECT_FALSE(*files_->Exists(folder_ + "/a"));
  EXPECT_TRUE(*files_->Exists(folder_ + "/d"));
  ASSERT_TRUE(files_->Unlink(folder_ + "/b").ok());
  EXPECT_EQ(files_->Unlink(folder_ + "/b").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(files_->List(folder_ + "/none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_GT(*files_->FreeBytes(folder_), 0u);
}

TEST_P(FileSystemTest, ALockIsHeldByOne) {
  auto first = files_->Lock(folder_ + "/LOCK");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = files_->Lock(folder_ + "/LOCK");
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("process " + std::to_string(::getpid())));
  first->reset();
  EXPECT_TRUE(files_->Lock(folder_ + "/LOCK").ok());
}

TEST_P(FileSystemTest, AnUnlinkedFileStaysReadableWhileOpen) {
  const auto file = Create("a");
  ASSERT_TRUE(Do(IoRequest::Write(*file, 0, Pattern(4096, 1).bytes())).ok());
  ASSERT_TRUE(files_->Unlink(file->path()).ok());
  IoBuffer buffer(4096);
  EXPECT_TRUE(Do(IoRequest::Read(*file, 0, buffer.bytes())).ok());
}

TEST_P(FileSystemTest, EachRequestIsToldOfOnceWhenItsBytesAreThere) {
  // More pieces than a ring has in flight, of sizes that end within a piece.
  constexpr uint64_t kSizes[] = {4096, 450'560, 647'168, 3 << 20, 65'536, 15 << 20};
  const auto file = Create("a");
  std::vector<IoBuffer> written, read;
  std::vector<IoRequest> writes, reads;
  uint64_t at = 0;
  for (const uint64_t size : kSizes) {
    written.push_back(Pattern(size, size));
    read.emplace_back(size);
    writes.push_back(IoRequest::Write(*file, at, written.back().bytes()));
    reads.push_back(IoRequest::Read(*file, at, read.back().bytes()));
    at += size;
  }
  reads.push_back(IoRequest::Read(*file, 1, read[0].bytes()));           // not aligned
  reads.push_back(IoRequest::Read(*file, 0, read[0].bytes().first(0)));  // nothing
  std::vector<int> told(reads.size());
  files_->Submit(writes, [&](IoRequest& request) { ++told[&request - writes.data()]; });
  EXPECT_THAT(told, ElementsAre(1, 1, 1, 1, 1, 1, 0, 0));
  told.assign(reads.size(), 0);
  files_->Submit(reads, [&](IoRequest& request) {
    const size_t i = static_cast<size_t>(&request - reads.data());
    ++told[i];
    if (i >= std::size(kSizes)) return;
    EXPECT_TRUE(request.status.ok()) << request.status;
    EXPECT_EQ(request.bytes_done, kSizes[i]);
    EXPECT_TRUE(
        std::equal(written[i].bytes().begin(), written[i].bytes().end(), read[i].bytes().begin()))
        << i;
  });
  EXPECT_THAT(told, ElementsAre(1, 1, 1, 1, 1, 1, 1, 1));
  EXPECT_EQ(reads[6].status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(FileSystemTest, TwoPlacesInMemoryAreOneStretchOfTheFile) {
  const auto file = Create("a");
  const IoBuffer first = Pattern(12'288, 1), second = Pattern(647'168, 2);
  ASSERT_TRUE(Do(IoRequest::Write(*file, 4096, first.bytes(), second.bytes())).ok());
  const uint64_t bytes = first.bytes().size() + second.bytes().size();
  IoBuffer whole(bytes);
  ASSERT_TRUE(Do(IoRequest::Read(*file, 4096, whole.bytes())).ok());
  const auto second_at = whole.bytes().begin() + static_cast<ptrdiff_t>(first.bytes().size());
  EXPECT_TRUE(std::equal(first.bytes().begin(), first.bytes().end(), whole.bytes().begin()));
  EXPECT_TRUE(std::equal(second.bytes().begin(), second.bytes().end(), second_at));
  // Cut elsewhere, and beyond the end of the file.
  IoBuffer one(300 * 4096), two(8192);
  IoRequest read = IoRequest::Read(*file, 4096, two.bytes(), one.bytes());
  files_->Submit({&read, 1});
  ASSERT_TRUE(read.cut_short());
  EXPECT_EQ(read.bytes_done, bytes);
  EXPECT_TRUE(std::equal(two.bytes().begin(), two.bytes().end(), whole.bytes().begin()));
  EXPECT_TRUE(std::equal(whole.bytes().begin() + 8192, whole.bytes().end(), one.bytes().begin()));
}

TEST_P(FileSystemTest, WritesSideBySideAreEachCheckedAndToldOf) {
  const auto file = Create("a");
  constexpr uint64_t kBody = 400 << 10, kStride = kBody + kIoAlignment;
  constexpr uint64_t kCount = 7, kDamaged = 3;
  std::vector<IoBuffer> heads, bodies;
  std::vector<std::vector<EntryPart>> parts;
  std::vector<IoRequest> writes;
  for (uint64_t i = 0; i < kCount; ++i) {
    heads.push_back(Pattern(kIoAlignment, i));
    bodies.push_back(Pattern(kBody, 50 + i));
    parts.push_back({{kBody, Checksum(bodies[i].bytes())}});
    if (i == kDamaged) bodies[i].bytes()[kBody / 2] ^= 1;
    writes.push_back(IoRequest::Write(*file, i * kStride, heads[i].bytes(), bodies[i].bytes()));
  }
  for (uint64_t i = 0; i < kCount; ++i) writes[i].parts = parts[i];
  std::vector<int> told(kCount);
  files_->Submit(writes, [&](IoRequest& write) { ++told[&write - writes.data()]; });
  EXPECT_EQ(told, std::vector<int>(kCount, 1));
  IoBuffer back(kCount * kStride);
  IoRequest read = IoRequest::Read(*file, 0, back.bytes());
  files_->Submit({&read, 1});
  ASSERT_TRUE(read.status.ok()) << read.status;
  for (uint64_t i = 0; i < kCount; ++i) {
    SCOPED_TRACE(i);
    EXPECT_TRUE(writes[i].status.ok()) << writes[i].status;
    const PartsSeen wrong = i == kDamaged ? PartsSeen::kMatch : PartsSeen::kDiffer;
    EXPECT_NE(writes[i].parts_seen, wrong);
    const auto there = back.bytes().subspan(i * kStride, kStride);
    EXPECT_TRUE(std::ranges::equal(there.first(kIoAlignment), heads[i].bytes()));
    EXPECT_TRUE(std::ranges::equal(there.subspan(kIoAlignment), bodies[i].bytes()));
  }
}

TEST_P(FileSystemTest, WhoIsToldOfARequestMaySubmitAnother) {
  const auto file = Create("a");
  const IoBuffer written = Pattern(1 << 20, 3);
  IoBuffer read(1 << 20);
  IoRequest write = IoRequest::Write(*file, 0, written.bytes());
  IoRequest again = IoRequest::Read(*file, 0, read.bytes());
  files_->Submit({&write, 1}, [&](IoRequest&) { files_->Submit({&again, 1}); });
  EXPECT_EQ(again.bytes_done, read.bytes().size());
  EXPECT_TRUE(std::equal(written.bytes().begin(), written.bytes().end(), read.bytes().begin()));
}

TEST_P(FileSystemTest, ThreadsSubmitSideBySide) {
  const auto file = Create("a");
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t round = 0; round < 20; ++round) {
        const uint64_t offset = (t * 20 + round) * 8192;
        const IoBuffer written = Pattern(8192, offset);
        IoBuffer read(8192);
        EXPECT_TRUE(Do(IoRequest::Write(*file, offset, written.bytes())).ok());
        EXPECT_TRUE(Do(IoRequest::Read(*file, offset, read.bytes())).ok());
        EXPECT_TRUE(
            std::equal(written.bytes().begin(), written.bytes().end(), read.bytes().begin()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(UringFileSystemTest, FallsBackWhereDirectIoIsRefused) {
  std::error_code error;
  if (!std::filesystem::is_directory("/dev/shm", error)) GTEST_SKIP() << "no tmpfs";
  std::string folder = "/dev/shm/cairn_files_XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) GTEST_SKIP() << "no room in /dev/shm";
  UringFileSystem files;
  {
    auto file = files.Open(folder + "/a", OpenMode::kCreate);
    ASSERT_TRUE(file.ok()) << file.status();
    const IoBuffer written = Pattern(8192, 1);
    IoRequest write = IoRequest::Write(**file, 0, written.bytes());
    files.Submit({&write, 1});
    EXPECT_TRUE(write.status.ok()) << write.status;
  }
  std::filesystem::remove_all(folder, error);
}

// ---- the test doubles are tested too: a kind crash would prove nothing ----

TEST(MemoryFileSystemTest, ACrashKeepsWhatWasSyncedAndTearsTheRest) {
  int torn = 0;
  int lost_files = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    MemoryFileSystem files;
    ASSERT_TRUE(files.MakeDirectory("/d").ok());
    auto file = *files.Open("/d/synced", OpenMode::kCreate);
    const IoBuffer before = Pattern(8192, 1);
    IoBuffer after(8192);
    std::fill(after.bytes().begin(), after.bytes().end(), uint8_t{0xee});
    IoRequest write = IoRequest::Write(*file, 0, before.bytes());
    files.Submit({&write, 1});
    ASSERT_TRUE(file->Sync().ok());
    ASSERT_TRUE(files.SyncDirectory("/d").ok());
    ASSERT_TRUE(files.Open("/d/unsynced", OpenMode::kCreate).ok());
    write = IoRequest::Write(*file, 4096, after.bytes().first(4096));
    files.Submit({&write, 1});
    SeededRandom random(seed);
    files.Crash(random);
    EXPECT_EQ(file->Sync().code(), absl::StatusCode::kUnavailable);
    lost_files += *files.Exists("/d/unsynced") ? 0 : 1;
    auto again = files.Open("/d/synced", OpenMode::kReadOnly);
    ASSERT_TRUE(again.ok());
    IoBuffer found(8192);
    IoRequest read = IoRequest::Read(**again, 0, found.bytes());
    files.Submit({&read, 1});
    EXPECT_TRUE(
        std::equal(found.bytes().begin(), found.bytes().begin() + 4096, before.bytes().begin()));
    int fresh = 0;
    for (uint64_t sector = 4096; sector < 8192; sector += 512) {
      const bool is_new = found.bytes()[sector] == 0xee;
      fresh += is_new ? 1 : 0;
      EXPECT_TRUE(
          std::equal(found.bytes().begin() + static_cast<ptrdiff_t>(sector),
                     found.bytes().begin() + static_cast<ptrdiff_t>(sector) + 512,
                     (is_new ? after : before).bytes().begin() + static_cast<ptrdiff_t>(sector)));
    }
    torn += fresh > 0 && fresh < 8 ? 1 : 0;
  }
  EXPECT_GT(torn, 20);
  EXPECT_GT(lost_files, 5);
  EXPECT_LT(lost_files, 35);
}

TEST(FaultyFileSystemTest, FailsWhereItIsToldTo) {
  MemoryFileSystem memory;
  FaultyFileSystem files(memory);
  ASSERT_TRUE(files.MakeDirectory("/d").ok());
  files.SetPlan({.fail_at = 2, .status = absl::UnavailableError("EIO")});
  auto file = files.Open("/d/a", OpenMode::kCreate);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->Sync().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE((*file)->Sync().ok());
  const IoBuffer written = Pattern(8192, 1);
  files.SetPlan({.write_bytes_max = 10'000});
  IoRequest writes[] = {IoRequest::Write(**file, 0, written.bytes()),
                        IoRequest::Write(**file, 8192, written.bytes()),
                        IoRequest::Write(**file, 4096, written.bytes().first(4096))};
  files.Submit(writes);
  EXPECT_TRUE(writes[0].status.ok());
  EXPECT_EQ(writes[1].status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(writes[2].status.ok());  // overwrites take no room
  files.SetPlan({.flip_read_at = 1});
  IoBuffer read(8192);
  IoRequest reads[] = {IoRequest::Read(**file, 0, read.bytes().first(4096))};
  files.Submit(reads);
  EXPECT_FALSE(
      std::equal(written.bytes().begin(), written.bytes().begin() + 4096, read.bytes().begin()));
}

}  // namespace
}  // namespace cairn::store
