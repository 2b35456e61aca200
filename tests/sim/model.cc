#include "tests/sim/model.h"

#include "tests/faults/campaign.h"

namespace cairn::sim {

using faults::Expect;

std::string NameOf(const EntryKey& key) {
  return (key.kind == EntryKind::kRows ? "rows " : "checkpoint ") + key.digest.ToHex().substr(0, 8);
}

// ---- the catalog ----

void Model::Catalogued(const store::CatalogEntry& entry) {
  const EntryKey& key = entry.meta.key;
  CheckOffered(key);
  note_(absl::StrCat("catalogued: ", NameOf(key), " at ", entry.location.segment, ":",
                     entry.location.offset));
  Facts& facts = facts_[key];
  // At the same place it is the same record: one that was withdrawn, come back with a power cut.
  if (facts.at != entry.location) facts.flipped = facts.hurt = false;
  facts.catalogued = true;
  facts.at = entry.location;
  facts.put_event = ++events_;
  places_[{facts.at.segment, facts.at.offset}] = {key, facts.at.offset + facts.at.bytes};
}

void Model::Uncatalogued(const EntryKey& key) {
  Facts& facts = facts_[key];
  if (!facts.catalogued) return;
  note_("no longer catalogued: " + NameOf(key));
  const bool explained = operators_evicting_ > 0 || facts.to_be_erased;
  if (Kept(facts) && !explained && Reachable(key)) ++unexplained_losses_;
  facts.catalogued = facts.durable = facts.to_be_erased = false;
  facts.gone_event = ++events_;
}

void Model::CatalogLost() {
  for (auto& [key, facts] : facts_) facts.catalogued = false;
}

void Model::MayComeBack(const store::CatalogEntry& entry) {
  const store::RecordLocation& at = entry.location;
  places_[{at.segment, at.offset}] = {entry.meta.key, at.offset + at.bytes};
}

void Model::Found(const store::CatalogEntry& entry) {
  Facts& facts = facts_[entry.meta.key];
  facts.to_be_erased = false;
  if (facts.catalogued && facts.at == entry.location) return;
  Catalogued(entry);
}

void Model::NotFound(const EntryKey& key) {
  Facts& facts = facts_[key];
  facts.catalogued = facts.durable = false;
}

const store::RecordLocation* Model::LocationOf(const EntryKey& key) const {
  const auto found = facts_.find(key);
  return found == facts_.end() || !found->second.catalogued ? nullptr : &found->second.at;
}

std::vector<EntryKey> Model::CataloguedKeys() const {
  std::vector<EntryKey> keys;
  for (const auto& [key, facts] : facts_) {
    if (facts.catalogued) keys.push_back(key);
  }
  return keys;
}

// ---- commits ----

void Model::Durable(const EntryKey& key, uint64_t since) {
  Facts& facts = facts_[key];
  // It may have been there before, and may have been evicted between its put and this moment.
  const bool was_there = facts.catalogued || facts.gone_event > since;
  Expect(was_there, "P2: " + NameOf(key) + " was acknowledged as durable and never catalogued");
  facts.durable = facts.catalogued;
}

void Model::CheckOffered(const EntryKey& key) const {
  const auto found = facts_.find(key);
  Expect(found != facts_.end() && found->second.offered,
         "P1: " + NameOf(key) + " is found, and nobody ever put it");
}

bool Model::Reachable(const EntryKey& key) const {
  const auto whole = [this](const EntryKey& rows) {
    const auto found = facts_.find(rows);
    return found != facts_.end() && found->second.catalogued && !found->second.hurt;
  };
  if (key.kind == EntryKind::kCheckpoint && !whole({key.digest, EntryKind::kRows})) return false;
  for (const Place* place = texts_.Find(key.digest); place->index > 0;) {
    if (!whole({place->parent, EntryKind::kRows})) return false;
    place = texts_.Find(place->parent);
  }
  return true;
}

std::set<EntryKey> Model::Promised() const {
  std::set<EntryKey> promised;
  for (const auto& [key, facts] : facts_) {
    if (Kept(facts)) promised.insert(key);
  }
  return promised;
}

size_t Model::PromisedRows(const Text& text) const {
  size_t rows = 0;
  while (rows < text.chain.size()) {
    const auto found = facts_.find({text.chain[rows], EntryKind::kRows});
    if (found == facts_.end() || !Kept(found->second)) break;
    ++rows;
  }
  return rows;
}

// ---- damage ----

void Model::Flipped(const EntryKey& key) {
  Facts& facts = facts_[key];
  facts.flipped = facts.hurt = true;
}

void Model::BadRead(uint64_t segment, uint64_t offset, uint64_t bytes) {
  for (const auto& [place, record] : places_) {
    const auto& [key, end] = record;
    if (place.first == segment && place.second < offset + bytes && offset < end) Hurt(key);
  }
}

bool Model::IsFlipped(const EntryKey& key) const {
  const auto found = facts_.find(key);
  return found != facts_.end() && found->second.flipped;
}

bool Model::IsHurt(const EntryKey& key) const {
  const auto found = facts_.find(key);
  return found != facts_.end() && found->second.hurt;
}

uint64_t Model::flipped_now() const {
  uint64_t count = 0;
  for (const auto& [key, facts] : facts_) count += facts.catalogued && facts.flipped ? 1 : 0;
  return count;
}

// ---- reservations ----

void Model::Granted(const EntryKey& key, const Maker& maker, int64_t now_nanos) {
  const auto [first, last] = makers_.equal_range(key);
  for (auto other = first; other != last; ++other) {
    // Either may have run out before the other began, and we hear of both only now.
    const bool both = now_nanos < std::min(maker.ends_nanos, other->second.ends_nanos);
    Expect(!both, "single-flight: two make " + NameOf(key) + " at once");
  }
  makers_.emplace(key, maker);
}

void Model::Ending(uint64_t reservation) {
  std::erase_if(makers_,
                [&](const auto& maker) { return maker.second.reservation == reservation; });
}

}  // namespace cairn::sim
