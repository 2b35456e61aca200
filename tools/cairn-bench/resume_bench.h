// resume_bench.h: `cairn-bench resume`: what an engine does with a prefix that lies in a slower and
// slower place, beside prefilling it. Prints, for each place and length, the way that was taken,
// the time to the first token and its ratio to a prefill's, and the length from which on the place
// is used.
//
// Exit status: 0, 1 if some ratio is over the bound (2 % more than prefilling) or it could not be
// measured, 2 usage.
//
// Threads: one caller; the engine has its own. Units: as printed.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_RESUME_BENCH_H_
#define CAIRN_TOOLS_CAIRN_BENCH_RESUME_BENCH_H_

namespace cairn::bench {

inline constexpr char kResumeCommand[] = "resume";

// argv[0] is the command.
int ResumeBench(int argc, char** argv);

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_RESUME_BENCH_H_
