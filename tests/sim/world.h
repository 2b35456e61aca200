// world.h: one run of the simulation: a store and a cache over simulated devices, its clients and
// operators, whoever does harm, and the model that all answers are held against.
//
// A run is a few lives of the daemon. Each begins with an audit (what was promised is there) and
// ends by a clean stop, a kill or a power cut; the last one ends with everything verified, evicted,
// and nothing left behind.
//
// Threads: one, in fibers. Ownership: all actors borrow from it, and end before it.
#ifndef CAIRN_TESTS_SIM_WORLD_H_
#define CAIRN_TESTS_SIM_WORLD_H_

#include <memory>
#include <set>
#include <string>

#include "cache/core/cache_core.h"
#include "store/index/memory_catalog.h"
#include "store/tier/disk_tier.h"
#include "store/tier/host_tier.h"
#include "tests/faults/campaign.h"
#include "tests/sim/fibers.h"
#include "tests/sim/model.h"
#include "tests/sim/sim_files.h"
#include "tests/sim/texts.h"

namespace cairn::sim {

// How a life ends.
enum class Ending : uint8_t { kStop, kKill, kPowerCut };

struct Settings {
  Faults faults;
  Canary canary = Canary::kNone;
  bool verbose = false;
  uint64_t lives = 0;
  uint64_t clients = 0;
  uint64_t preempt_in = 0;
  uint64_t host_bytes = 0;
  uint64_t disk_bytes = 0;
  cache::CacheCore::Options core;

  static Settings Draw(Random& random, Canary canary);
};

class World {
 public:
  World(uint64_t seed, Canary canary, bool verbose, faults::Counts& counts);
  void Run();

  // ---- for actors ----
  cache::CacheCore& core() { return *core_; }
  bool over() const { return over_; }
  bool last_life() const { return last_life_; }
  uint64_t Pick(uint64_t of) { return random_.Next() % of; }
  bool OneIn(uint64_t n) { return Pick(n) == 0; }
  // A fiber of this life.
  void Spawn(std::string name, std::function<void()> body);
  // Ends this life, or ends the power while the daemon starts.
  void End(Ending ending);
  uint64_t Stat(const std::string& name);
  void Note(const std::string& what);

  const Settings& settings() const { return settings_; }
  Fibers& fibers() { return fibers_; }
  SimClock& clock() { return clock_; }
  SimFiles& files() { return *files_; }
  store::MemoryCatalogDisk& catalog_disk() { return *catalog_; }
  const Texts& texts() const { return texts_; }
  Model& model() { return model_; }
  faults::Counts& counts() { return counts_; }

 private:
  void RunLives();
  void Live();
  void Start();
  absl::Status TryStart();
  // The model learns what the store says it holds, which must be all that was promised.
  void Audit();
  void AuditBytes(const EntryKey& key);
  void AuditMatches();
  void CheckTablesEmpty();
  void CheckEverything();
  void CountLosses();
  void Stop();

  faults::Counts& counts_;
  SeededRandom random_;
  const Settings settings_;
  SimClock clock_;
  Fibers fibers_;
  const Texts texts_;
  Model model_;
  std::unique_ptr<SimFiles> files_;
  std::shared_ptr<store::MemoryCatalogDisk> catalog_;
  std::unique_ptr<store::HostTier> host_;
  std::unique_ptr<store::DiskTier> disk_;
  std::unique_ptr<cache::CacheCore> core_;
  std::set<EntryKey> promised_;  // since the last life ended
  uint64_t damage_before_ = 0;   // found on disk before there was a core
  bool over_ = false;
  bool starting_ = false;
  bool last_life_ = false;
  uint64_t busy_actors_ = 0;
};

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_WORLD_H_
