#include "store/base/thread.h"

#include <atomic>
#include <system_error>
#include <utility>

namespace cairn {
namespace {

std::atomic<int> refusing{0};  // NoThreads that live

absl::Status NoneToHave(absl::string_view why) {
  return absl::ResourceExhaustedError(
      absl::StrCat("no thread is to be had (", why, "): raise the limit of tasks"));
}

}  // namespace

absl::StatusOr<std::thread> StartThread(std::function<void()> run) {
  if (refusing > 0) return NoneToHave("as a test wants it");
  try {
    return std::thread(std::move(run));
  } catch (const std::system_error& error) {
    return NoneToHave(error.what());
  }
}

NoThreads::NoThreads() { ++refusing; }
NoThreads::~NoThreads() { --refusing; }

}  // namespace cairn
