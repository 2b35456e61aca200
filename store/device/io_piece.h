// io_piece.h: requests cut into pieces that the kernel is given one by one, and what the result of
// each means. Kept apart from the ring so that short transfers, retries and the end of a file are
// the same for io_uring and for pread, and can be tested without either.
//
// Threads: values. Units: bytes.
#ifndef CAIRN_STORE_DEVICE_IO_PIECE_H_
#define CAIRN_STORE_DEVICE_IO_PIECE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "store/device/file_system.h"

namespace cairn::store {

// A block's rows with their header are one piece for the layouts we know: on virtio, cutting them
// into several gained nothing at any depth and cost a wake-up each. Two of Flash's are one piece
// where they go to the device side by side, which takes 900 kB a sixth faster than 450.
inline constexpr uint64_t kIoPieceBytes = 1ull << 20;

struct IoPiece {
  IoRequest* request = nullptr;
  uint32_t requests = 1;  // that it covers, from `request` on; where several, each is covered whole
  uint64_t offset = 0;    // in the file
  uint8_t* data = nullptr;  // null: gathered, may span the request's slices (GatheredSlice)
  uint64_t bytes = 0;
  uint32_t retries = 0;  // in a row without progress
  int32_t slot = -1;     // of IoBounce, while the bytes go through it
};

// From this size on, going through memory in huge pages (io_bounce.h) gains more than its copy
// costs.
inline constexpr uint64_t kGatherBytesMin = 64ull << 10;

// Resets each request's status and bytes_done to success and counts its pieces; unaligned ones get
// their error instead of pieces. With `gather`, pieces of large requests have no address, and
// writes side by side in the file, one after the other in `requests`, share pieces.
std::vector<IoPiece> SplitIntoPieces(std::span<IoRequest> requests, bool gather = false);

// The part of a gathered piece from byte `at` on that lies in one slice of a request.
std::span<uint8_t> GatheredSlice(const IoPiece& piece, uint64_t at);
inline std::span<IoRequest> RequestsOf(const IoPiece& piece) {
  return {piece.request, piece.requests};
}

// Takes the kernel's answer to a piece: a count of bytes or a negative errno. Returns whether the
// piece, then shortened to what is missing, must be given to the kernel again. Failures and the end
// of the file are noted in its requests.
bool AdvancePiece(IoPiece& piece, int64_t result);

// Call once for a piece that AdvancePiece is done with. Tells of requests that it was the last of.
void FinishPiece(IoPiece& piece, const IoFinished& finished);
// Tells of requests that have no pieces: refused or empty ones.
void FinishWithoutPieces(std::span<IoRequest> requests, const IoFinished& finished);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_IO_PIECE_H_
