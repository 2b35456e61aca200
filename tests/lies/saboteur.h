// saboteur.h: does one harm to one message of all that pass between an engine and its daemon.
//
// Messages are counted over all connections of a run, in both directions, in the order in which
// they pass: frames of HTTP/2, pieces of the bulk port's bytes, messages of the attach socket.
//
// Threads: any. Ownership: outlives the proxies that ask it.
#ifndef CAIRN_TESTS_LIES_SABOTEUR_H_
#define CAIRN_TESTS_LIES_SABOTEUR_H_

#include <cstdint>
#include <span>
#include <vector>

#include "store/base/mutex.h"
#include "store/base/random.h"

namespace cairn::lies {

enum class Harm : uint8_t {
  kCut,       // the connection ends before it
  kTruncate,  // the connection ends in the middle of it
  kDelay,     // it and what follows on its way are held until Release
  kFlip,      // one bit
  kLength,    // a field that says how long something is
};
inline constexpr Harm kHarms[] = {Harm::kCut, Harm::kTruncate, Harm::kDelay, Harm::kFlip,
                                  Harm::kLength};
const char* HarmName(Harm harm);

// Where the lengths of a message are.
enum class Wire : uint8_t { kHttp2, kBulk, kAttach };

class Saboteur {
 public:
  // `message`: which one, counted from 0. `random` decides the bit and the length.
  Saboteur(Harm harm, uint64_t message, uint64_t random)
      : harm_(harm), target_(message), random_(random) {}

  // What the proxy does with the message, which may have been changed. Blocks while it is held.
  enum class Then : uint8_t { kPass, kCutBefore, kCutInside };
  Then Meet(Wire wire, std::vector<uint8_t>& message);

  // Ends the delay, now and for ever.
  void Release();
  bool fired() const;

 private:
  void ChangeLength(Wire wire, std::vector<uint8_t>& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Harm harm_;
  const uint64_t target_;
  mutable Mutex mutex_;
  SeededRandom random_ ABSL_GUARDED_BY(mutex_);
  uint64_t passed_ ABSL_GUARDED_BY(mutex_) = 0;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace cairn::lies

#endif  // CAIRN_TESTS_LIES_SABOTEUR_H_
