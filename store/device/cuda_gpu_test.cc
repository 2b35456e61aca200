// Goal: the real GPU does what the fake one says it does: copies, marks, gathers of any alignment,
// and memory that another process may read, may not write, and may die with. Skipped, saying why,
// where there is no GPU.
//
// The other process is this program again (see main): CUDA does not survive a fork.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "store/base/checksum.h"
#include "store/base/random.h"
#include "store/device/background_pin.h"
#include "store/device/file_system.h"
#include "store/device/gpu_memory.h"
#include "store/device/gpu_restore.h"
#include "store/device/shared_memory.h"

namespace cairn::store {
namespace {

constexpr char kReader[] = "--read-a-region-as-another-process";
constexpr int kReaderSocket = 100;
constexpr uint64_t kRegionBytes = 4 << 20;

std::vector<uint8_t> RandomBytes(uint64_t bytes, uint64_t seed) {
  SeededRandom random(seed);
  std::vector<uint8_t> out(bytes);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(random.Next() >> 20);
  return out;
}

class CudaGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto gpu = OpenGpu();
    if (absl::IsUnavailable(gpu.status())) GTEST_SKIP() << gpu.status().message();
    ASSERT_TRUE(gpu.ok()) << gpu.status();
    gpu_ = *std::move(gpu);
    host_ = IoBuffer(kRegionBytes);
    pinned_ = *gpu_->Pin(host_.bytes(), PinnedUse::kReadWrite);
    region_ = *gpu_->Allocate(kRegionBytes, GpuSharing::kPrivate);
    stream_ = *gpu_->NewStream();
  }
  void Up(const std::vector<uint8_t>& bytes, GpuRegion& region) {
    std::copy(bytes.begin(), bytes.end(), host_.bytes().begin());
    ASSERT_TRUE(stream_->Copy(host_.bytes().data(), region.data(), bytes.size()).ok());
    Finish();
  }
  std::vector<uint8_t> Down(const GpuRegion& region, uint64_t bytes) {
    std::fill(host_.bytes().begin(), host_.bytes().end(), uint8_t{0x99});
    EXPECT_TRUE(stream_->Copy(region.data(), host_.bytes().data(), bytes).ok());
    Finish();
    const auto begin = host_.bytes().begin();
    return {begin, begin + static_cast<ptrdiff_t>(bytes)};
  }
  void Finish() {
    const auto mark = stream_->Mark();
    ASSERT_TRUE(mark.ok()) << mark.status();
    const absl::Status waited = stream_->Wait(*mark);
    ASSERT_TRUE(waited.ok()) << waited;
    EXPECT_EQ(*stream_->Reached(), *mark);
  }

  std::unique_ptr<Gpu> gpu_;
  IoBuffer host_;
  std::unique_ptr<Gpu::Pinned> pinned_;
  std::unique_ptr<GpuRegion> region_;
  std::unique_ptr<GpuStream> stream_;
};

TEST_F(CudaGpuTest, CopiesUpZeroesAndCopiesDown) {
  std::vector<uint8_t> bytes = RandomBytes(1'000'003, 1);
  Up(bytes, *region_);
  ASSERT_TRUE(stream_->Zero(region_->data() + 501, 77).ok());
  std::fill_n(bytes.begin() + 501, 77, uint8_t{0});
  EXPECT_EQ(Down(*region_, bytes.size()), bytes);
}

