// model.h: what the cache may answer. A map from each entry to what was ever said of it; an entry
// that was never offered must not be found, one that was acknowledged as durable must be, and any
// other may be absent. Bytes follow from the key, so they need no memory.
//
// Told by the catalog at the moment of each change, by clients around their calls (a commit counts
// from before it is sent, a reservation's end too), and by whoever does damage.
//
// Threads: one. Errors: what must not be ends the run (tests/faults/campaign.h).
#ifndef CAIRN_TESTS_SIM_MODEL_H_
#define CAIRN_TESTS_SIM_MODEL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "cache/core/cache_core.h"
#include "store/index/catalog.h"
#include "tests/sim/texts.h"

namespace cairn::sim {

std::string NameOf(const EntryKey& key);

class Model {
 public:
  // `note` is told of every change of the catalog.
  Model(const Texts& texts, std::function<void(const std::string&)> note)
      : texts_(texts), note_(std::move(note)) {}

  // Events are numbered, so that "since the call began" can be asked.
  uint64_t now() const { return events_; }

  // ---- the catalog ----
  void Catalogued(const store::CatalogEntry& entry);
  // Entries that go without a reason that the model knows are counted: no more may go than the core
  // says it evicted.
  void Uncatalogued(const EntryKey& key);
  void CatalogLost();  // with all that was in it
  // Of a batch that was refused and may be found one day.
  void MayComeBack(const store::CatalogEntry& entry);
  void MayBeGone(const EntryKey& key) { facts_[key].durable = false; }
  // Erasing it failed: it is erased once more before it is put again.
  void EraseFailed(const EntryKey& key) { facts_[key].to_be_erased = true; }
  uint64_t unexplained_losses() const { return unexplained_losses_; }
  void ForgetLosses() { unexplained_losses_ = 0; }
  // At a start: what the store has, whatever happened to it meanwhile.
  void Found(const store::CatalogEntry& entry);
  void NotFound(const EntryKey& key);
  // Null unless the catalog has it.
  const store::RecordLocation* LocationOf(const EntryKey& key) const;
  std::vector<EntryKey> CataloguedKeys() const;

  // ---- commits ----
  void Offering(const EntryKey& key) { facts_[key].offered = true; }
  // `since`: when the call that acknowledged it began.
  void Durable(const EntryKey& key, uint64_t since);
  void CheckOffered(const EntryKey& key) const;
  // All that must be found, by the catalog or by a match.
  std::set<EntryKey> Promised() const;
  // Of the chain, the leading blocks whose rows must be found.
  size_t PromisedRows(const Text& text) const;
  // While an operator evicts, what goes goes by his wish.
  void OperatorEvicts(int change) { operators_evicting_ += change; }

  // ---- damage ----
  void Flipped(const EntryKey& key);  // at rest
  void Hurt(const EntryKey& key) { facts_[key].hurt = true; }
  // A read of these bytes of a segment was given out wrong.
  void BadRead(uint64_t segment, uint64_t offset, uint64_t bytes);
  bool IsFlipped(const EntryKey& key) const;
  bool IsHurt(const EntryKey& key) const;
  uint64_t flipped_now() const;  // catalogued records that are damaged at rest

  // ---- reservations: never two makers of an entry ----
  struct Maker {
    uint64_t reservation = 0;
    int64_t ends_nanos = 0;  // by itself, at the earliest
  };
  void Granted(const EntryKey& key, const Maker& maker, int64_t now_nanos);
  // Its owner has begun to end it.
  void Ending(uint64_t reservation);
  void DaemonGone() { makers_.clear(); }

 private:
  struct Facts {
    bool offered = false;
    bool durable = false;
    bool catalogued = false;
    bool flipped = false;  // its record at rest is damaged
    bool to_be_erased = false;
    bool hurt = false;  // damage of any kind was done to it since it was put
    store::RecordLocation at;
    uint64_t put_event = 0;
    uint64_t gone_event = 0;
  };
  bool Kept(const Facts& facts) const { return facts.durable && facts.catalogued && !facts.hurt; }
  // Whether what it builds on is whole: otherwise it cannot be reached, and may go.
  bool Reachable(const EntryKey& key) const;

  const Texts& texts_;
  const std::function<void(const std::string&)> note_;
  std::map<EntryKey, Facts> facts_;
  // Every place that a record was catalogued at: (segment, offset) -> key, end.
  std::map<std::pair<uint64_t, uint64_t>, std::pair<EntryKey, uint64_t>> places_;
  std::multimap<EntryKey, Maker> makers_;
  uint64_t events_ = 0;
  uint64_t unexplained_losses_ = 0;
  int operators_evicting_ = 0;
};

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_MODEL_H_
