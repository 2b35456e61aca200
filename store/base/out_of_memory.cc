#include "store/base/out_of_memory.h"

#include <unistd.h>

#include <cstdlib>
#include <new>
#include <string_view>

namespace cairn {

void EndWhenOutOfMemory() { std::set_new_handler(OutOfMemory); }

void OutOfMemory() {
  constexpr std::string_view kText =
      "out of memory: ending; what was acknowledged as durable is found at the next start\n";
  [[maybe_unused]] const ssize_t said = ::write(STDERR_FILENO, kText.data(), kText.size());
  std::abort();
}

}  // namespace cairn
