#include "store/device/background_pin.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

namespace cairn::store {
namespace {

// Between pieces, for whoever waits for the driver meanwhile: its locks are not fair.
constexpr std::chrono::milliseconds kPause(1);

}  // namespace

BackgroundPin::BackgroundPin(Gpu& gpu, std::span<const uint8_t> memory, PinnedUse use,
                             uint64_t piece_bytes)
    : gpu_(gpu), memory_(memory), use_(use), piece_bytes_(piece_bytes) {
  thread_ = std::thread([this] { Work(); });
}

BackgroundPin::~BackgroundPin() {
  unwanted_.store(true, std::memory_order_relaxed);
  thread_.join();
}

void BackgroundPin::Work() {
  for (uint64_t done = 0; done < memory_.size();) {
    if (unwanted_.load(std::memory_order_relaxed)) return;
    const uint64_t bytes = std::min<uint64_t>(piece_bytes_, memory_.size() - done);
    absl::StatusOr<std::unique_ptr<Gpu::Pinned>> piece =
        gpu_.Pin(memory_.subspan(done, bytes), use_);
    if (!piece.ok()) return End(piece.status());
    pieces_.push_back(*std::move(piece));
    done += bytes;
    pinned_bytes_.store(done, std::memory_order_release);
    std::this_thread::sleep_for(kPause);
  }
  End(absl::OkStatus());
}

void BackgroundPin::End(absl::Status status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  status_ = std::move(status);
  over_.notify_all();
}

bool BackgroundPin::Holds(const uint8_t* at, uint64_t bytes) const {
  const uint64_t pinned = pinned_bytes();
  const std::less<const uint8_t*> before;
  if (before(at, memory_.data()) || before(memory_.data() + pinned, at)) return false;
  return bytes <= pinned - static_cast<uint64_t>(at - memory_.data());
}

absl::Status BackgroundPin::WaitFor(absl::Duration patience) const {
  std::unique_lock<std::mutex> lock(mutex_);
  if (over_.wait_for(lock, absl::ToChronoNanoseconds(patience),
                     [this] { return status_.has_value(); })) {
    return *status_;
  }
  return absl::DeadlineExceededError(
      absl::StrCat(pinned_bytes(), " of ", memory_.size(), " bytes are pinned so far"));
}

}  // namespace cairn::store
