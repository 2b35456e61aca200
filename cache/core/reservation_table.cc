#include "cache/core/reservation_table.h"

namespace cairn::cache {

Reservation* ReservationTable::Find(uint64_t id) {
  const auto it = reservations_.find(id);
  return it == reservations_.end() ? nullptr : &it->second;
}

uint64_t ReservationTable::MakerOf(const EntryKey& key) const {
  const auto it = makers_.find(key);
  return it == makers_.end() ? 0 : it->second;
}

uint64_t ReservationTable::Make(SessionId session, const ReserveItem& item, int64_t now_nanos) {
  const uint64_t id = new_id_();
  const int64_t deadline = now_nanos + lifetime_nanos_;
  reservations_.emplace(id, Reservation{session, item, deadline, false});
  makers_.emplace(item.key, id);
  by_session_[session].insert(id);
  deadlines_.emplace(deadline, id);
  index_.Await(FoundationOf(item), 1);
  return id;
}

bool ReservationTable::End(uint64_t id, ReservationEnd how, int64_t now_nanos) {
  const auto it = reservations_.find(id);
  if (it == reservations_.end()) return false;
  const Reservation ended = std::move(it->second);
  reservations_.erase(it);
  makers_.erase(ended.item.key);
  deadlines_.erase({ended.deadline_nanos, id});
  if (const auto of = by_session_.find(ended.session); of != by_session_.end()) {
    of->second.erase(id);
    if (of->second.empty()) by_session_.erase(of);
  }

  bool handed_over = false;
  if (const auto waiting = waits_.find(ended.item.key); waiting != waits_.end()) {
    for (KeyWait* wait : waiting->second) {
      if (how == ReservationEnd::kCommitted) {
        wait->signal.Signal();
      } else if (!wait->session_ended && wait->granted == 0) {
        wait->granted = Make(wait->session, wait->item, now_nanos);
        wait->signal.Signal();
        handed_over = true;
        break;
      }
    }
  }
  // After the hand-over, so that the foundation is not free in between.
  index_.Await(FoundationOf(ended.item), -1);
  return handed_over;
}

void ReservationTable::StartWait(KeyWait* wait) { waits_[wait->item.key].push_back(wait); }

void ReservationTable::StopWait(KeyWait* wait) {
  const auto it = waits_.find(wait->item.key);
  if (it == waits_.end()) return;
  it->second.remove(wait);
  if (it->second.empty()) waits_.erase(it);
}

ReservationTable::EndedSession ReservationTable::EndSession(SessionId session, int64_t now_nanos) {
  for (auto& [key, list] : waits_) {
    for (KeyWait* wait : list) {
      if (wait->session != session) continue;
      wait->session_ended = true;
      wait->signal.Signal();
    }
  }
  const auto of = by_session_.find(session);
  if (of == by_session_.end()) return {};
  const std::vector<uint64_t> ids(of->second.begin(), of->second.end());
  EndedSession result;
  for (const uint64_t id : ids) {
    if (reservations_.at(id).committing) continue;
    result.handed_over += End(id, ReservationEnd::kGivenUp, now_nanos);
    ++result.ended;
  }
  return result;
}

size_t ReservationTable::CountOf(SessionId session) const {
  const auto it = by_session_.find(session);
  return it == by_session_.end() ? 0 : it->second.size();
}

uint64_t ReservationTable::Expired(int64_t now_nanos) const {
  for (const auto& [deadline, id] : deadlines_) {
    if (deadline > now_nanos) return 0;
    if (!reservations_.at(id).committing) return id;
  }
  return 0;
}

}  // namespace cairn::cache
