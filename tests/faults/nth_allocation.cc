// nth_allocation: the n-th allocation fails.
//
// Goal: a process without memory ends at once, by its own decision, and loses nothing that was
// acknowledged; it never goes on with half a change. Memory for the arena is refused by a status.
//
// Method: a child puts, erases and reclaims in a store of real files, with operator new and
// aligned_alloc of this program failing at the n-th call; what it was told it writes down in memory
// shared with its parent. The parent expects a clean end (or SIGABRT, of which the child said why),
// then opens the store without its catalog, which was the child's, and reads every acknowledged
// entry.
//
// A case is one n; --stride spreads few cases over all of a child's allocations.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <new>

#include "store/base/out_of_memory.h"
#include "store/device/uring_file_system.h"
#include "store/tier/host_tier.h"
#include "store/tier/tier_test_util.h"
#include "tests/faults/campaign.h"

namespace cairn::faults {
namespace {

uint64_t fail_at = 0;  // 0: never
uint64_t allocations = 0;
bool no_mappings = false;

bool Fails() { return fail_at != 0 && ++allocations == fail_at; }

void* Allocate(size_t bytes) {
  while (true) {
    void* const memory = Fails() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
    if (memory != nullptr) return memory;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) std::_Exit(2);  // where others would throw
    handler();
  }
}

constexpr uint64_t kNumbers = 40;

// What the child was told, for whoever outlives it.
struct Told {
  bool durable[kNumbers];
  bool done;
};

store::TestEntry EntryOf(uint64_t number) { return store::MakeEntry(number, {5000, 3000}); }

absl::StatusOr<std::unique_ptr<store::DiskTier>> Open(const std::string& folder,
                                                      store::FileSystem& files, FakeClock& clock,
                                                      Random& random) {
  store::RecoveryReport report;
  return store::DiskTier::Open({.directory = folder + "/data",
                                .capacity_bytes = 1 << 20,
                                .segment_bytes = 64 << 10,
                                .random = &random},
                               files, std::make_unique<store::MemoryCatalog>(), clock, &report);
}

void Work(const std::string& folder, Told& told) {
  EndWhenOutOfMemory();
  store::UringFileSystem files({.use_uring = false, .use_direct = false});
  FakeClock clock;
  SeededRandom random(7);
  auto tier = Open(folder, files, clock, random);
  if (!tier.ok()) return;
  for (uint64_t number = 0; number < kNumbers; ++number) {
    const store::TestEntry entry = EntryOf(number);
    if ((*tier)->Put({{entry.put()}}).ok()) told.durable[number] = true;
    if (number % 4 == 3) {
      const EntryKey key = store::TestKey(number - 2);
      told.durable[number - 2] = false;
      (*tier)->Erase({&key, 1}).IgnoreError();
    }
    if (number % 16 == 15) (*tier)->Reclaim(500'000).IgnoreError();
  }
  told.done = true;
}

void Check(const std::string& folder, const Told& told, Counts& counts) {
  store::UringFileSystem files({.use_uring = false, .use_direct = false});
  FakeClock clock;
  SeededRandom random(8);
  const auto tier = Open(folder, files, clock, random);
  Expect(tier.ok(), "after it, open answers " + tier.status().ToString());
  for (uint64_t number = 0; number < kNumbers; ++number) {
    if (!told.durable[number]) continue;
    const store::TestEntry expected = EntryOf(number);
    store::IoBuffer buffer(expected.meta.payload_bytes());
    store::DiskRead read{
        .key = expected.meta.key, .destination = buffer.bytes(), .status = {}, .meta = {}};
    (*tier)->ReadBatch({&read, 1}, store::RecordCheck::kWhole);
    Expect(read.status.ok(), absl::StrCat("P2: entry ", number, ": ", read.status.ToString()));
    const std::span<const uint8_t> bytes = expected.payload.bytes().first(8000);
    Expect(std::equal(bytes.begin(), bytes.end(), buffer.bytes().begin()), "P1: wrong bytes");
    ++counts["acknowledged_checked"];
  }
}

void ArenaIsRefused() {
  no_mappings = true;
  const auto host =
      store::HostTier::Create({.capacity_bytes = 1 << 20, .memory = store::ArenaMemory::kAtUse});
  no_mappings = false;
  Expect(absl::IsResourceExhausted(host.status()),
         "an arena without memory answers " + host.status().ToString());
}

void OneCase(uint64_t n, Counts& counts) {
  ArenaIsRefused();
  char name[] = "/tmp/cairn-nth-allocation-XXXXXX";
  Expect(::mkdtemp(name) != nullptr, "no temporary folder");
  const std::string folder = name;
  void* const shared =
      ::mmap(nullptr, sizeof(Told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  Expect(shared != MAP_FAILED, "no shared memory");
  auto* const told = new (shared) Told{};
  const pid_t child = ::fork();
  if (child == 0) {
    allocations = 0;
    fail_at = n;
    ::close(STDERR_FILENO);  // what it says there is of no use to a campaign
    Work(folder, *told);
    std::_Exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  const bool ended = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  Expect(told->done || ended, absl::StrCat("allocation ", n, ": it ended with status ", status));
  ++counts[ended ? "ended" : "past_the_last"];
  Check(folder, *told, counts);
  ::munmap(shared, sizeof(Told));
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

}  // namespace
}  // namespace cairn::faults

void* operator new(size_t bytes) { return cairn::faults::Allocate(bytes); }
void* operator new[](size_t bytes) { return cairn::faults::Allocate(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

extern "C" {

void* aligned_alloc(size_t alignment, size_t bytes) noexcept {
  void* memory = nullptr;
  if (cairn::faults::Fails() || ::posix_memalign(&memory, alignment, bytes) != 0) return nullptr;
  return memory;
}

int memfd_create(const char* name, unsigned flags) noexcept {
  if (!cairn::faults::no_mappings)
    return static_cast<int>(::syscall(SYS_memfd_create, name, flags));
  errno = ENOMEM;
  return -1;
}

}  // extern "C"

int main(int argc, char** argv) {
  cairn::faults::Campaign campaign("nth_allocation", 200);
  uint64_t stride = 10;
  campaign.app().add_option("--stride", stride, "case i fails allocation 1 + (i - 1) * stride");
  return campaign.Run(argc, argv, [&](uint64_t seed, cairn::faults::Counts& counts) {
    cairn::faults::OneCase(1 + (seed - 1) * stride, counts);
  });
}
