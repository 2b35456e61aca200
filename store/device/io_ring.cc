#include "store/device/io_ring.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "store/device/errno_status.h"
#include "store/device/posix_file.h"

namespace cairn::store {

absl::StatusOr<std::unique_ptr<IoRing>> IoRing::Create() {
  std::unique_ptr<IoRing> ring(new IoRing);
  const int result = io_uring_queue_init(kDepth, &ring->ring_, 0);
  if (result < 0) return ErrnoStatus(-result, "set up", "io_uring");
  ring->open_ = true;
  return ring;
}

IoRing::~IoRing() {
  if (open_) io_uring_queue_exit(&ring_);
}

void IoRing::Prepare(IoPiece& piece) {
  io_uring_sqe* const entry = io_uring_get_sqe(&ring_);  // never null: at most kDepth in flight
  const int fd = static_cast<const PosixFile*>(piece.request->file)->descriptor();
  const auto bytes = static_cast<unsigned>(piece.bytes);
  if (piece.request->kind == IoKind::kRead) {
    io_uring_prep_read(entry, fd, piece.data, bytes, piece.offset);
  } else {
    io_uring_prep_write(entry, fd, piece.data, bytes, piece.offset);
  }
  io_uring_sqe_set_data(entry, &piece);
}

void IoRing::SubmitAndWait() {
  const int result = io_uring_submit_and_wait(&ring_, 1);
  if (result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY) return;
  // The kernel may still write to buffers that our caller is about to free, and no call is left
  // that would tell when it stops.
  std::fprintf(stderr, "cairn: io_uring_enter failed with errno %d while I/O is in flight\n",
               -result);
  std::abort();
}

void IoRing::Run(std::span<IoPiece> pieces) {
  size_t next = 0;
  unsigned in_flight = 0;
  std::vector<IoPiece*> again;
  while (next < pieces.size() || !again.empty() || in_flight > 0) {
    while (in_flight < kDepth && (next < pieces.size() || !again.empty())) {
      if (!again.empty()) {
        Prepare(*again.back());
        again.pop_back();
      } else {
        Prepare(pieces[next++]);
      }
      ++in_flight;
    }
    SubmitAndWait();
    io_uring_cqe* done = nullptr;
    while (io_uring_peek_cqe(&ring_, &done) == 0) {
      IoPiece* const piece = static_cast<IoPiece*>(io_uring_cqe_get_data(done));
      const int result = done->res;
      io_uring_cqe_seen(&ring_, done);
      --in_flight;
      if (AdvancePiece(*piece, result)) again.push_back(piece);
    }
  }
}

}  // namespace cairn::store
