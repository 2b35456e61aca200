// faults.h: what may go wrong in one run of the simulation. Each kind is active in a quarter of the
// seeds, so that most combinations come up and none hides another.
//
// Threads: a value.
#ifndef CAIRN_TESTS_SIM_FAULTS_H_
#define CAIRN_TESTS_SIM_FAULTS_H_

#include <cstdint>

#include "store/base/random.h"

namespace cairn::sim {

// A bug put in on purpose: the simulation must find it, or it would find nothing.
enum class Canary : uint8_t {
  kNone,
  kLostSync,    // segments are not synced before the catalog names them
  kUnverified,  // payloads are given out without a look at their checksums
  kTwoMakers,   // a reservation does not keep others from making the same entry
};

struct Faults {
  bool io_errors = false;       // EIO from any call; a failed write may have left its first half
  bool no_space = false;        // ENOSPC from writes and allocations; the disk is full for a while
  bool slow_io = false;         // requests finish late and in any order
  bool bit_flips = false;       // of what is stored
  bool bad_reads = false;       // of what is read
  bool catalog_errors = false;  // a batch is refused, or refused and found all the same
  bool catalog_flips = false;
  bool catalog_losses = false;  // deleted, or found damaged, between two lives
  bool power_cuts = false;
  bool kills = false;
  bool clock_jumps = false;
  bool vanishing = false;      // clients go without a word
  bool lying_clients = false;  // checksums and sizes that are not the bytes'
  bool small_arena = false;
  bool small_disk = false;

  static Faults Draw(Random& random) {
    Faults faults;
    for (bool* fault :
         {&faults.io_errors, &faults.no_space, &faults.slow_io, &faults.bit_flips,
          &faults.bad_reads, &faults.catalog_errors, &faults.catalog_flips, &faults.catalog_losses,
          &faults.power_cuts, &faults.kills, &faults.clock_jumps, &faults.vanishing,
          &faults.lying_clients, &faults.small_arena, &faults.small_disk}) {
      *fault = random.Next() % 4 == 0;
    }
    return faults;
  }
};

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_FAULTS_H_
