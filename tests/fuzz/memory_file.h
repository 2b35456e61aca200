// memory_file.h: gives bytes to a parser that takes a path, without touching a disk: one file in
// memory for the whole process, under its name in /proc.
//
// Threads: one.
#ifndef CAIRN_TESTS_FUZZ_MEMORY_FILE_H_
#define CAIRN_TESTS_FUZZ_MEMORY_FILE_H_

#include <sys/mman.h>
#include <unistd.h>

#include <span>
#include <string>

#include "tests/fuzz/fuzz_input.h"

namespace cairn::fuzz {

// The path of a file of these bytes, until the next call. No mapping of it may be left by then.
inline std::string MemoryFile(std::span<const uint8_t> bytes) {
  static const int descriptor = ::memfd_create("fuzz", MFD_CLOEXEC);
  FUZZ_CHECK(descriptor >= 0);
  FUZZ_CHECK(::ftruncate(descriptor, static_cast<off_t>(bytes.size())) == 0);
  FUZZ_CHECK(::pwrite(descriptor, bytes.data(), bytes.size(), 0) ==
             static_cast<ssize_t>(bytes.size()));
  return "/proc/self/fd/" + std::to_string(descriptor);
}

}  // namespace cairn::fuzz

#endif  // CAIRN_TESTS_FUZZ_MEMORY_FILE_H_
