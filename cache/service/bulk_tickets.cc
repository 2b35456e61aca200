#include "cache/service/bulk_tickets.h"

#include <algorithm>
#include <utility>

#include "cache/client/bulk_protocol.h"

namespace cairn::cache {

absl::StatusOr<std::vector<std::string>> BulkTickets::Issue(
    const std::shared_ptr<const LeasedBytes>& bytes, size_t stripes, absl::Duration deadline) {
  Sweep();
  const int64_t now = clock_.NowNanos();
  const int64_t end = now + absl::ToInt64Nanoseconds(deadline);
  const int64_t good_until = now + absl::ToInt64Nanoseconds(std::min(deadline, kBulkTicketMax));
  const ClientSession* session = bytes->session().get();
  std::vector<std::string> tickets;
  std::lock_guard<std::mutex> lock(mutex_);
  const auto of_session = std::count_if(open_.begin(), open_.end(), [&](const auto& open) {
    return open.second.transfer.bytes->session().get() == session;
  });
  if (static_cast<size_t>(of_session) + stripes > kBulkTicketsPerSessionMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("fetch_bulk: this session has ", kBulkTicketsPerSessionMax,
                     " tickets that it does not use, which is the most"));
  }
  for (size_t i = 0; i < stripes; ++i) {
    std::string& ticket = tickets.emplace_back(kTicketBytes, '\0');
    random_.Fill({reinterpret_cast<uint8_t*>(ticket.data()), ticket.size()});
    open_[ticket] = {.transfer = {bytes, i, stripes, end}, .good_until_nanos = good_until};
  }
  return tickets;
}

std::optional<BulkTransfer> BulkTickets::Use(const std::string& ticket) {
  Open taken;  // outlives the lock
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = open_.find(ticket);
  if (found == open_.end()) return std::nullopt;
  taken = std::move(found->second);
  open_.erase(found);
  if (taken.good_until_nanos <= clock_.NowNanos()) return std::nullopt;
  return std::move(taken.transfer);
}

template <typename Gone>
std::vector<BulkTickets::Open> BulkTickets::TakeIf(Gone gone) {
  std::vector<Open> taken;
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto it = open_.begin(); it != open_.end();) {
    const auto here = it++;
    if (!gone(here->first, here->second)) continue;
    taken.push_back(std::move(here->second));
    open_.erase(here);
  }
  return taken;
}

void BulkTickets::Revoke(std::span<const std::string> tickets) {
  TakeIf([&](const std::string& id, const Open&) {
    return std::find(tickets.begin(), tickets.end(), id) != tickets.end();
  });
}

void BulkTickets::EndSession(const ClientSession& session) {
  TakeIf([&](const std::string&, const Open& open) {
    return open.transfer.bytes->session().get() == &session;
  });
}

void BulkTickets::Sweep() {
  const int64_t now = clock_.NowNanos();
  TakeIf([now](const std::string&, const Open& open) { return open.good_until_nanos <= now; });
}

void BulkTickets::Clear() {
  TakeIf([](const std::string&, const Open&) { return true; });
}

size_t BulkTickets::size() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return open_.size();
}

}  // namespace cairn::cache
