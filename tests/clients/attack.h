// attack.h: what the attacks of this campaign share: a daemon that clients can be set upon, and
// what an attack reports.
//
// Threads: one caller. Errors: DATA_LOSS with WRONG: wrong bytes; DEADLINE_EXCEEDED: something is
// held too long; UNAVAILABLE: the daemon died or hangs.
#ifndef CAIRN_TESTS_CLIENTS_ATTACK_H_
#define CAIRN_TESTS_CLIENTS_ATTACK_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "store/base/random.h"
#include "tests/clients/bystander.h"
#include "tests/clients/child_process.h"
#include "tests/clients/daemon_watch.h"
#include "tests/clients/roles.h"
#include "tests/crash/daemon_process.h"

namespace cairn::clients {

struct AttackFlags {
  std::string daemon;
  std::string attack;
  std::string work;
  uint64_t seed = 0;
  uint64_t trials = 0;   // 0: the attack's own small number
  uint64_t seconds = 0;  // and then more, while there is time; 0: no more
  uint64_t clients = 9;  // at once, of the attack with killed ones
};

struct AttackResult {
  uint64_t trials = 0;
  std::map<std::string, uint64_t> counts;
};

// A daemon on a Unix socket, TCP and the bulk port, with what every client knows in it.
struct Target {
  static absl::StatusOr<std::unique_ptr<Target>> Start(const AttackFlags& flags,
                                                       uint64_t host_bytes, uint64_t disk_bytes);
  absl::StatusOr<std::unique_ptr<ChildProcess>> StartClient(Role role, uint64_t seed) const;
  // Those of the prefixes that every client knows which are not there (any more).
  absl::Status PutKnown() const;
  // It serves still, and ends in good order when it is told to.
  absl::Status Stop();

  crash::DaemonPlace place;
  std::string tcp;
  std::unique_ptr<crash::DaemonProcess> process;
  std::unique_ptr<DaemonWatch> watch;
};

// Runs until the number of trials and the time are over.
class TrialCount {
 public:
  TrialCount(const AttackFlags& flags, uint64_t small);
  bool More(uint64_t done) const;

 private:
  const uint64_t trials_;
  const int64_t end_nanos_;
};

absl::StatusOr<AttackResult> KillClients(const AttackFlags& flags);
absl::StatusOr<AttackResult> StickReaders(const AttackFlags& flags);
absl::StatusOr<AttackResult> Overload(const AttackFlags& flags);

}  // namespace cairn::clients

#endif  // CAIRN_TESTS_CLIENTS_ATTACK_H_
