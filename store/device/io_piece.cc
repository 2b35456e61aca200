#include "store/device/io_piece.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "store/base/limits.h"
#include "store/base/out_of_memory.h"
#include "store/device/errno_status.h"

namespace cairn::store {
namespace {

// EAGAIN and EINTR pass; a device that says nothing else for this long is taken for gone.
constexpr uint32_t kRetriesMax = 1000;

bool Aligned(uint64_t value) { return value % kIoAlignment == 0; }

// Nobody knows which of its requests a device that failed has taken.
void Fail(const IoPiece& piece, const absl::Status& status) {
  for (IoRequest& request : RequestsOf(piece)) {
    if (request.status.ok()) request.status = status;
    request.bytes_done = 0;
  }
}

// Whether the write, a piece by itself, goes on where the piece before it ends.
bool GoesOn(const IoPiece& before, const IoRequest& request) {
  return request.kind == IoKind::kWrite && before.data == nullptr &&
         before.request->kind == IoKind::kWrite && before.request->file == request.file &&
         before.request + before.requests == &request &&
         before.offset + before.bytes == request.offset &&
         before.bytes + request.bytes() <= kIoPieceBytes;
}

const char* Verb(const IoRequest& request) {
  return request.kind == IoKind::kRead ? "read" : "write";
}

}  // namespace

absl::Status CheckAligned(const IoRequest& request) {
  bool aligned = Aligned(request.offset);
  for (const std::span<uint8_t>& slice : request.slices) {
    aligned &= Aligned(slice.size()) && Aligned(reinterpret_cast<uintptr_t>(slice.data()));
  }
  if (aligned) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(Verb(request), " ", request.file->path(), " at ", request.offset, ": offset, ",
                   "sizes and addresses must be multiples of ", kIoAlignment));
}

std::vector<IoPiece> SplitIntoPieces(std::span<IoRequest> requests, bool gather) {
  std::vector<IoPiece> pieces;
  for (IoRequest& request : requests) {
    request.bytes_done = 0;
    request.pieces_left = 0;
    request.status = CheckAligned(request);
    if (!request.status.ok()) continue;
    request.bytes_done = request.bytes();
    uint64_t offset = request.offset;
    const auto add = [&](uint8_t* data, uint64_t length) {
      for (uint64_t at = 0; at < length; at += kIoPieceBytes) {
        const uint64_t bytes = std::min<uint64_t>(kIoPieceBytes, length - at);
        pieces.push_back({.request = &request,
                          .offset = offset,
                          .data = data == nullptr ? nullptr : data + at,
                          .bytes = bytes});
        offset += bytes;
        ++request.pieces_left;
      }
    };
    if (gather && request.bytes() >= kGatherBytesMin) {
      if (!pieces.empty() && GoesOn(pieces.back(), request)) {
        ++pieces.back().requests;
        pieces.back().bytes += request.bytes();
        request.pieces_left = 1;
      } else {
        add(nullptr, request.bytes());
      }
      continue;
    }
    for (const std::span<uint8_t>& slice : request.slices) add(slice.data(), slice.size());
  }
  return pieces;
}

std::span<uint8_t> GatheredSlice(const IoPiece& piece, uint64_t at) {
  uint64_t ahead = piece.offset - piece.request->offset + at;
  for (const IoRequest& request : RequestsOf(piece)) {
    for (const std::span<uint8_t>& slice : request.slices) {
      if (ahead < slice.size()) {
        return slice.subspan(ahead, std::min(slice.size() - ahead, piece.bytes - at));
      }
      ahead -= slice.size();
    }
  }
  return {};
}

bool AdvancePiece(IoPiece& piece, int64_t result) {
  IoRequest& request = *piece.request;
  if (result == -EINTR || result == -EAGAIN) {
    if (++piece.retries <= kRetriesMax) return true;
    result = -EIO;
  }
  if (result < 0) {
    Fail(piece, ErrnoStatus(static_cast<int>(-result), Verb(request), request.file->path()));
    return false;
  }
  const uint64_t moved = static_cast<uint64_t>(result);
  if (moved >= piece.bytes) return false;
  // Going on in the middle of an I/O unit would be refused under O_DIRECT, so the broken unit is
  // transferred again. If there is no whole one, no more will come.
  const uint64_t whole = moved / kIoAlignment * kIoAlignment;
  if (whole == 0) {
    if (request.kind == IoKind::kRead) {
      const uint64_t end = piece.offset + moved - request.offset;
      if (request.status.ok()) request.bytes_done = std::min(request.bytes_done, end);
    } else {
      Fail(piece, absl::UnavailableError(absl::StrCat("write ", request.file->path(), " at ",
                                                      piece.offset, ": the device took ", moved,
                                                      " of ", piece.bytes, " bytes and no more")));
    }
    return false;
  }
  piece.offset += whole;
  if (piece.data != nullptr) piece.data += whole;
  piece.bytes -= whole;
  piece.retries = 0;
  return true;
}

void FinishPiece(IoPiece& piece, const IoFinished& finished) {
  for (IoRequest& request : RequestsOf(piece)) {
    if (--request.pieces_left == 0 && finished) finished(request);
  }
}

void FinishWithoutPieces(std::span<IoRequest> requests, const IoFinished& finished) {
  if (!finished) return;
  for (IoRequest& request : requests) {
    if (request.pieces_left == 0) finished(request);
  }
}

IoBuffer::IoBuffer(uint64_t bytes) : size_(RoundUpToIo(bytes)) {
  if (size_ == 0) return;
  data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kIoAlignment, size_)));
  if (data_ == nullptr) OutOfMemory();
  std::memset(data_.get(), 0, size_);
}

void IoBuffer::Free::operator()(uint8_t* data) const { std::free(data); }

}  // namespace cairn::store