TEST_F(CudaGpuTest, MoreMemoryThanThereIsIsRefused) {
  for (const GpuSharing sharing : {GpuSharing::kPrivate, GpuSharing::kExportable}) {
    EXPECT_EQ(gpu_->Allocate(1ull << 50, sharing).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
  EXPECT_TRUE(gpu_->Allocate(1 << 20, GpuSharing::kExportable).ok());
}

// Sizes and places that are multiples of 16, of 8, and of nothing; pieces shorter and longer than
// what a warp takes at once; strides with gaps, which must stay as they were.
TEST_F(CudaGpuTest, GathersAnyAlignmentFromTheGpuAndFromHostMemory) {
  struct Shape {
    uint32_t from, bytes, gap;
  };
  const std::vector<std::vector<Shape>> steps = {
      {{0, 18688, 0}, {18688, 2176, 0}, {20864, 16, 16}},
      {{20880, 584, 0}, {21464, 584, 8}, {22048, 8, 24}},
      {{22056, 2048, 16}, {24104, 2049, 15}, {26153, 1, 0}, {26154, 4097, 7}},
      {{1, 16, 0}, {3, 18685, 3}, {8, 4096, 8}}};
  constexpr uint64_t kEntry = 32768;
  constexpr uint32_t kEntries = 37;
  const std::vector<uint8_t> bytes = RandomBytes(kEntry * kEntries, 2);
  Up(bytes, *region_);
  const auto session = *gpu_->Allocate(kRegionBytes, GpuSharing::kPrivate);
  auto restore = GpuRestore::Create(*gpu_, kEntries);
  ASSERT_TRUE(restore.ok()) << restore.status();
  // The host memory is mapped read-only, as an engine maps the daemon's arena.
  const SharedMemory owned = *SharedMemory::Create("arena", {.bytes = bytes.size()});
  std::copy(bytes.begin(), bytes.end(), owned.writable().begin());
  const SharedMemory arena =
      *SharedMemory::MapReadOnly(FileDescriptor::Duplicate(owned.descriptor()), owned.size());
  // In pieces that entries lie across.
  const BackgroundPin pin(*gpu_, arena.bytes(), PinnedUse::kReadOnly, 37 * kIoAlignment);
  const absl::Status pinned = pin.WaitFor(absl::Seconds(60));
  ASSERT_TRUE(pinned.ok()) << pinned;
  for (const GatherFrom from : {GatherFrom::kDevice, GatherFrom::kHost}) {
    const uint8_t* const base =
        from == GatherFrom::kDevice ? region_->data() : arena.bytes().data();
    std::vector<uint64_t> offsets;
    std::vector<const uint8_t*> sources;
    for (uint64_t i = 0; i < kEntries; ++i) {
      offsets.push_back(i * 17 % kEntries * kEntry);
      sources.push_back(base + offsets.back());
    }
    std::vector<uint8_t> wanted(kRegionBytes, 0xee);
    Up(wanted, *session);
    std::vector<GpuGatherStep> parts;
    uint64_t at = 0;
    for (const std::vector<Shape>& step : steps) {
      parts.emplace_back();
      for (const Shape& shape : step) {
        // All but the first and the last.
        parts.back().parts.push_back({.first = 1,
                                      .count = kEntries - 2,
                                      .from = shape.from,
                                      .bytes = shape.bytes,
                                      .to = session->data() + at,
                                      .to_stride = shape.bytes + shape.gap});
        for (uint64_t i = 1; i + 1 < kEntries; ++i) {
          std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offsets[i] + shape.from), shape.bytes,
                      wanted.begin() + static_cast<ptrdiff_t>(at));
          at += shape.bytes + shape.gap;
        }
      }
    }
    ASSERT_LT(at, kRegionBytes);
    ASSERT_TRUE((*restore)->Begin(sources, parts, from).ok());
    ASSERT_TRUE((*restore)->Before(*stream_, parts.size() - 1).ok());
    const absl::Status waited = (*restore)->Wait();
    ASSERT_TRUE(waited.ok()) << waited;
    const std::vector<uint8_t> got = Down(*session, kRegionBytes);
    const auto different = std::mismatch(got.begin(), got.end(), wanted.begin());
    EXPECT_EQ(different.first, got.end())
        << "first at " << different.first - got.begin() << ", from "
        << (from == GatherFrom::kDevice ? "the GPU" : "host memory");
  }
}

