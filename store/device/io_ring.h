// io_ring.h: one io_uring, used by one thread at a time. Large pieces go through its IoBounce.
//
// Threads: externally synchronised. Errors: Create tells whether the kernel allows it at all.
#ifndef CAIRN_STORE_DEVICE_IO_RING_H_
#define CAIRN_STORE_DEVICE_IO_RING_H_

#include <liburing.h>

#include <memory>
#include <span>
#include <vector>

#include "store/device/io_bounce.h"
#include "store/device/io_piece.h"

namespace cairn::store {

class IoRing {
 public:
  // Pieces in flight at once; beyond it a fast NVMe gains nothing.
  static constexpr unsigned kDepth = 32;

  // With `bounce`, its memory is taken at the first large piece.
  static absl::StatusOr<std::unique_ptr<IoRing>> Create(bool bounce);
  ~IoRing();
  IoRing(const IoRing&) = delete;  // the kernel knows the ring by its address

  // Returns when all requests are done or failed; no buffer is in the kernel's hands afterwards.
  // `finished` hears of each after its last piece, while others are in flight.
  void Run(std::span<IoRequest> requests, const IoFinished& finished);

 private:
  struct Work;
  IoRing() = default;
  bool CanStart(const Work& work, const IoPiece& piece) const;
  void Prepare(IoPiece& piece);
  void Fill(Work& work);   // prepares what can start
  void Start(Work& work);  // and gives it to the kernel
  bool Reap(Work& work, const IoFinished& finished);
  // Gives the kernel what is prepared and waits for at least `completions`.
  void Enter(unsigned completions);

  io_uring ring_{};
  bool open_ = false;
  bool wants_bounce_ = false;
  std::unique_ptr<IoBounce> bounce_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_IO_RING_H_
