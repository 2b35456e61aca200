// memory_copy.h: copies of much memory, past the caches, and the one pass that copies and
// checksums.
//
// A plain copy reads the lines it is about to overwrite and throws useful ones out of the caches;
// these write with non-temporal stores, which on large copies is about half as fast again.
//
// The checksum is of the bytes as written, also when another process changes the source meanwhile
// (a client's staging memory, an arena whose lease was lost): every source byte is loaded once, and
// that one value is both hashed and stored.
//
// Threads:   none shared; the bytes are visible to other threads after CopyStreaming or Finish.
// Ownership: the caller's memory, source and destination not overlapping.
// Units:     bytes. Any alignment; fastest when the destination's is 64 and the source's 32.
#ifndef CAIRN_STORE_BASE_MEMORY_COPY_H_
#define CAIRN_STORE_BASE_MEMORY_COPY_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace cairn {

void CopyStreaming(uint8_t* destination, std::span<const uint8_t> source);

// Writes pieces one after another to one destination. Pieces need not end on cache lines: what is
// short of a line waits for the next piece, because half a line written past the caches costs more
// than a whole one.
class StreamingWriter {
 public:
  // `destination` has room for all pieces.
  explicit StreamingWriter(uint8_t* destination);
  ~StreamingWriter() { Finish(); }
  StreamingWriter(const StreamingWriter&) = delete;
  StreamingWriter& operator=(const StreamingWriter&) = delete;

  // XXH3-64 of the piece as written: Checksum() of it, if nobody changes it meanwhile.
  uint64_t Append(std::span<const uint8_t> piece);
  // All bytes are in place. Appending may go on afterwards.
  void Finish();

 private:
  static constexpr size_t kLine = 64;
  static constexpr size_t kBlock = 1024;  // of XXH3

  uint64_t AppendLong(std::span<const uint8_t> piece);
  template <int kHint>  // _mm_hint: how what comes next is fetched ahead
  uint64_t AppendLongBy(std::span<const uint8_t> piece);
  void Flush();

  uint8_t* line_;   // where pending_ goes; a line's begin
  size_t skip_;     // leading bytes of pending_ that are not ours: only before the first line
  size_t pending_;  // bytes in the buffer that are not written yet, skip_ included
  // The line before the pending ones (XXH3 looks back at it), the pending ones, and slack so that
  // whole vectors can be moved.
  alignas(kLine) uint8_t buffer_[kLine + kLine + kBlock + kLine];
};

// Append of one piece and Finish.
uint64_t CopyAndChecksum(uint8_t* destination, std::span<const uint8_t> source);

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_MEMORY_COPY_H_
