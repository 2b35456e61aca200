// harm.h: whoever does harm in a run, and the operators who mean well.
//
// Threads: one; each function is the body of a fiber.
#ifndef CAIRN_TESTS_SIM_HARM_H_
#define CAIRN_TESTS_SIM_HARM_H_

#include "tests/sim/world.h"

namespace cairn::sim {

// Flips bits at rest, turns clocks, fills the disk; in the end it ends the life.
void DoHarm(World& world);
// Now and then cuts the power while the daemon starts, until `started`.
void CutWhileStarting(World& world, const bool& started);
// Between two lives: the catalog is lost, or files that are only names and identity are damaged.
void HarmAtRest(World& world);

// Pins, evicts, verifies, flushes, lists, until the life is over. No pin of its own is left.
void Operate(World& world);

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_HARM_H_
