// power_cuts: a store that loses power again and again.
//
// Goal: what was acknowledged is there afterwards and reads as it was put; what was not is whole or
// absent; nothing that was never put appears; the capacity holds; and the store goes on.
//
// Method: random puts, erasures, reads and reclaims in a small store of small segments; at a random
// operation of the disk or the catalog the power goes, that write torn; then what was not synced is
// lost. Then again, perhaps while it recovers.
//
// Fault contract: of what no sync followed, each 512 B sector, each file's size, a prefix of each
// folder's changes and a prefix of the catalog's batches is kept or lost by the toss of the seed.
#include <map>

#include "store/base/limits.h"
#include "store/tier/tier_test_util.h"
#include "tests/faults/campaign.h"

namespace cairn::faults {
namespace {

using store::DiskTier;
using store::MakeEntry;
using store::TestEntry;

constexpr uint64_t kNumbers = 24;
constexpr uint64_t kLives = 4;
constexpr uint64_t kOperationsMax = 60;
constexpr uint64_t kCutWithin = 150;                     // operations of the disk
constexpr uint64_t kOtherFilesBytes = 2 * kIoAlignment;  // FORMAT, twice while it is replaced

enum class Told : uint8_t { kNothing, kMaybe, kDurable };

class Run {
 public:
  Run(uint64_t seed, Counts& counts) : random_(seed), counts_(counts) {
    disk_.capacity_bytes = (12 + Pick(12)) * (64 << 10);
    disk_.segment_bytes = 128 << 10;
    overlapping_ = seed % 2 == 1;
  }

  void All() {
    for (uint64_t life = 0; life < kLives; ++life) Life();
    disk_.files.SetPlan({});
    std::unique_ptr<DiskTier> tier = MustOpen();
    Check(*tier);
    counts_["acknowledged_checked"] += checked_;
  }

 private:
  uint64_t Pick(uint64_t of) { return random_.Next() % of; }

  void PlanCut() {
    disk_.files.SetPlan({.fail_at = 1 + Pick(kCutWithin),
                         .status = absl::UnavailableError("the power is off"),
                         .fail_for_ever = true,
                         .tear_failed_write = true});
    disk_.catalog->SetFault([this] { return disk_.files.CountOperation(); });
  }
  void Cut() {
    ++counts_["cuts"];
    disk_.memory.Crash(random_);
    disk_.catalog->Crash(random_);
    disk_.files.SetPlan({});
    disk_.catalog->SetFault(nullptr);
  }

  void Life() {
    // While it starts, first.
    while (Pick(3) == 0) {
      PlanCut();
      const absl::StatusOr<std::unique_ptr<DiskTier>> tier = disk_.TryOpen();
      if (tier.ok()) (*tier)->Survey(nullptr).IgnoreError();
      ++counts_["cuts_while_starting"];
      Cut();
    }
    std::unique_ptr<DiskTier> tier = MustOpen();
    Check(*tier);
    PlanCut();
    for (uint64_t i = Pick(kOperationsMax); i > 0; --i) {
      Operate(*tier);
      CheckCapacity();
    }
    // At the cut, not after the tier is gone: what it does on its way out goes nowhere.
    disk_.files.SetPlan(
        {.fail_at = 1, .status = absl::UnavailableError("off"), .fail_for_ever = true});
    tier.reset();
    Cut();
  }

  std::unique_ptr<DiskTier> MustOpen() {
    absl::StatusOr<std::unique_ptr<DiskTier>> tier = disk_.TryOpen();
    Expect(tier.ok(), "open answers " + tier.status().ToString());
    Expect(!disk_.report.catalog_rebuilt,
           "a power cut cost the catalog: " + disk_.report.catalog_trouble);
    Expect(disk_.report.damaged_segments == 0, "a power cut left a damaged segment");
    counts_["adopted"] += disk_.report.adopted_entries;
    const absl::Status surveyed = (*tier)->Survey(nullptr);
    Expect(surveyed.ok(), "survey answers " + surveyed.ToString());
    return *std::move(tier);
  }

