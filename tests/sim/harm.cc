#include "tests/sim/harm.h"

#include <algorithm>

#include "store/segment/record_format.h"
#include "store/segment/segment_set.h"

namespace cairn::sim {

using absl::StatusCode;
using faults::Expect;

namespace {

constexpr uint64_t kEventsMax = 120;
constexpr uint64_t kTurnsBetweenEventsMax = 60;
constexpr char kSegments[] = "/data/segments/";

uint8_t OneBit(World& world) { return static_cast<uint8_t>(1u << world.Pick(8)); }

// Of a record at rest, in its header or in its payload; its padding is nobody's.
void FlipBit(World& world) {
  const std::vector<EntryKey> keys = world.model().CataloguedKeys();
  if (keys.empty()) return;
  const EntryKey key = keys[world.Pick(keys.size())];
  if (world.model().IsFlipped(key)) return;  // the same bit twice is none
  const store::RecordLocation at = *world.model().LocationOf(key);
  const std::vector<uint8_t> payload = cache::PayloadOf(key);
  const uint64_t header = at.bytes - RoundUpToIo(payload.size());
  const uint64_t byte = world.OneIn(3) ? world.Pick(header) : header + world.Pick(payload.size());
  const std::string path = kSegments + store::SegmentSet::FileName(at.segment);
  // The file may have gone while the catalog still names it.
  if (!world.files().memory().FlipByte(path, at.offset + byte, OneBit(world)).ok()) return;
  world.model().Flipped(key);
  ++world.counts()["bits_flipped"];
  world.Note("a bit flips in " + NameOf(key));
}

void FlipCatalogBit(World& world) {
  const std::vector<EntryKey> keys = world.model().CataloguedKeys();
  if (keys.empty()) return;
  const EntryKey key = keys[world.Pick(keys.size())];
  if (!world.catalog_disk().FlipByte(key, world.Pick(60), OneBit(world))) return;
  world.model().Hurt(key);
  ++world.counts()["catalog_bits_flipped"];
  world.Note("a bit flips in the catalog's " + NameOf(key));
}

void JumpClocks(World& world) {
  ++world.counts()["clock_jumps"];
  world.clock().SetWall(absl::Hours(24) * (world.OneIn(2) ? 1 : -1));
  if (world.OneIn(2)) world.clock().Advance(absl::Minutes(world.Pick(2000)));
}

void FillDisk(World& world) {
  ++world.counts()["disk_filled"];
  store::MemoryFileSystem& memory = world.files().memory();
  memory.SetCapacity(memory.UsedBytes() + world.Pick(3) * kIoAlignment);
  for (uint64_t turns = world.Pick(300); turns > 0; --turns) world.fibers().Yield();
  memory.SetCapacity(UINT64_MAX);
}

Ending SomeEnding(World& world) {
  const Faults& active = world.settings().faults;
  const uint64_t toss = world.Pick(4);
  if (world.last_life()) return Ending::kStop;
  if (active.power_cuts && toss < 2) return Ending::kPowerCut;
  return active.kills && toss == 2 ? Ending::kKill : Ending::kStop;
}

}  // namespace

void DoHarm(World& world) {
  const Faults& active = world.settings().faults;
  for (uint64_t events = world.Pick(kEventsMax) + 5; events > 0; --events) {
    for (uint64_t turns = world.Pick(kTurnsBetweenEventsMax); turns > 0; --turns) {
      world.fibers().Yield();
    }
    switch (world.Pick(4)) {
      case 0:
        if (active.bit_flips) FlipBit(world);
        break;
      case 1:
        if (active.catalog_flips) FlipCatalogBit(world);
        break;
      case 2:
        if (active.clock_jumps) JumpClocks(world);
        break;
      default:
        if (active.no_space) FillDisk(world);
        break;
    }
  }
  world.End(SomeEnding(world));
}

void CutWhileStarting(World& world, const bool& started) {
  if (!world.settings().faults.power_cuts || !world.OneIn(3)) return;
  for (uint64_t turns = world.Pick(60); turns > 0 && !started; --turns) world.fibers().Yield();
  if (started) return;
  ++world.counts()["cuts_while_starting"];
  world.End(Ending::kPowerCut);
}

void HarmAtRest(World& world) {
  if (!world.settings().faults.catalog_losses) return;
  if (world.OneIn(3)) {
    ++world.counts()["catalogs_lost"];
    world.Note("the catalog is lost");
    world.model().CatalogLost();
    world.catalog_disk().Delete();
  } else if (world.OneIn(3)) {
    ++world.counts()["catalogs_damaged"];
    world.Note("the catalog is damaged");
    world.catalog_disk().Damage();
  }
}

// ---- operators ----

namespace {

class Operator {
 public:
  explicit Operator(World& world) : world_(world) {}

