#include "tests/sim/world.h"

#include <algorithm>
#include <cstdio>

#include "store/device/file_system.h"
#include "store/segment/segment_set.h"
#include "tests/sim/client.h"
#include "tests/sim/harm.h"
#include "tests/sim/sim_catalog.h"

namespace cairn::sim {

using faults::Expect;

namespace {

// Far beyond what a run takes: whoever needs more is not getting anywhere.
constexpr uint64_t kStepsMax = 3'000'000;
constexpr int kStartsMax = 4;
constexpr EntryKind kKinds[] = {EntryKind::kRows, EntryKind::kCheckpoint};

}  // namespace

Settings Settings::Draw(Random& random, Canary canary) {
  const auto pick = [&](uint64_t of) { return random.Next() % of; };
  Settings settings;
  settings.faults = Faults::Draw(random);
  settings.canary = canary;
  // A planted bug is to be found by what would show it.
  if (canary == Canary::kLostSync) settings.faults.power_cuts = true;
  if (canary == Canary::kUnverified) settings.faults.bit_flips = true;
  settings.lives = 1 + pick(3);
  settings.clients = 2 + pick(4);
  const uint64_t preempt_in[] = {0, 3, 20, 200};
  settings.preempt_in = preempt_in[pick(4)];
  settings.host_bytes =
      (settings.faults.small_arena ? 10 + pick(10) : 40 + pick(200)) * kIoAlignment;
  settings.disk_bytes = (settings.faults.small_disk ? 8 + pick(4) : 16 + pick(32)) * (64 << 10);
  cache::CacheCore::Options& core = settings.core;
  core.default_tenant_key = kSecrets[0];
  core.tenant_keys = {{kTenants[1], kSecrets[1]}};
  core.lease_max = absl::Seconds(1 + pick(120));
  core.reservation_max = absl::Seconds(1 + pick(120));
  core.background_writes = pick(2) == 0;
  core.background_load = pick(2) == 0;
  const std::vector<std::string> policies = cache::PolicyNames();
  core.eviction_host = policies[pick(policies.size())];
  core.eviction_disk = policies[pick(policies.size())];
  core.scrub_bytes_per_second = pick(2) == 0 ? 0 : 1000 + pick(1'000'000);
  core.scrub_round_min = absl::Seconds(std::max<uint64_t>(pick(60), 1));  // 0: no clock would go on
  return settings;
}

World::World(uint64_t seed, Canary canary, bool verbose, faults::Counts& counts)
    : counts_(counts),
      random_(seed),
      settings_([&] {
        Settings settings = Settings::Draw(random_, canary);
        settings.verbose = verbose;
        return settings;
      }()),
      fibers_(random_, clock_),
      model_(texts_, [this](const std::string& what) { Note(what); }),
      catalog_(std::make_shared<store::MemoryCatalogDisk>()) {
  const auto bad_read = [this](const std::string& path, uint64_t offset, uint64_t bytes) {
    ++counts_["bad_reads"];
    const auto name = path.substr(path.find_last_of('/') + 1);
    if (const auto segment = store::SegmentSet::ParseFileName(name); segment.has_value()) {
      model_.BadRead(*segment, offset, bytes);
    }
  };
  files_ = std::make_unique<SimFiles>(SimFiles::Options{.faults = settings_.faults,
                                                        .canary = canary,
                                                        .capacity_bytes = settings_.disk_bytes,
                                                        .bad_read = bad_read},
                                      random_);
  fibers_.set_preempt_in(settings_.preempt_in);
}

void World::Note(const std::string& what) {
  if (settings_.verbose) {
    std::fprintf(stderr, "%8lu %12.3f  %s\n", fibers_.steps(),
                 static_cast<double>(clock_.NowNanos()) / 1e9, what.c_str());
  }
}

void World::Run() {
  fibers_.Spawn("the machine", [this] { RunLives(); });
  const absl::Status ended = fibers_.Run(kStepsMax);
  Expect(ended.ok(), "progress: " + std::string(ended.message()));
  counts_["steps"] += fibers_.steps();
}

void World::RunLives() {
  for (uint64_t life = 1; life <= settings_.lives; ++life) {
    last_life_ = life == settings_.lives;
    Live();
  }
}

void World::Spawn(std::string name, std::function<void()> body) {
  ++busy_actors_;
  fibers_.Spawn(std::move(name), [this, body = std::move(body)] {
    body();
    --busy_actors_;
  });
}

void World::End(Ending ending) {
  over_ = !starting_;
  if (ending == Ending::kStop) {
    Note("the daemon stops");
    ++counts_["stops"];
    return;
  }
  const bool cut = ending == Ending::kPowerCut;
  Note(cut ? "the power is cut" : "the daemon is killed");
  ++counts_[cut ? "power_cuts" : "kills"];
  if (!starting_) promised_ = model_.Promised();
  files_->PowerOff(cut);
  catalog_->Crash(random_);
}

uint64_t World::Stat(const std::string& name) {
  for (const cache::NamedCount& count : core_->Stats()) {
    if (count.name == name) return count.value;
  }
  faults::Fail("no figure " + name);
}

void World::Live() {
  Start();
  Note("alive");
  over_ = false;
  files_->set_quiet(false);
  model_.DaemonGone();
  model_.ForgetLosses();
  for (uint64_t i = 0; i < settings_.clients; ++i) {
    Spawn("client " + std::to_string(i), [this] { Client(*this).Run(); });
  }
  Spawn("an operator", [this] { Operate(*this); });
  Spawn("harm", [this] { DoHarm(*this); });
  fibers_.Await("the end of a life", [this] { return busy_actors_ == 0; });
  files_->set_quiet(true);
  CheckTablesEmpty();
  CountLosses();
  if (last_life_) CheckEverything();
  Stop();
  HarmAtRest(*this);
}

void World::Stop() {
  counts_["damage_found"] += disk_->stats().checksum_failures;
  core_.reset();  // writes what is queued, and may evict for it
  if (!files_->off()) promised_ = model_.Promised();
  disk_.reset();
  host_.reset();
  files_->PowerOn();
}

// ---- a start ----

absl::Status World::TryStart() {
  store::RecoveryReport report;
  CAIRN_ASSIGN_OR_RETURN(disk_, store::DiskTier::Open({.directory = "/data",
                                                       .capacity_bytes = settings_.disk_bytes,
                                                       .segment_bytes = 256 << 10,
                                                       .random = &random_},
                                                      *files_,
                                                      std::make_unique<SimCatalog>(
                                                          catalog_, *files_, model_,
                                                          settings_.faults.catalog_errors, random_),
                                                      clock_, &report));
  counts_["adopted_entries"] += report.adopted_entries;
  counts_["catalogs_rebuilt"] += report.catalog_rebuilt ? 1 : 0;
  return absl::OkStatus();
}

void World::Start() {
  for (int attempt = 1;; ++attempt) {
    const bool calm = attempt == kStartsMax;
    files_->set_quiet(calm);
    starting_ = true;
    bool started = false;
    if (!calm) Spawn("harm at the start", [&] { CutWhileStarting(*this, started); });
    const absl::Status status = TryStart();
    started = true;
    fibers_.Await("the end of a start", [this] { return busy_actors_ == 0; });
    files_->set_quiet(true);
    starting_ = false;
    if (status.ok() && !files_->off()) break;
    Expect(!calm, "the daemon does not start without any fault: " + status.ToString());
    Expect(status.ok() || absl::IsUnavailable(status) || absl::IsResourceExhausted(status),
           "a start answers " + status.ToString());
    Note("a start fails: " + status.ToString());
    disk_.reset();
    files_->PowerOn();
  }
  host_ = *store::HostTier::Create(
      {.capacity_bytes = settings_.host_bytes, .memory = store::ArenaMemory::kAtUse});
  Audit();
  damage_before_ = disk_->stats().checksum_failures;
  auto core = cache::CacheCore::Create(settings_.core, *host_, disk_.get(), clock_, random_);
  Expect(core.ok(), "the core answers " + core.status().ToString());
  core_ = *std::move(core);
  AuditMatches();
}

void World::Audit() {
  store::MemoryCatalog catalog(catalog_);
  for (const Text& text : texts_.all()) {
    for (const Digest& digest : text.chain) {
      for (const EntryKind kind : kKinds) {
        const EntryKey key{digest, kind};
        const auto entry = catalog.Get(key);
        if (absl::IsDataLoss(entry.status())) model_.Hurt(key);
        if (entry.ok() && entry->has_value()) {
          model_.CheckOffered(key);
          model_.Found(**entry);
        } else {
          Expect(!promised_.contains(key) || model_.IsHurt(key),
                 "P2: " + NameOf(key) + " was acknowledged as durable and is lost");
          model_.NotFound(key);
        }
      }
    }
  }
  for (const EntryKey& key : promised_) {
    if (!model_.IsHurt(key)) AuditBytes(key);
  }
  promised_.clear();
}

void World::AuditBytes(const EntryKey& key) {
  const std::vector<uint8_t> expected = cache::PayloadOf(key);
  store::IoBuffer buffer(expected.size());
  store::DiskRead read{.key = key, .destination = buffer.bytes(), .status = {}, .meta = {}};
  disk_->ReadBatch({&read, 1});
  Expect(read.status.ok(),
         "P2: " + NameOf(key) + " was acknowledged as durable: " + read.status.ToString());
  Expect(std::equal(expected.begin(), expected.end(), buffer.bytes().begin()),
         "P1: wrong bytes in " + NameOf(key));
  ++counts_["promises_kept"];
}

// The promises again, as an engine sees them.
void World::AuditMatches() {
  for (size_t tenant = 0; tenant < kTenantCount; ++tenant) {
    cache::Registration registration;
    const auto session = core_->OpenSession(cache::RigSpec(kTenants[tenant]), &registration);
    Expect(session.ok(), "OpenSession answers " + session.status().ToString());
    for (const Text& text : texts_.all()) {
      if (text.tenant != tenant) continue;
      const size_t rows = model_.PromisedRows(text);
      const auto match = core_->Match(*session, text.chain);
      Expect(match.ok() && match->rows_blocks >= rows,
             absl::StrCat("P2: of ", rows, " blocks that are promised ",
                          match.ok() ? match->rows_blocks : 0, " match"));
    }
    core_->CloseSession(*session);
  }
}

// ---- an end ----

void World::CheckTablesEmpty() {
  for (const char* table : {"open_sessions", "open_leases", "open_reservations"}) {
    Expect(Stat(table) == 0, absl::StrCat("P7: ", table, " is ", Stat(table), " in the end"));
  }
}

void World::CountLosses() {
  // Whoever finds damage on disk, Reclaim included, tells the core, once. The scrubber goes on, and
  // may be between the two.
  uint64_t told = 0, found = 1;
  for (int tries = 0; told != found && tries < 1000; ++tries) {
    if (tries > 0) fibers_.Yield();
    told = Stat("damaged_disk_rows_entries") + Stat("damaged_disk_checkpoint_entries");
    found = disk_->stats().checksum_failures - damage_before_;
  }
  Expect(told == found,
         absl::StrCat("P10: the disk found ", found, " damaged entries and told of ", told));
  counts_["entries_verified"] += Stat("verified_entries");
  const uint64_t evicted = Stat("evicted_disk_entries");
  Expect(model_.unexplained_losses() <= evicted,
         absl::StrCat("P2: ", model_.unexplained_losses(), " durable entries went, and only ",
                      evicted, " were evicted"));
  counts_["evicted_from_disk"] += evicted;
}

// The end of all: what is damaged is found, each flip costs its one entry, and everything can go.
void World::CheckEverything() {
  const absl::Status flushed = core_->Flush(absl::Hours(1));
  Expect(flushed.ok() || absl::IsResourceExhausted(flushed), "Flush answers " + flushed.ToString());
  const uint64_t flipped = model_.flipped_now();
  const uint64_t before = disk_->stats().checksum_failures;
  const uint64_t evicted_before = Stat("evicted_disk_entries");
  const auto report = core_->Verify({}, nullptr);
  Expect(report.ok(), "Verify answers " + report.status().ToString());
  const uint64_t found = disk_->stats().checksum_failures - before;
  const Faults& active = settings_.faults;
  // Where the index and the catalog may differ, an entry may be beyond its reach.
  const bool exact = !active.catalog_errors && !active.catalog_flips && !active.bad_reads &&
                     !active.io_errors && !active.catalog_losses;
  if (exact) {
    // Healing takes room, for which others are evicted, before they were looked at.
    const uint64_t evicted = Stat("evicted_disk_entries") - evicted_before;
    Expect(found <= flipped && flipped <= found + evicted,
           absl::StrCat("P10: ", flipped, " records are damaged, ", found, " were found and ",
                        evicted, " evicted meanwhile"));
    Expect(model_.flipped_now() == 0, "P10: a damaged record is still found");
  }
  uint64_t kept = 0;
  for (int tries = 0; tries == 0 || (kept == 1 && tries < 1000); ++tries) {
    const auto evicted = core_->Evict({}, &kept);
    Expect(evicted.ok(), "Evict answers " + evicted.status().ToString());
    fibers_.Yield();  // the scrubber holds the one that it looks at
  }
  // The writer forgets what is gone.
  Expect(core_->Flush(absl::Hours(1)).ok(), "Flush fails with nothing stored");
  Expect(kept == 0, absl::StrCat("P7: ", kept, " entries are held by nobody and cannot go"));
  for (const char* table : {"host_entries", "host_used_bytes", "host_pinned_bytes", "index_blocks",
                            "disk_queued_entries", "pinned_prefixes"}) {
    Expect(Stat(table) == 0, absl::StrCat("P7: ", table, " is ", Stat(table), " in the end"));
  }
  if (exact) {
    Expect(Stat("disk_entries") == 0, "P7: the disk holds entries that nobody knows");
  }
}

}  // namespace cairn::sim
