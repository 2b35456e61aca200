// io_bounce.h: a ring's own memory in huge pages, registered with the kernel once, through which
// gathered pieces (io_piece.h) go.
//
// A device sees each 4 KiB page of ordinary memory as a place of its own; a virtual one pays for
// every place (half of the speed was measured on virtio), and the kernel looks every page up. A
// piece that goes through here is one or two places, pinned before. The price is a copy, while the
// device works on other pieces; where a request's parts are known it is their check as well.
//
// Threads:   externally synchronised, as its ring.
// Ownership: owns the memory; destroyed after its ring.
// Errors:    none: without huge pages there is none of it, and pieces go directly.
#ifndef CAIRN_STORE_DEVICE_IO_BOUNCE_H_
#define CAIRN_STORE_DEVICE_IO_BOUNCE_H_

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "store/device/io_piece.h"

namespace cairn::store {

inline constexpr int32_t kBounceSlots = 16;

// How many of a batch's `pieces` are read through bounce memory at once.
//
// A virtual device works one by one through all that it has been given and tells of it when there
// is no more: it would stand still while we copy and check all of a small batch. So a quarter waits
// until the first of the others are there, and keeps it busy while we work on these. Slots are left
// over, in which that quarter can start before others are emptied.
unsigned BouncedReadsInFlightMax(size_t pieces);

class IoBounce {
 public:
  // Null where the kernel has no huge pages for us.
  static std::unique_ptr<IoBounce> Create();
  ~IoBounce();
  IoBounce(const IoBounce&) = delete;

  // Pins the memory for `ring`. A refusal (locked memory) leaves the pieces to be given by address.
  void Register(io_uring& ring);
  bool registered() const { return registered_; }

  bool HasFreeSlot() const { return !free_.empty(); }
  // Gives the piece a slot, with the bytes of a write in it. Sets the parts_seen of its requests,
  // of a write that has parts where the piece is whole. REQUIRES: HasFreeSlot.
  uint8_t* Enter(IoPiece& piece);
  // The kernel's answer is here: brings `result` bytes of a read home, if it is a count, and frees
  // the slot. Sets the request's parts_seen, of a read that has parts and is whole.
  void Leave(IoPiece& piece, int64_t result);

 private:
  IoBounce() = default;
  uint8_t* Slot(int32_t slot) const;

  uint8_t* mapped_ = nullptr;
  uint8_t* slots_ = nullptr;  // aligned to a huge page, within mapped_
  std::vector<int32_t> free_;
  bool registered_ = false;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_IO_BOUNCE_H_
