#include "store/device/background_pin.h"

#include <algorithm>
#include <functional>

namespace cairn::store {

BackgroundPin::BackgroundPin(Gpu& gpu, std::span<const uint8_t> memory, PinnedUse use,
                             uint64_t piece_bytes)
    : gpu_(gpu), memory_(memory), use_(use), piece_bytes_(piece_bytes) {
  thread_ = std::thread([this] { Work(); });
}

BackgroundPin::~BackgroundPin() {
  ended_.store(true, std::memory_order_relaxed);
  WaitUntilOver().IgnoreError();
}

void BackgroundPin::Work() {
  for (uint64_t done = 0; done < memory_.size() && !ended_.load(std::memory_order_relaxed);) {
    const uint64_t bytes = std::min<uint64_t>(piece_bytes_, memory_.size() - done);
    absl::StatusOr<std::unique_ptr<Gpu::Pinned>> piece =
        gpu_.Pin(memory_.subspan(done, bytes), use_);
    if (!piece.ok()) {
      status_ = piece.status();
      return;
    }
    pieces_.push_back(*std::move(piece));
    done += bytes;
    pinned_bytes_.store(done, std::memory_order_release);
  }
}

bool BackgroundPin::Holds(const uint8_t* at, uint64_t bytes) const {
  const uint64_t pinned = pinned_bytes();
  const std::less<const uint8_t*> before;
  if (before(at, memory_.data()) || before(memory_.data() + pinned, at)) return false;
  const auto begin = static_cast<uint64_t>(at - memory_.data());
  return bytes > 0 && bytes <= pinned - begin &&
         begin / piece_bytes_ == (begin + bytes - 1) / piece_bytes_;
}

absl::Status BackgroundPin::WaitUntilOver() {
  if (thread_.joinable()) thread_.join();
  return status_;
}

}  // namespace cairn::store