// Of every kind of length that XXH3 knows, at every alignment; of two entries, side by side.
TEST_F(CudaGpuTest, ChecksumsAreThoseOfTheHost) {
  const std::vector<uint8_t> bytes = RandomBytes(400'000, 6);
  Up(bytes, *region_);
  const std::vector<uint64_t> begins = {0, 200'000};
  IoBuffer table(4096), sums(1 << 20);
  const auto table_pinned = *gpu_->Pin(table.bytes(), PinnedUse::kReadOnly);
  const auto sums_pinned = *gpu_->Pin(sums.bytes(), PinnedUse::kReadWrite);
  auto* const sources = reinterpret_cast<const uint8_t**>(table.bytes().data());
  auto* const out = reinterpret_cast<uint64_t*>(sums.bytes().data());
  for (size_t i = 0; i < begins.size(); ++i) sources[i] = region_->data() + begins[i];
  std::vector<GpuChecksumPart> all = {{0, 2, 0, 18'688},   {0, 2, 18'688, 74'752},
                                      {0, 2, 93'440, 584}, {1, 1, 94'024, 584},
                                      {0, 2, 3, 65'536},   {0, 2, 5, 65'537}};
  for (uint32_t length = 1; length <= 2100; ++length) all.push_back({0, 2, length * 7, length});
  for (size_t begin = 0; begin < all.size(); begin += kChecksumPartsMax) {
    const std::span<const GpuChecksumPart> parts =
        std::span(all).subspan(begin, std::min(kChecksumPartsMax, all.size() - begin));
    const absl::Status put = stream_->Checksums(sources, begins.size(), parts, out);
    ASSERT_TRUE(put.ok()) << put;
    Finish();
    const uint64_t* sum = out;
    for (const GpuChecksumPart& part : parts) {
      for (uint32_t i = part.first; i < part.first + part.count; ++i) {
        ASSERT_EQ(*sum++, Checksum(std::span(bytes).subspan(begins[i] + part.from, part.bytes)))
            << part.bytes << " bytes from " << part.from << " of source " << i;
      }
    }
  }
  const std::vector<GpuChecksumPart> beyond = {{1, 2, 0, 1}};
  EXPECT_EQ(stream_->Checksums(sources, 2, beyond, out).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaGpuTest, AStreamWaitsForAnothersMark) {
  const auto other = *gpu_->NewStream();
  const std::vector<uint8_t> bytes = RandomBytes(kRegionBytes, 3);
  std::copy(bytes.begin(), bytes.end(), host_.bytes().begin());
  const auto second = *gpu_->Allocate(kRegionBytes, GpuSharing::kPrivate);
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(other->Copy(host_.bytes().data(), region_->data(), kRegionBytes).ok());
    const auto mark = other->Mark();
    ASSERT_TRUE(mark.ok()) << mark.status();
    ASSERT_TRUE(stream_->WaitFor(*other, *mark).ok());
    ASSERT_TRUE(stream_->Copy(region_->data(), second->data(), kRegionBytes).ok());
    Finish();
    ASSERT_TRUE(other->Zero(region_->data(), kRegionBytes).ok());
  }
  EXPECT_EQ(stream_->WaitFor(*other, 1000).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Down(*second, kRegionBytes), bytes);
}

// ---- another process ----

void SendExport(int socket, const GpuExport& exported) {
  uint8_t message[sizeof(exported.handle) + sizeof(exported.bytes)];
  std::memcpy(message, exported.handle.data(), sizeof(exported.handle));
  std::memcpy(message + sizeof(exported.handle), &exported.bytes, sizeof(exported.bytes));
  iovec slice{message, sizeof(message)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &slice;
  header.msg_iovlen = 1;
  if (exported.descriptor.valid()) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    const int descriptor = exported.descriptor.get();
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof(descriptor));
  }
  ASSERT_EQ(::sendmsg(socket, &header, 0), static_cast<ssize_t>(sizeof(message)));
}

GpuExport ReceiveExport(int socket) {
  GpuExport exported;
  uint8_t message[sizeof(exported.handle) + sizeof(exported.bytes)] = {};
  iovec slice{message, sizeof(message)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &slice;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  if (::recvmsg(socket, &header, 0) != static_cast<ssize_t>(sizeof(message))) return exported;
  std::memcpy(exported.handle.data(), message, sizeof(exported.handle));
  std::memcpy(&exported.bytes, message + sizeof(exported.handle), sizeof(exported.bytes));
  if (const cmsghdr* const rights = CMSG_FIRSTHDR(&header); rights != nullptr) {
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(rights), sizeof(descriptor));
    exported.descriptor = FileDescriptor(descriptor);
  }
  return exported;
}

// What the other process tells: it could map the region, the first bytes of it, and whether writing
// there was refused.
struct Told {
  uint8_t mapped = 0;
  uint8_t write_refused = 0;
  uint8_t bytes[64] = {};
};

Told ReadRegion(Gpu& gpu, GpuExport exported) {
  Told told;
  const auto region = gpu.Import(std::move(exported));
  if (!region.ok()) {
    std::fprintf(stderr, "reader: %s\n", region.status().ToString().c_str());
    return told;
  }
  told.mapped = 1;
  IoBuffer buffer(4096);
  const auto pinned = *gpu.Pin(buffer.bytes(), PinnedUse::kReadWrite);
  const auto stream = *gpu.NewStream();
  const auto finish = [&] {
    const auto mark = stream->Mark();
    return mark.ok() ? stream->Wait(*mark) : mark.status();
  };
  if (!stream->Copy((*region)->data(), buffer.bytes().data(), sizeof(told.bytes)).ok() ||
      !finish().ok()) {
    return told;
  }
  std::memcpy(told.bytes, buffer.bytes().data(), sizeof(told.bytes));
  const absl::Status written = stream->Zero((*region)->data(), sizeof(told.bytes));
  told.write_refused = !written.ok() || !finish().ok();
  return told;
}

int Reader() {
  const auto gpu = OpenGpu();
  GpuExport exported = ReceiveExport(kReaderSocket);
  Told told;
  if (gpu.ok()) told = ReadRegion(**gpu, std::move(exported));
  if (::write(kReaderSocket, &told, sizeof(told)) != static_cast<ssize_t>(sizeof(told))) return 1;
  // Until it is killed, mapping and all.
  char never = 0;
  return ::read(kReaderSocket, &never, 1) == 0 ? 0 : 1;
}

class AnotherProcess : public CudaGpuTest {
 protected:
  // Exports a region, has another process read it, write to it and die with it.
  Told Share(Gpu& gpu) {
    const std::vector<uint8_t> bytes = RandomBytes(kRegionBytes, 4);
    auto region = *gpu.Allocate(kRegionBytes, GpuSharing::kExportable);
    Up(bytes, *region);
    int sockets[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    const pid_t reader = ::fork();
    if (reader == 0) {
      ::dup2(sockets[1], kReaderSocket);
      ::execl("/proc/self/exe", "reader", kReader, static_cast<char*>(nullptr));
      ::_exit(127);
    }
    ::close(sockets[1]);
    auto exported = region->Export();
    EXPECT_TRUE(exported.ok()) << exported.status();
    SendExport(sockets[0], *exported);
    Told told;
    EXPECT_EQ(::recv(sockets[0], &told, sizeof(told), MSG_WAITALL),
              static_cast<ssize_t>(sizeof(told)));
    ::kill(reader, SIGKILL);
    EXPECT_EQ(::waitpid(reader, nullptr, 0), reader);
    ::close(sockets[0]);
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.begin() + sizeof(told.bytes), told.bytes));
    if (told.write_refused) {
      EXPECT_EQ(Down(*region, kRegionBytes), bytes);
    }
    // Ours is whole: it takes other bytes and gives them.
    const std::vector<uint8_t> others = RandomBytes(kRegionBytes, 5);
    Up(others, *region);
    EXPECT_EQ(Down(*region, kRegionBytes), others);
    return told;
  }
};

TEST_F(AnotherProcess, MapsByDescriptorCannotWriteAndDiesAlone) {
  const Told told = Share(*gpu_);
  EXPECT_TRUE(told.mapped);
  EXPECT_TRUE(told.write_refused);
}

TEST_F(AnotherProcess, MapsByHandleWhereThereIsNoDescriptor) {
  const auto gpu = OpenGpu({.export_by_descriptor = false});
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  EXPECT_TRUE(Share(**gpu).mapped);
}

TEST_F(CudaGpuTest, AHandleThatIsNoneIsRefused) {
  GpuExport exported;
  exported.bytes = kRegionBytes;
  EXPECT_FALSE(gpu_->Import(std::move(exported)).ok());
  exported.descriptor = FileDescriptor(::dup(0));
  EXPECT_FALSE(gpu_->Import(std::move(exported)).ok());
}

}  // namespace

}  // namespace cairn::store

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == cairn::store::kReader) return cairn::store::Reader();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
