// io_ring.h: one io_uring, used by one thread at a time.
//
// Threads: externally synchronised. Errors: Create tells whether the kernel allows it at all.
#ifndef CAIRN_STORE_DEVICE_IO_RING_H_
#define CAIRN_STORE_DEVICE_IO_RING_H_

#include <liburing.h>

#include <memory>
#include <span>

#include "store/device/io_piece.h"

namespace cairn::store {

class IoRing {
 public:
  // Pieces in flight at once; beyond it a fast NVMe gains nothing.
  static constexpr unsigned kDepth = 32;

  static absl::StatusOr<std::unique_ptr<IoRing>> Create();
  ~IoRing();
  IoRing(const IoRing&) = delete;  // the kernel knows the ring by its address
  IoRing& operator=(const IoRing&) = delete;

  // Returns when all pieces are done or failed; no buffer is in the kernel's hands afterwards.
  void Run(std::span<IoPiece> pieces);

 private:
  IoRing() = default;
  void Prepare(IoPiece& piece);
  void SubmitAndWait();

  io_uring ring_{};
  bool open_ = false;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_IO_RING_H_