  void Operate(DiskTier& tier) {
    switch (Pick(6)) {
      case 0:
        Erase(tier);
        break;
      case 1:
        tier.Reclaim(Pick(200'000)).IgnoreError();
        break;
      case 2:
        Read(tier, Pick(kNumbers)).IgnoreError();
        break;
      default:
        Put(tier);
        break;
    }
  }

  TestEntry EntryOf(uint64_t number) const {
    return MakeEntry(number, {static_cast<uint32_t>(1 + number * 997 % 20'000), 3000});
  }

  struct Batch {
    std::vector<uint64_t> numbers;
    std::vector<TestEntry> entries;
    std::vector<store::DiskPut> puts() const {
      std::vector<store::DiskPut> all;
      for (const TestEntry& entry : entries) all.push_back(entry.put());
      return all;
    }
  };

  // Of numbers that are `rest` modulo `step`.
  Batch MakeBatch(uint64_t step, uint64_t rest) {
    Batch batch;
    for (uint64_t i = 1 + Pick(4); i > 0; --i) {
      const uint64_t number = Pick(kNumbers / step) * step + rest;
      batch.numbers.push_back(number);
      batch.entries.push_back(EntryOf(number));
      if (told_[number] == Told::kNothing) told_[number] = Told::kMaybe;
    }
    return batch;
  }

  void Answered(const Batch& batch, const absl::Status& status) {
    Expect(status.ok() || absl::IsUnavailable(status) || absl::IsResourceExhausted(status),
           "put answers " + status.ToString());
    if (!status.ok()) return;
    ++counts_["acknowledged"];
    for (const uint64_t number : batch.numbers) told_[number] = Told::kDurable;
  }

  void Put(DiskTier& tier) {
    if (overlapping_) return PutOverlapping(tier);
    const Batch batch = MakeBatch(1, 0);
    Answered(batch, tier.Put(batch.puts()));
  }

  // As the cache writes: the second is on disk before the first is made durable and found.
  void PutOverlapping(DiskTier& tier) {
    const Batch one = MakeBatch(2, 0), two = MakeBatch(2, 1);
    absl::StatusOr<DiskTier::Pending> first = tier.Prepare(one.puts());
    absl::Status status = first.status();
    if (status.ok()) status = tier.Write(*first);
    if (!status.ok()) return Answered(one, status);
    absl::StatusOr<DiskTier::Pending> second = tier.Prepare(two.puts());
    if (second.ok()) status = tier.Write(*second);
    Answered(one, tier.Publish(*first));
    if (!second.ok()) return Answered(two, second.status());
    if (!status.ok()) return Answered(two, status);
    ++counts_["overlapping"];
    Answered(two, tier.Publish(*second));
  }

  void Erase(DiskTier& tier) {
    std::vector<EntryKey> keys;
    for (uint64_t i = 1 + Pick(8); i > 0; --i) {
      const uint64_t number = Pick(kNumbers);
      keys.push_back(store::TestKey(number));
      if (told_[number] == Told::kDurable) told_[number] = Told::kMaybe;
    }
    tier.Erase(keys).IgnoreError();
  }

  absl::Status Read(DiskTier& tier, uint64_t number) {
    const TestEntry expected = EntryOf(number);
    store::IoBuffer buffer(expected.meta.payload_bytes());
    store::DiskRead read{
        .key = expected.meta.key, .destination = buffer.bytes(), .status = {}, .meta = {}};
    tier.ReadBatch({&read, 1}, store::RecordCheck::kWhole);
    if (!read.status.ok()) return read.status;
    Expect(told_[number] != Told::kNothing, "P1: an entry that nobody put");
    const std::span<const uint8_t> bytes = expected.payload.bytes();
    Expect(std::equal(bytes.begin(), bytes.end(), buffer.bytes().begin()), "P1: wrong bytes");
    return absl::OkStatus();
  }

  void CheckCapacity() const {
    const uint64_t used = disk_.memory.UsedBytes();
    Expect(used <= disk_.capacity_bytes + kOtherFilesBytes, "P7: over capacity");
  }

  void Check(DiskTier& tier) {
    CheckCapacity();
    for (uint64_t number = 0; number < kNumbers; ++number) {
      const absl::Status status = Read(tier, number);
      if (told_[number] == Told::kDurable) {
        Expect(status.ok(), absl::StrCat("P2: entry ", number, " is lost: ", status.ToString()));
        ++checked_;
      } else {
        Expect(status.ok() || absl::IsNotFound(status),
               absl::StrCat("entry ", number, " is neither whole nor absent: ", status.ToString()));
      }
    }
    Expect(tier.stats().checksum_failures == 0, "a power cut left damage that can be found");
  }

  SeededRandom random_;
  Counts& counts_;
  store::TestDisk disk_;
  bool overlapping_ = false;  // puts
  std::map<uint64_t, Told> told_;
  uint64_t checked_ = 0;
};

}  // namespace
}  // namespace cairn::faults

int main(int argc, char** argv) {
  cairn::faults::Campaign campaign("power_cuts", 200);
  return campaign.Run(argc, argv, [](uint64_t seed, cairn::faults::Counts& counts) {
    cairn::faults::Run(seed, counts).All();
  });
}
