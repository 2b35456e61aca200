// Goal: memory is taken whole, without changing what is in it, and what cannot be taken is said.
#include "store/device/prefault.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace cairn::store {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kPages = 64;

class PrefaultTest : public ::testing::Test {
 protected:
  PrefaultTest()
      : data_(static_cast<uint8_t*>(::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
  ~PrefaultTest() override { ::munmap(data_, kPages * kPage); }

  // Every page from now on lies behind the end of a file: the range stays taken (an unmapped one
  // could become another thread's stack), and the kernel has nothing to put there.
  void TakeAway() {
    const int file = ::memfd_create("empty", MFD_CLOEXEC);
    ASSERT_EQ(
        ::mmap(data_, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0),
        data_);
    ::close(file);
  }

  std::span<uint8_t> memory() const { return {data_, kPages * kPage}; }
  size_t ResidentPages() const {
    unsigned char pages[kPages];
    EXPECT_EQ(::mincore(data_, kPages * kPage, pages), 0);
    return static_cast<size_t>(std::count_if(std::begin(pages), std::end(pages),
                                             [](unsigned char page) { return (page & 1) != 0; }));
  }

 private:
  uint8_t* const data_;
};

TEST_F(PrefaultTest, EveryPageIsThereAndWhatIsWrittenStays) {
  ASSERT_EQ(ResidentPages(), 0u);
  memory()[5 * kPage] = 7;
  for (const unsigned threads : {0u, 3u}) {
    Prefault prefault(memory(), {.threads = threads, .chunk_bytes = 3 * kPage});
    EXPECT_TRUE(prefault.Finish().ok());
    EXPECT_EQ(prefault.touched_bytes(), memory().size());
  }
  EXPECT_EQ(ResidentPages(), kPages);
  EXPECT_EQ(memory()[5 * kPage], 7);
}

TEST_F(PrefaultTest, EndsEarly) {
  { const Prefault unfinished(memory(), {.threads = 0, .chunk_bytes = kPage}); }
  EXPECT_EQ(ResidentPages(), 0u);
}

TEST_F(PrefaultTest, MemoryThatIsNotThereIsSaidOnce) {
  TakeAway();
  int told = 0;
  Prefault prefault(memory(),
                    {.threads = 4, .chunk_bytes = kPage, .failed = [&](const absl::Status& status) {
                       EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
                       ++told;
                     }});
  EXPECT_EQ(prefault.Finish().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(told, 1);
  EXPECT_EQ(prefault.touched_bytes(), 0u);
}

}  // namespace
}  // namespace cairn::store
