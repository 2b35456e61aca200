// bare_call.h: the barest gRPC unary call there can be on a Unix socket, to a process of its own:
// what any call to a daemon costs at least.
//
// Threads: BareServe is a process's main; BareCall is used by one thread.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_BARE_CALL_H_
#define CAIRN_TOOLS_CAIRN_BENCH_BARE_CALL_H_

#include <memory>
#include <string>

#include "store/base/status.h"

namespace cairn::bench {

inline constexpr char kBareServe[] = "bare-serve";

// Answers Release of empty messages on `directory`/bare.sock until its standard input ends.
int BareServe(const std::string& directory);

class BareCall {
 public:
  static absl::StatusOr<std::unique_ptr<BareCall>> Start(const std::string& directory);
  virtual ~BareCall() = default;
  virtual absl::Status Call() = 0;
};

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_BARE_CALL_H_
