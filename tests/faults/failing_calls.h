// failing_calls.h: system calls that fail on demand: the n-th one, or all from the n-th on.
//
// failing_calls.cc defines the C library's functions for this process; unarmed they do what they
// always do, but for syncs, which need no device here.
//
// Threads: one.
#ifndef CAIRN_TESTS_FAULTS_FAILING_CALLS_H_
#define CAIRN_TESTS_FAULTS_FAILING_CALLS_H_

#include <cstdint>

namespace cairn::faults {

enum class CallFault : uint8_t { kEio, kEnospc, kEintr, kEagain, kShort };
inline constexpr CallFault kCallFaults[] = {CallFault::kEio, CallFault::kEnospc, CallFault::kEintr,
                                            CallFault::kEagain, CallFault::kShort};
const char* NameOf(CallFault fault);

// Of the calls that can fail so, the one of this number, counted from now and from 1 on;
// `for_ever`: and all after it. A call that is interrupted for ever is no fault of a device, so of
// these only transfers are struck.
void Arm(CallFault fault, uint64_t number, bool for_ever);
// Whether it was struck since.
bool Disarm();
// The same fault for what is beside the files, a catalog: 0, or the errno that strikes it.
int StrikeBeside();

}  // namespace cairn::faults

#endif  // CAIRN_TESTS_FAULTS_FAILING_CALLS_H_
