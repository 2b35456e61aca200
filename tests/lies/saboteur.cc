#include "tests/lies/saboteur.h"

#include <algorithm>

#include "cache/client/attach_protocol.h"
#include "tests/lies/http2_frames.h"

namespace cairn::lies {

const char* HarmName(Harm harm) {
  constexpr const char* kNames[] = {"cut", "truncate", "delay", "flip", "length"};
  return kNames[static_cast<size_t>(harm)];
}

Saboteur::Then Saboteur::Meet(Wire wire, std::vector<uint8_t>& message) {
  const MutexLock lock(&mutex_);
  if (passed_++ != target_) return Then::kPass;
  switch (harm_) {
    case Harm::kCut:
      return Then::kCutBefore;
    case Harm::kTruncate:
      return Then::kCutInside;
    case Harm::kDelay:
      mutex_.Await([this] { return released_; });
      return Then::kPass;
    case Harm::kFlip:
      message[random_.Next() % message.size()] ^= static_cast<uint8_t>(1 << random_.Next() % 8);
      return Then::kPass;
    case Harm::kLength:
      ChangeLength(wire, message);
      return Then::kPass;
  }
  return Then::kPass;
}

void Saboteur::ChangeLength(Wire wire, std::vector<uint8_t>& message) {
  // Of the bulk port's bytes the number is all the length there is.
  if (wire == Wire::kBulk) {
    message.resize(message.size() / 2 + random_.Next() % message.size());
    return;
  }
  size_t at = 0, bytes = 3;  // the frame's own, big endian
  if (wire == Wire::kAttach) {
    const bool answer = message.size() == sizeof(cache::AttachAnswer);
    at = answer ? offsetof(cache::AttachAnswer, bytes) : offsetof(cache::AttachRequest, bytes);
    bytes = sizeof(uint64_t);
  } else if (BeginsGrpcMessage(message) && random_.Next() % 2 == 0) {
    at = kFrameHeaderBytes + 1;
    bytes = 4;
  }
  if (at + bytes > message.size()) return;
  message[at + random_.Next() % bytes] ^= static_cast<uint8_t>(1 + random_.Next() % 255);
}

void Saboteur::Release() {
  const MutexLock lock(&mutex_);
  released_ = true;
}

bool Saboteur::fired() const {
  const MutexLock lock(&mutex_);
  return passed_ > target_;
}

}  // namespace cairn::lies
