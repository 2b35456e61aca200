// fio.h: what the disk can do, as fio measures it, in its best configuration.
//
// Which configuration is best differs from machine to machine, so it is found out: each way is
// tried with io_uring, O_DIRECT and registered files, its buffers in pages as they come and in huge
// ones, and the fastest of these becomes the limit.
//
// Threads: one. Errors: UNAVAILABLE, with what fio said, when it runs but moves no bytes.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_FIO_H_
#define CAIRN_TOOLS_CAIRN_BENCH_FIO_H_

#include <string>
#include <vector>

#include "tools/cairn-bench/bench.h"

namespace cairn::bench {

struct FioJob {
  std::string direction;          // "read" or "write"
  std::string arguments;          // of every way
  std::vector<std::string> ways;  // further arguments, to choose from
};

// Adds the limit, or says that fio is not installed.
absl::Status AddFio(const FioJob& job, Prepared& prepared);

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_FIO_H_
