// fuzz_input.h: what every target of tests/fuzz shares: fields taken off the front of an input, and
// checks that end the process where a property does not hold, so that a fuzzer keeps the input.
//
// Threads: values. Ownership: FuzzInput views the fuzzer's bytes, valid during one call.
#ifndef CAIRN_TESTS_FUZZ_FUZZ_INPUT_H_
#define CAIRN_TESTS_FUZZ_FUZZ_INPUT_H_

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include "store/base/status.h"

// Called by libFuzzer, or by replay_main.cc.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

#define FUZZ_CHECK(condition)                                                            \
  do {                                                                                   \
    if (!(condition)) ::cairn::fuzz::PropertyFailed(__FILE__, __LINE__, #condition, ""); \
  } while (false)

#define FUZZ_CHECK_OK(status)                                                     \
  do {                                                                            \
    if (const absl::Status fuzz_status_ = (status); !fuzz_status_.ok()) {         \
      ::cairn::fuzz::PropertyFailed(__FILE__, __LINE__, #status,                  \
                                    std::string(fuzz_status_.message()).c_str()); \
    }                                                                             \
  } while (false)

namespace cairn::fuzz {

[[noreturn]] inline void PropertyFailed(const char* file, int line, const char* property,
                                        const char* detail) {
  std::fprintf(stderr, "%s:%d: does not hold: %s %s\n", file, line, property, detail);
  std::abort();
}

// What a caller may be told of a bad input: why, and not the input itself.
inline void CheckRefusal(const absl::Status& status) {
  constexpr size_t kMessageBytesMax = 1024;
  FUZZ_CHECK(!status.ok());
  FUZZ_CHECK(!status.message().empty());
  FUZZ_CHECK(status.message().size() <= kMessageBytesMax);
}

// Beyond its end an input reads as zeroes.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : left_(data, size) {}

  bool empty() const { return left_.empty(); }

  template <typename T>
  T Take() {
    static_assert(std::is_unsigned_v<T>);
    T value = 0;
    const std::span<const uint8_t> bytes = TakeBytes(sizeof(T));
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  // At most so many: fewer at the end.
  std::span<const uint8_t> TakeBytes(size_t count) {
    const std::span<const uint8_t> bytes = left_.first(std::min(count, left_.size()));
    left_ = left_.subspan(bytes.size());
    return bytes;
  }
  std::string TakeText(size_t count) {
    const std::span<const uint8_t> bytes = TakeBytes(count);
    return std::string(bytes.begin(), bytes.end());
  }
  std::span<const uint8_t> TakeRest() { return TakeBytes(left_.size()); }
  std::string TakeRestText() { return TakeText(left_.size()); }

 private:
  std::span<const uint8_t> left_;
};

}  // namespace cairn::fuzz

#endif  // CAIRN_TESTS_FUZZ_FUZZ_INPUT_H_
