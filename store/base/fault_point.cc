// Compiled into the programs of tests/crash only.
#include "store/base/fault_point.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

namespace cairn {
namespace {

FaultBoard* MapBoard() {
  struct stat info = {};
  if (::fstat(kFaultBoardDescriptor, &info) != 0 ||
      static_cast<uint64_t>(info.st_size) < sizeof(FaultBoard)) {
    return nullptr;
  }
  void* mapped = ::mmap(nullptr, sizeof(FaultBoard), PROT_READ | PROT_WRITE, MAP_SHARED,
                        kFaultBoardDescriptor, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* board = static_cast<FaultBoard*>(mapped);
  if (board->magic != FaultBoard::kMagic) return nullptr;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is killed leaves no daemon behind
  return board;
}

// Before main: later the number could be another file's.
FaultBoard* const board = MapBoard();

}  // namespace

void HitFaultPoint(FaultPoint point) {
  if (board == nullptr) return;
  const auto index = static_cast<uint32_t>(point);
  ++board->hits[index];
  if (board->armed != index || board->hits_left.fetch_sub(1) > 1) return;
  ::raise(SIGKILL);
}

}  // namespace cairn
