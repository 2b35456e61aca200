// child_process.h: this program once more, as a client that can be killed or stopped at any
// instruction.
//
// Threads:   one owner.
// Ownership: a child is killed and waited for when its object goes.
// Errors:    UNAVAILABLE: it could not be started, said nothing in time, or does not end.
#ifndef CAIRN_TESTS_CLIENTS_CHILD_PROCESS_H_
#define CAIRN_TESTS_CLIENTS_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "store/base/status.h"
#include "store/device/file_descriptor.h"

namespace cairn::clients {

class ChildProcess {
 public:
  // `arguments` of this program. It says a byte on its standard output for each thing done.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(
      const std::vector<std::string>& arguments);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;

  // Until it has done `count` more things. False: it ended before.
  absl::StatusOr<bool> AwaitDone(size_t count);
  // What it has done until now does not count.
  void Forget();
  void Signal(int signal);
  // Its wait status.
  absl::StatusOr<int> AwaitEnd();

 private:
  ChildProcess() = default;
  pid_t pid_ = 0;
  store::FileDescriptor said_;
  store::FileDescriptor process_;
};

// In the child.
void SayDone();

}  // namespace cairn::clients

#endif  // CAIRN_TESTS_CLIENTS_CHILD_PROCESS_H_
