#include "engine/state/reused_memory.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "store/base/mutex.h"

namespace cairn::engine {
namespace {

struct Piece {
  std::unique_ptr<uint8_t[]> data;
  size_t bytes = 0;
};

class Pieces {
 public:
  Piece Take(size_t bytes) {
    {
      const MutexLock lock(&mutex_);
      const auto fits = [bytes](const Piece& piece) { return piece.bytes == bytes; };
      // The one let go last may be in a cache still.
      if (const auto it = std::find_if(free_.rbegin(), free_.rend(), fits); it != free_.rend()) {
        Piece piece = std::move(*it);
        free_.erase(std::next(it).base());
        return piece;
      }
    }
    return {std::make_unique_for_overwrite<uint8_t[]>(bytes), bytes};
  }
  void GiveBack(Piece piece) {
    Piece oldest;  // freed after the lock
    const MutexLock lock(&mutex_);
    free_.push_back(std::move(piece));
    if (free_.size() <= kReusedMax) return;
    oldest = std::move(free_.front());
    free_.pop_front();
  }

 private:
  Mutex mutex_;
  std::deque<Piece> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::shared_ptr<uint8_t> TakeReused(size_t bytes) {
  static auto* const pieces = new Pieces;  // holders may outlive main
  struct Held {
    explicit Held(Piece taken) : piece(std::move(taken)) {}
    Held(const Held&) = delete;
    ~Held() { pieces->GiveBack(std::move(piece)); }
    Piece piece;
  };
  const auto held = std::make_shared<Held>(pieces->Take(bytes));
  return {held, held->piece.data.get()};
}

}  // namespace cairn::engine
