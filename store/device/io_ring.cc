#include "store/device/io_ring.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "store/device/errno_status.h"
#include "store/device/posix_file.h"

namespace cairn::store {

struct IoRing::Work {
  std::span<IoPiece> pieces;
  size_t next = 0;
  std::vector<IoPiece*> again = {};
  unsigned in_flight = 0;
  unsigned bounced_reads = 0;  // of in_flight
  unsigned bounced_reads_max = 0;
};

namespace {

bool IsBouncedRead(const IoPiece& piece) {
  return piece.data == nullptr && piece.request->kind == IoKind::kRead;
}

}  // namespace

absl::StatusOr<std::unique_ptr<IoRing>> IoRing::Create(bool bounce) {
  std::unique_ptr<IoRing> ring(new IoRing);
  // We enter the kernel for completions anyway, so nothing need interrupt us with them.
  int result = io_uring_queue_init(kDepth, &ring->ring_, IORING_SETUP_COOP_TASKRUN);
  if (result == -EINVAL) result = io_uring_queue_init(kDepth, &ring->ring_, 0);  // before 5.19
  if (result < 0) return ErrnoStatus(-result, "set up", "io_uring");
  ring->open_ = true;
  ring->wants_bounce_ = bounce;
  return ring;
}

IoRing::~IoRing() {
  if (open_) io_uring_queue_exit(&ring_);
}

bool IoRing::CanStart(const Work& work, const IoPiece& piece) const {
  if (IsBouncedRead(piece) && work.bounced_reads >= work.bounced_reads_max) return false;
  return piece.data != nullptr || bounce_->HasFreeSlot();
}

void IoRing::Prepare(IoPiece& piece) {
  io_uring_sqe* const entry = io_uring_get_sqe(&ring_);  // never null: at most kDepth in flight
  const int fd = static_cast<const PosixFile*>(piece.request->file)->descriptor();
  const auto bytes = static_cast<unsigned>(piece.bytes);
  const bool bounced = piece.data == nullptr;
  uint8_t* const data = bounced ? bounce_->Enter(piece) : piece.data;
  const bool registered = bounced && bounce_->registered();
  if (piece.request->kind == IoKind::kRead) {
    if (registered) {
      io_uring_prep_read_fixed(entry, fd, data, bytes, piece.offset, 0);
    } else {
      io_uring_prep_read(entry, fd, data, bytes, piece.offset);
    }
  } else if (registered) {
    io_uring_prep_write_fixed(entry, fd, data, bytes, piece.offset, 0);
  } else {
    io_uring_prep_write(entry, fd, data, bytes, piece.offset);
  }
  io_uring_sqe_set_data(entry, &piece);
}

void IoRing::Enter(unsigned completions) {
  const int result = io_uring_submit_and_wait(&ring_, completions);
  if (result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY) return;
  // The kernel may still write to buffers that our caller is about to free, and no call is left
  // that would tell when it stops.
  std::fprintf(stderr, "cairn: io_uring_enter failed with errno %d while I/O is in flight\n",
               -result);
  std::abort();
}

void IoRing::Fill(Work& work) {
  while (work.in_flight < kDepth) {
    IoPiece* piece = nullptr;
    if (!work.again.empty()) {
      piece = work.again.back();
      if (!CanStart(work, *piece)) return;
      work.again.pop_back();
    } else {
      if (work.next == work.pieces.size() || !CanStart(work, work.pieces[work.next])) return;
      piece = &work.pieces[work.next++];
    }
    Prepare(*piece);
    ++work.in_flight;
    if (IsBouncedRead(*piece)) ++work.bounced_reads;
    // The device works on the first pieces of a write while the next are copied.
    if (piece->slot >= 0 && piece->request->kind == IoKind::kWrite) Enter(0);
  }
}

void IoRing::Start(Work& work) {
  const unsigned before = work.in_flight;
  Fill(work);
  if (work.in_flight > before) Enter(0);
}

// Takes one completion. False if there is none.
bool IoRing::Reap(Work& work, const IoFinished& finished) {
  io_uring_cqe* done = nullptr;
  if (io_uring_peek_cqe(&ring_, &done) != 0) return false;
  IoPiece* const piece = static_cast<IoPiece*>(io_uring_cqe_get_data(done));
  const int result = done->res;
  io_uring_cqe_seen(&ring_, done);
  --work.in_flight;
  if (IsBouncedRead(*piece)) --work.bounced_reads;
  // The device gets its next piece before we go to work on this one's bytes.
  Start(work);
  if (piece->slot >= 0) bounce_->Leave(*piece, result);
  const bool again = AdvancePiece(*piece, result);
  if (again) work.again.push_back(piece);
  Start(work);  // what waited for the slot, or for what is missing of this piece
  if (!again) FinishPiece(*piece, finished);
  return true;
}

void IoRing::Run(std::span<IoRequest> requests, const IoFinished& finished) {
  const auto large = [](const IoRequest& r) { return r.bytes() >= kGatherBytesMin; };
  if (wants_bounce_ && std::any_of(requests.begin(), requests.end(), large)) {
    bounce_ = IoBounce::Create();
    if (bounce_ != nullptr) bounce_->Register(ring_);
    wants_bounce_ = false;
  }
  std::vector<IoPiece> pieces = SplitIntoPieces(requests, bounce_ != nullptr);
  FinishWithoutPieces(requests, finished);
  Work work{.pieces = pieces};
  work.bounced_reads_max = BouncedReadsInFlightMax(
      static_cast<size_t>(std::count_if(pieces.begin(), pieces.end(), IsBouncedRead)));
  Fill(work);
  while (work.in_flight > 0) {
    Enter(1);
    while (Reap(work, finished)) {
    }
  }
}

}  // namespace cairn::store
