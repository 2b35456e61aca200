// client.h: an engine as the daemon sees it: looks for prefixes, reads and holds them, makes what
// is missing; lies, lingers and vanishes where that is a fault of the run.
//
// Threads: one, in a fiber of its own.
#ifndef CAIRN_TESTS_SIM_CLIENT_H_
#define CAIRN_TESTS_SIM_CLIENT_H_

#include <memory>
#include <vector>

#include "tests/sim/world.h"

namespace cairn::sim {

class Client {
 public:
  explicit Client(World& world) : world_(world) {}
  // Until the life is over. Nothing is held afterwards.
  void Run();

 private:
  // One session. It outlives the client's calls on it: somebody may hang up meanwhile.
  struct Session {
    cache::SessionId id = 0;
    size_t tenant = 0;
    bool ended = false;  // or about to be
    std::vector<uint64_t> reservations;
  };
  struct Held {
    cache::LeasedPrefix prefix;
    int64_t until_nanos = 0;  // the lease lasts at least so long
  };
  struct Made {
    cache::ReserveItem item;
    uint64_t reservation = 0;
    std::vector<uint8_t> payload;
    std::vector<EntryPart> parts;
    bool lie = false;
  };

  bool Connect();
  void Disconnect();
  static void HangUp(World& world, const std::shared_ptr<Session>& session);
  void MaybeVanish();
  const Text& SomeText();
  void Linger();

  void Put();
  std::vector<Made> Reserve(const Text& text);
  Made Make(const cache::ReserveItem& item, uint64_t reservation);
  void Commit(std::vector<Made> made);
  void GiveUp(const std::vector<Made>& made);

  void Read();
  void CheckMatch(const Text& text, const cache::MatchResult& match);
  void CheckPrefix(const Text& text, const cache::LeasedPrefix& prefix, size_t asked);
  void CheckHeld();
  void ReleaseSome();
  // `status` is one of these, or the run has failed. True if it is OK.
  bool Allow(const char* what, const absl::Status& status,
             std::initializer_list<absl::StatusCode> codes);

  World& world_;
  std::shared_ptr<Session> session_;
  std::vector<Held> held_;
};

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_CLIENT_H_
