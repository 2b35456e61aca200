// stopped_reader.h: for tests: memory whose first reader stops in the middle of it until it is let
// go on, so that a test says what happens while something copies: the pages are made unreadable,
// and the fault is not answered before.
//
// Threads:   one at a time may read; the others are the test's. One such object at a time.
// Ownership: the memory is the caller's, and outlives this and its reader.
// Errors:    checks that end the process. Any other fault ends the process as it always does.
#ifndef CAIRN_CACHE_CORE_STOPPED_READER_H_
#define CAIRN_CACHE_CORE_STOPPED_READER_H_

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <span>

namespace cairn::cache {

class StoppedReader {
 public:
  // `memory`: whole pages.
  explicit StoppedReader(std::span<const uint8_t> memory) : memory_(memory) {
    struct sigaction action {};
    action.sa_sigaction = OnFault;
    action.sa_flags = SA_SIGINFO;
    only_ = this;
    Check(::pipe(stopped_.data()) == 0 && ::pipe(go_on_.data()) == 0);
    Check(::sigaction(SIGSEGV, &action, &before_) == 0);
    Protect(PROT_NONE);
  }
  ~StoppedReader() {
    Check(::sigaction(SIGSEGV, &before_, nullptr) == 0);
    for (const int fd : {stopped_[0], stopped_[1], go_on_[0], go_on_[1]}) ::close(fd);
    only_ = nullptr;
  }
  StoppedReader(const StoppedReader&) = delete;
  StoppedReader& operator=(const StoppedReader&) = delete;

  // Returns when the reader has come and stands.
  void Await() const {
    char byte = 0;
    Check(::read(stopped_[0], &byte, 1) == 1);
  }
  // Whoever reads now, or later, reads on.
  void LetGo() const {
    Protect(PROT_READ);
    Check(::write(go_on_[1], "", 1) == 1);
  }

 private:
  static void Check(bool done) {
    if (!done) ::abort();
  }
  void Protect(int protection) const {
    Check(::mprotect(const_cast<uint8_t*>(memory_.data()), memory_.size(), protection) == 0);
  }
  // On the reader's thread. Only what a signal handler may do.
  static void OnFault(int, siginfo_t* info, void*) {
    const StoppedReader* const me = only_;
    const auto* const at = static_cast<const uint8_t*>(info->si_addr);
    if (me == nullptr || at < me->memory_.data() || at >= me->memory_.data() + me->memory_.size()) {
      ::signal(SIGSEGV, SIG_DFL);  // and it faults again
      return;
    }
    char byte = 0;
    Check(::write(me->stopped_[1], "", 1) == 1 && ::read(me->go_on_[0], &byte, 1) == 1);
  }

  static inline std::atomic<const StoppedReader*> only_ = nullptr;
  const std::span<const uint8_t> memory_;
  std::array<int, 2> stopped_{}, go_on_{};  // pipes
  struct sigaction before_ {};
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_STOPPED_READER_H_
