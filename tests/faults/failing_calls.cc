#include "tests/faults/failing_calls.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "store/base/limits.h"

namespace cairn::faults {
namespace {

struct Plan {
  CallFault fault = CallFault::kEio;
  uint64_t number = 0;  // 0: unarmed
  bool for_ever = false;
  uint64_t calls = 0;
  bool struck = false;
} plan;

// What a call is, as far as faults go.
struct Call {
  bool transfers = false;
  bool takes_room = false;
  bool restarts = false;  // its caller goes on after EINTR
};

bool CanStrike(const Call& call) {
  switch (plan.fault) {
    case CallFault::kEio:
      return true;
    case CallFault::kEnospc:
      return call.takes_room;
    case CallFault::kEintr:
      return call.transfers || (call.restarts && !plan.for_ever);
    case CallFault::kEagain:
    case CallFault::kShort:
      return call.transfers;
  }
  return false;
}

bool Struck(const Call& call) {
  if (plan.number == 0 || !CanStrike(call)) return false;
  ++plan.calls;
  const bool strikes = plan.for_ever ? plan.calls >= plan.number : plan.calls == plan.number;
  plan.struck |= strikes;
  return strikes;
}

int Errno() {
  switch (plan.fault) {
    case CallFault::kEnospc:
      return ENOSPC;
    case CallFault::kEintr:
      return EINTR;
    case CallFault::kEagain:
      return EAGAIN;
    default:
      return EIO;
  }
}

// -1 with errno, or what `call` gives.
template <typename Make>
auto Or(const Call& call, Make make) -> decltype(make()) {
  if (!Struck(call)) return make();
  errno = Errno();
  return -1;
}

// A short transfer moves whole I/O units, if there are two; a write may also break one.
size_t Shortened(size_t bytes, bool is_write) {
  const size_t units = bytes / kIoAlignment;
  if (units >= 2) return units / 2 * kIoAlignment;
  return is_write ? bytes / 2 : bytes;
}

}  // namespace

const char* NameOf(CallFault fault) {
  constexpr const char* kNames[] = {"EIO", "ENOSPC", "EINTR", "EAGAIN", "a short transfer"};
  return kNames[static_cast<size_t>(fault)];
}

void Arm(CallFault fault, uint64_t number, bool for_ever) {
  plan = {.fault = fault, .number = number, .for_ever = for_ever};
}

bool Disarm() {
  plan.number = 0;
  return plan.struck;
}

int StrikeBeside() { return Struck({.takes_room = true}) ? Errno() : 0; }

}  // namespace cairn::faults

using cairn::faults::Or;
using cairn::faults::plan;
using cairn::faults::Shortened;
using cairn::faults::Struck;

extern "C" {

ssize_t pread(int fd, void* data, size_t bytes, off_t offset) {
  const auto read = [&](size_t count) { return ::syscall(SYS_pread64, fd, data, count, offset); };
  if (plan.fault == cairn::faults::CallFault::kShort) {
    return read(Struck({.transfers = true}) ? Shortened(bytes, false) : bytes);
  }
  return Or({.transfers = true}, [&] { return read(bytes); });
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  const auto write = [&](size_t count) { return ::syscall(SYS_pwrite64, fd, data, count, offset); };
  if (plan.fault == cairn::faults::CallFault::kShort) {
    return write(Struck({.transfers = true}) ? Shortened(bytes, true) : bytes);
  }
  return Or({.transfers = true, .takes_room = true}, [&] { return write(bytes); });
}

int fdatasync(int) {
  return Or({.restarts = true}, [] { return 0; });
}
int fsync(int) {
  return Or({.restarts = true}, [] { return 0; });
}
int ftruncate(int fd, off_t bytes) noexcept {
  return Or({.restarts = true},
            [&] { return static_cast<int>(::syscall(SYS_ftruncate, fd, bytes)); });
}
int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  return Or({.takes_room = true, .restarts = true},
            [&] { return static_cast<int>(::syscall(SYS_fallocate, fd, mode, offset, bytes)); });
}
int rename(const char* from, const char* to) noexcept {
  return Or({.takes_room = true},
            [&] { return static_cast<int>(::syscall(SYS_rename, from, to)); });
}
int unlink(const char* path) noexcept {
  return Or({}, [&] { return static_cast<int>(::syscall(SYS_unlink, path)); });
}
int mkdir(const char* path, mode_t mode) noexcept {
  return Or({.takes_room = true},
            [&] { return static_cast<int>(::syscall(SYS_mkdir, path, mode)); });
}

}  // extern "C"
