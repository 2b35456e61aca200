#include "store/device/io_bounce.h"

#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "store/base/checksum.h"
#include "store/base/memory_copy.h"

namespace cairn::store {
namespace {

constexpr uint64_t kHugePageBytes = 2ull << 20;
constexpr uint64_t kBounceBytes = static_cast<uint64_t>(kBounceSlots) * kIoPieceBytes;
constexpr uint64_t kMappedBytes = kBounceBytes + kHugePageBytes;  // to align within
static_assert(kBounceBytes % kHugePageBytes == 0);

void BringHome(const IoPiece& piece, std::span<const uint8_t> arrived) {
  for (uint64_t at = 0; at < arrived.size();) {
    std::span<uint8_t> home = GatheredSlice(piece, at);
    home = home.first(std::min<uint64_t>(home.size(), arrived.size() - at));
    std::memcpy(home.data(), arrived.data() + at, home.size());
    at += home.size();
  }
}

// Copies what begins with the parts, which are checked in that pass.
PartsSeen CopyChecked(std::span<const uint8_t> from, std::span<const EntryPart> parts,
                      uint8_t* to) {
  StreamingWriter writer(to);
  bool match = true;
  for (const EntryPart& part : parts) {
    match &= part.bytes <= from.size();
    if (!match) break;
    match &= writer.Append(from.first(part.bytes)) == part.xxh3;
    from = from.subspan(part.bytes);
  }
  writer.Append(from);
  writer.Finish();
  return match ? PartsSeen::kMatch : PartsSeen::kDiffer;
}

// Of a piece of one request.
bool IsWholeWithParts(const IoPiece& piece) {
  return piece.bytes == piece.request->bytes() && !piece.request->parts.empty();
}

void BringHomeChecked(IoRequest& request, const uint8_t* arrived) {
  const auto& [head, body] = request.slices;
  if (!head.empty()) std::memcpy(head.data(), arrived, head.size());
  request.parts_seen =
      CopyChecked({arrived + head.size(), body.size()}, request.parts, body.data());
}

// Not past the caches: who reads a slot next is the device, and where that is another processor's
// work (a virtual one) it finds the slot there. On the way home the streaming copy is the faster.
void TakeAwayWhole(IoRequest& request, uint8_t* slot) {
  const auto& [head, body] = request.slices;
  if (!head.empty()) std::memcpy(slot, head.data(), head.size());
  slot += head.size();
  std::span<const uint8_t> left = body;
  bool match = true;
  for (const EntryPart& part : request.parts) {
    match &= part.bytes <= left.size();
    if (!match) break;
    std::memcpy(slot, left.data(), part.bytes);
    match &= Checksum({slot, part.bytes}) == part.xxh3;
    slot += part.bytes;
    left = left.subspan(part.bytes);
  }
  if (!left.empty()) std::memcpy(slot, left.data(), left.size());
  if (!request.parts.empty()) {
    request.parts_seen = match ? PartsSeen::kMatch : PartsSeen::kDiffer;
  }
}

void TakeAway(const IoPiece& piece, uint8_t* slot) {
  uint64_t whole = 0;
  for (IoRequest& request : RequestsOf(piece)) {
    request.parts_seen = PartsSeen::kNothing;  // also of the rest of a write, which is given again
    whole += request.bytes();
  }
  if (piece.bytes == whole) {
    for (IoRequest& request : RequestsOf(piece)) {
      TakeAwayWhole(request, slot);
      slot += request.bytes();
    }
    return;
  }
  for (uint64_t at = 0; at < piece.bytes;) {
    const std::span<const uint8_t> bytes = GatheredSlice(piece, at);
    std::memcpy(slot + at, bytes.data(), bytes.size());
    at += bytes.size();
  }
}

}  // namespace

unsigned BouncedReadsInFlightMax(size_t pieces) {
  const size_t at_once = std::min<size_t>(pieces, kBounceSlots);
  return static_cast<unsigned>(at_once - at_once / 4);
}

std::unique_ptr<IoBounce> IoBounce::Create() {
  std::unique_ptr<IoBounce> bounce(new IoBounce);
  void* const mapped = ::mmap(nullptr, kMappedBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  bounce->mapped_ = static_cast<uint8_t*>(mapped);
  const uint64_t past = reinterpret_cast<uintptr_t>(mapped) % kHugePageBytes;
  bounce->slots_ = bounce->mapped_ + (kHugePageBytes - past) % kHugePageBytes;
  if (::madvise(bounce->slots_, kBounceBytes, MADV_HUGEPAGE) != 0) return nullptr;
  std::memset(bounce->slots_, 0, kBounceBytes);  // the first touch takes the pages
  for (int32_t slot = kBounceSlots; slot-- > 0;) bounce->free_.push_back(slot);
  return bounce;
}

IoBounce::~IoBounce() {
  if (mapped_ != nullptr) ::munmap(mapped_, kMappedBytes);
}

void IoBounce::Register(io_uring& ring) {
  const iovec all{.iov_base = slots_, .iov_len = kBounceBytes};
  registered_ = io_uring_register_buffers(&ring, &all, 1) == 0;
}

uint8_t* IoBounce::Slot(int32_t slot) const {
  return slots_ + static_cast<uint64_t>(slot) * kIoPieceBytes;
}

uint8_t* IoBounce::Enter(IoPiece& piece) {
  piece.slot = free_.back();
  free_.pop_back();
  uint8_t* const slot = Slot(piece.slot);
  if (piece.request->kind == IoKind::kWrite) TakeAway(piece, slot);
  return slot;
}

void IoBounce::Leave(IoPiece& piece, int64_t result) {
  const uint64_t arrived = piece.request->kind == IoKind::kRead && result > 0
                               ? std::min(static_cast<uint64_t>(result), piece.bytes)
                               : 0;
  const uint8_t* const slot = Slot(piece.slot);
  if (arrived == piece.bytes && IsWholeWithParts(piece)) {
    BringHomeChecked(*piece.request, slot);
  } else {
    BringHome(piece, {slot, arrived});
  }
  free_.push_back(piece.slot);
  piece.slot = -1;
}

}  // namespace cairn::store
