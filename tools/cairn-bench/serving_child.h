// serving_child.h: this program again, as a process that serves a comparison's other side.
//
// Threads:   one.
// Ownership: the child ends when this goes, or its parent dies: its standard input ends.
// Errors:    UNAVAILABLE: it did not start, or said nothing.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_SERVING_CHILD_H_
#define CAIRN_TOOLS_CAIRN_BENCH_SERVING_CHILD_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "store/base/status.h"
#include "store/device/file_descriptor.h"

namespace cairn::bench {

class ServingChild {
 public:
  // `cairn-bench COMMAND DIRECTORY`. Returns once the child has said a line.
  static absl::StatusOr<std::unique_ptr<ServingChild>> Start(const std::string& command,
                                                             const std::string& directory);
  ~ServingChild();
  ServingChild(const ServingChild&) = delete;
  const std::string& said() const { return said_; }

  // Of the child: says `line`, and serves on until its standard input ends; then ends the process,
  // with all that it has open.
  [[noreturn]] static void ServeUntilLetGo(const std::string& line);

 private:
  ServingChild() = default;
  pid_t child_ = -1;
  store::FileDescriptor input_;  // its end ends the process
  std::string said_;
};

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_SERVING_CHILD_H_
