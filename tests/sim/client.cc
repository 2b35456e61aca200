#include "tests/sim/client.h"

#include <algorithm>

namespace cairn::sim {

using absl::StatusCode;
using cache::LeasedEntry;
using cache::LeasedPrefix;
using cache::ReserveState;
using faults::Expect;
using faults::Fail;

namespace {

constexpr uint64_t kHeldMax = 4;

}  // namespace

bool Client::Allow(const char* what, const absl::Status& status,
                   std::initializer_list<StatusCode> codes) {
  if (status.ok()) return true;
  // A session may end under any call.
  if (status.code() == StatusCode::kAborted && session_->ended) return false;
  if (std::find(codes.begin(), codes.end(), status.code()) == codes.end()) {
    Fail(absl::StrCat(what, " answers ", status.ToString()));
  }
  return false;
}

void Client::Run() {
  while (!world_.over()) {
    if (session_ == nullptr || session_->ended) {
      if (!Connect()) continue;
    }
    const uint64_t what = world_.Pick(10);
    if (what < 5) {
      Put();
    } else if (what < 9) {
      Read();
    } else {
      Disconnect();
    }
    CheckHeld();
    ReleaseSome();
    Linger();
  }
  Disconnect();
}

void Client::Linger() {
  if (world_.OneIn(4)) {
    world_.fibers().Sleep(absl::Milliseconds(world_.Pick(2000)));
  } else {
    world_.fibers().Yield();
  }
}

// ---- sessions ----

bool Client::Connect() {
  held_.clear();
  auto session = std::make_shared<Session>();
  session->tenant = world_.Pick(kTenantCount);
  cache::Registration registration;
  const auto opened =
      world_.core().OpenSession(cache::RigSpec(kTenants[session->tenant]), &registration);
  Expect(opened.ok(), "OpenSession answers " + opened.status().ToString());
  Expect(registration.root == world_.texts().root(session->tenant), "a root of another tenant");
  session->id = *opened;
  session_ = session;
  ++world_.counts()["sessions"];
  return true;
}

void Client::HangUp(World& world, const std::shared_ptr<Session>& session) {
  if (session->ended) return;
  session->ended = true;
  for (const uint64_t reservation : session->reservations) world.model().Ending(reservation);
  world.core().CloseSession(session->id);
}

void Client::Disconnect() {
  if (session_ == nullptr) return;
  if (world_.OneIn(2)) CheckHeld();
  HangUp(world_, session_);
  session_ = nullptr;
  held_.clear();
}

// Somebody pulls the plug while the next calls are on their way.
void Client::MaybeVanish() {
  if (!world_.settings().faults.vanishing || !world_.OneIn(12)) return;
  ++world_.counts()["vanished"];
  world_.Spawn("a hang-up", [&world = world_, session = session_] {
    for (uint64_t turns = world.Pick(40); turns > 0; --turns) world.fibers().Yield();
    HangUp(world, session);
  });
}

const Text& Client::SomeText() {
  const std::vector<Text>& texts = world_.texts().all();
  const size_t each = texts.size() / kTenantCount;
  return texts[session_->tenant * each + world_.Pick(each)];
}

// ---- putting ----

void Client::Put() {
  MaybeVanish();
  const Text& text = SomeText();
  std::vector<Made> made = Reserve(text);
  if (made.empty()) return;
  if (world_.OneIn(8)) {
    GiveUp(made);
    return;
  }
  if (world_.OneIn(8)) Linger();
  // In one call or in two, in any order.
  if (made.size() > 1 && world_.OneIn(3)) {
    const auto half = made.begin() + static_cast<ptrdiff_t>(world_.Pick(made.size()));
    Commit({made.begin(), half});
    if (world_.OneIn(8)) return;  // and never comes back for the rest
    Commit({half, made.end()});
    return;
  }
  for (size_t i = made.size(); i > 1; --i) std::swap(made[i - 1], made[world_.Pick(i)]);
  Commit(std::move(made));
}

std::vector<Client::Made> Client::Reserve(const Text& text) {
  auto match = world_.core().Match(session_->id, text.chain);
  if (!Allow("Match", match.status(), {})) return {};
  CheckMatch(text, *match);
  std::vector<cache::ReserveItem> items;
  const size_t end = world_.Pick(text.chain.size()) + 1;
  // Mostly what is missing; now and then what is not, or what cannot be found without it.
  const size_t begin = world_.OneIn(6) ? world_.Pick(end) : match->rows_blocks;
  for (size_t i = begin; i < end; ++i) {
    items.push_back(world_.texts().Item(text, i, EntryKind::kRows));
  }
  if (world_.Pick(4) != 0)
    items.push_back(world_.texts().Item(text, end - 1, EntryKind::kCheckpoint));
  if (items.empty()) return {};
  const absl::Duration wait = absl::Milliseconds(world_.OneIn(2) ? 0 : world_.Pick(20'000));
  const int64_t began = world_.clock().NowNanos();
  const std::shared_ptr<Session> session = session_;
  auto results = world_.core().Reserve(session->id, items, wait);
  if (!Allow("Reserve", results.status(), {})) return {};
  Expect(results->size() == items.size(), "Reserve answers for another number of items");
  std::vector<Made> made;
  for (size_t i = 0; i < items.size(); ++i) {
    const cache::ReserveResult& result = (*results)[i];
    if (result.state == ReserveState::kExists) world_.model().CheckOffered(items[i].key);
    if (result.state != ReserveState::kGo || session->ended) continue;
    // One that was handed over while we waited for it began later than our call, never earlier.
    const int64_t ends = began + absl::ToInt64Nanoseconds(world_.settings().core.reservation_max);
    world_.model().Granted(items[i].key, {result.reservation, ends}, world_.clock().NowNanos());
    session->reservations.push_back(result.reservation);
    made.push_back(Make(items[i], result.reservation));
  }
  return made;
}

Client::Made Client::Make(const cache::ReserveItem& item, uint64_t reservation) {
  Made made{
      .item = item, .reservation = reservation, .payload = cache::PayloadOf(item.key), .parts = {}};
  made.parts = cache::PartsOf(item.key.kind, made.payload);
  if (world_.settings().faults.lying_clients && world_.OneIn(8)) {
    made.lie = true;
    if (world_.OneIn(2)) {
      made.payload[world_.Pick(made.payload.size())] ^= 1;
    } else {
      ++made.parts.front().bytes;
    }
  }
  return made;
}

void Client::GiveUp(const std::vector<Made>& made) {
  std::vector<uint64_t> reservations;
  for (const Made& one : made) {
    reservations.push_back(one.reservation);
    world_.model().Ending(one.reservation);
  }
  Allow("Abort", world_.core().Abort(session_->id, reservations), {});
}

void Client::Commit(std::vector<Made> made) {
  if (made.empty()) return;
  const bool durable = world_.OneIn(2);
  const uint64_t since = world_.model().now();
  std::vector<cache::CoreCommitItem> items;
  for (const Made& one : made) {
    if (!one.lie) world_.model().Offering(one.item.key);
    world_.model().Ending(one.reservation);
    items.push_back({one.reservation, one.payload, one.parts});
  }
  const auto statuses = world_.core().Commit(session_->id, items, durable);
  if (!Allow("Commit", statuses.status(), {})) return;
  Expect(statuses->size() == items.size(), "Commit answers for another number of items");
  for (size_t i = 0; i < made.size(); ++i) {
    const absl::Status& status = (*statuses)[i];
    world_.Note(absl::StrCat(durable ? "durable commit of " : "commit of ",
                             NameOf(made[i].item.key), ": ", status.ToString()));
    const bool refused_lie = absl::IsDataLoss(status) || absl::IsInvalidArgument(status) ||
                             absl::IsAborted(status) || absl::IsFailedPrecondition(status) ||
                             absl::IsResourceExhausted(status);
    if (made[i].lie) {
      Expect(refused_lie, "a commit with wrong checksums is answered with " + status.ToString());
      ++world_.counts()["lies_refused"];
      continue;
    }
    if (!Allow("a commit's item", status,
               {StatusCode::kResourceExhausted, StatusCode::kFailedPrecondition,
                StatusCode::kAborted})) {
      ++world_.counts()["commits_refused"];
      continue;
    }
    ++world_.counts()[durable ? "commits_durable" : "commits"];
    if (durable) world_.model().Durable(made[i].item.key, since);
  }
}

// ---- reading ----

void Client::Read() {
  MaybeVanish();
  const Text& text = SomeText();
  const int64_t began = world_.clock().NowNanos();
  const auto until = began + absl::ToInt64Nanoseconds(world_.settings().core.lease_max);
  if (world_.OneIn(2)) {
    auto match = world_.core().MatchAndLease(session_->id, text.chain);
    if (!Allow("MatchAndLease", match.status(), {})) return;
    CheckMatch(text, match->found);
    if (!match->leased.has_value()) return;
    Expect(match->leased->checkpoint.has_value(), "a lease with the match has no checkpoint");
    CheckPrefix(text, *match->leased, match->leased->rows.size());
    ++world_.counts()["leased_with_match"];
    held_.push_back({*std::move(match->leased), until});
    return;
  }
  const size_t asked = world_.Pick(text.chain.size()) + 1;
  auto prefix = world_.core().Fetch(
      session_->id, {.chain = std::span(text.chain).first(asked),
                     .checkpoint = world_.Pick(4) != 0,
                     .deadline = absl::Milliseconds(world_.OneIn(4) ? world_.Pick(50) : 30'000)});
  if (!Allow("Fetch", prefix.status(),
             {StatusCode::kResourceExhausted, StatusCode::kDeadlineExceeded})) {
    return;
  }
  CheckPrefix(text, *prefix, asked);
  ++world_.counts()["fetches"];
  if (prefix->lease != 0) held_.push_back({*std::move(prefix), until});
}

void Client::CheckMatch(const Text& text, const cache::MatchResult& match) {
  Expect(match.rows_blocks <= text.chain.size(), "P1: more rows match than were asked for");
  for (size_t i = 0; i < match.rows_blocks; ++i) {
    world_.model().CheckOffered({text.chain[i], EntryKind::kRows});
  }
  for (const cache::CheckpointHit& hit : match.checkpoints) {
    Expect(hit.blocks >= 1 && hit.blocks <= match.rows_blocks, "P1: a checkpoint beyond the rows");
    world_.model().CheckOffered({text.chain[hit.blocks - 1], EntryKind::kCheckpoint});
  }
}

void Client::CheckPrefix(const Text& text, const LeasedPrefix& prefix, size_t asked) {
  Expect(prefix.rows.size() <= asked, "P1: more rows than were asked for");
  for (size_t i = 0; i < prefix.rows.size(); ++i) {
    const EntryKey key{text.chain[i], EntryKind::kRows};
    Expect(prefix.rows[i].key == key, "P1: another entry than was asked for");
    world_.model().CheckOffered(key);
  }
  if (prefix.checkpoint.has_value()) {
    Expect(prefix.rows.size() == asked, "P1: a checkpoint without all its rows");
    const EntryKey key{text.chain[asked - 1], EntryKind::kCheckpoint};
    Expect(prefix.checkpoint->key == key, "P1: another checkpoint than was asked for");
    world_.model().CheckOffered(key);
  }
  world_.counts()["entries_read"] += prefix.rows.size() + (prefix.checkpoint.has_value() ? 1 : 0);
}

// What is leased is what was put, from the first moment to the last.
void Client::CheckHeld() {
  if (session_ == nullptr || session_->ended) {
    held_.clear();
    return;
  }
  const auto check = [](const LeasedEntry& entry) {
    const std::vector<uint8_t> expected = cache::PayloadOf(entry.key);
    const bool same =
        std::equal(entry.payload.begin(), entry.payload.end(), expected.begin(), expected.end());
    Expect(same, "P1, P5: wrong bytes in " + NameOf(entry.key));
    const std::vector<EntryPart> parts = cache::PartsOf(entry.key.kind, expected);
    const bool table =
        std::equal(entry.part_xxh3.begin(), entry.part_xxh3.end(), parts.begin(), parts.end(),
                   [](uint64_t xxh3, const EntryPart& part) { return xxh3 == part.xxh3; });
    Expect(table, "P5: another part table behind " + NameOf(entry.key));
  };
  for (const Held& held : held_) {
    if (world_.clock().NowNanos() >= held.until_nanos) continue;  // it may have expired
    for (const LeasedEntry& entry : held.prefix.rows) check(entry);
    if (held.prefix.checkpoint.has_value()) check(*held.prefix.checkpoint);
  }
}

void Client::ReleaseSome() {
  while (!held_.empty() && (held_.size() > kHeldMax || world_.OneIn(3))) {
    const size_t which = world_.Pick(held_.size());
    const cache::LeaseId lease = held_[which].prefix.lease;
    held_.erase(held_.begin() + static_cast<ptrdiff_t>(which));
    if (session_ == nullptr) return;
    // ABORTED: it ran out.
    Allow("Release", world_.core().Release(session_->id, lease), {StatusCode::kAborted});
  }
}

}  // namespace cairn::sim