  void Run() {
    while (!world_.over()) {
      switch (world_.Pick(7)) {
        case 0:
          Evict();
          break;
        case 1:
          Pin();
          break;
        case 2:
          Unpin();
          break;
        case 3:
          Verify();
          break;
        case 4:
          Flush();
          break;
        case 5:
          List();
          break;
        default:
          world_.core().Stats();
          break;
      }
      world_.fibers().Sleep(absl::Milliseconds(world_.Pick(4000)));
    }
    while (!pinned_.empty()) Unpin();
  }

 private:
  const Digest& SomeDigest() {
    const Text& text = world_.texts().all()[world_.Pick(world_.texts().all().size())];
    return text.chain[world_.Pick(text.chain.size())];
  }

  void Evict() {
    cache::ListFilter filter;
    filter.prefix = SomeDigest();
    filter.leaves_only = world_.OneIn(2);
    uint64_t kept = 0;
    world_.model().OperatorEvicts(1);
    const auto evicted = world_.core().Evict(filter, &kept);
    world_.model().OperatorEvicts(-1);
    ++world_.counts()["operator_evictions"];
    world_.Note(
        absl::StrCat("evicted below ", filter.prefix->ToHex().substr(0, 8), ", kept ", kept));
    Allow("Evict", evicted.status(), {StatusCode::kUnavailable, StatusCode::kResourceExhausted});
  }
  void Pin() {
    const Digest& digest = SomeDigest();
    const absl::Status status = world_.core().Pin(digest, true);
    world_.Note("pin " + digest.ToHex().substr(0, 8) + ": " + status.ToString());
    Allow("Pin", status, {StatusCode::kNotFound});
    if (status.ok()) pinned_.push_back(digest);
  }
  void Unpin() {
    if (pinned_.empty()) return;
    std::swap(pinned_[world_.Pick(pinned_.size())], pinned_.back());
    // NOT_FOUND: damage or a power cut took all of it.
    const absl::Status status = world_.core().Pin(pinned_.back(), false);
    world_.Note("unpin " + pinned_.back().ToHex().substr(0, 8) + ": " + status.ToString());
    Allow("Unpin", status, {StatusCode::kNotFound});
    pinned_.pop_back();
  }
  void Verify() {
    const cache::VerifyOptions options{.bytes_per_second =
                                           world_.OneIn(2) ? 0 : 1000 + world_.Pick(1'000'000)};
    const auto report = world_.core().Verify(
        options, [this](const cache::VerifyReport&) { return !world_.over(); });
    Allow("Verify", report.status(), {StatusCode::kCancelled});
    if (!report.ok()) return;
    world_.Note(absl::StrCat("verified ", report->entries, ", damaged ", report->damaged()));
  }
  void Flush() {
    Allow("Flush", world_.core().Flush(absl::Seconds(world_.Pick(60))),
          {StatusCode::kDeadlineExceeded, StatusCode::kResourceExhausted});
  }
  void List() {
    for (const cache::ListedPrefix& listed : world_.core().List({})) {
      for (const bool rows : {listed.rows_host, listed.rows_disk}) {
        if (rows) world_.model().CheckOffered({listed.digest, EntryKind::kRows});
      }
      for (const bool checkpoint : {listed.checkpoint_host, listed.checkpoint_disk}) {
        if (checkpoint) world_.model().CheckOffered({listed.digest, EntryKind::kCheckpoint});
      }
    }
  }
  static void Allow(const char* what, const absl::Status& status,
                    std::initializer_list<StatusCode> codes) {
    const bool allowed =
        status.ok() || std::find(codes.begin(), codes.end(), status.code()) != codes.end();
    Expect(allowed, absl::StrCat(what, " answers ", status.ToString()));
  }

  World& world_;
  std::vector<Digest> pinned_;
};

}  // namespace

void Operate(World& world) { Operator(world).Run(); }

}  // namespace cairn::sim
