// http2_frames.h: bytes of one direction of an HTTP/2 connection, cut into its messages: the
// client's preface, then frames.
//
// Threads: one. Units: bytes.
#ifndef CAIRN_TESTS_LIES_HTTP2_FRAMES_H_
#define CAIRN_TESTS_LIES_HTTP2_FRAMES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace cairn::lies {

inline constexpr size_t kFrameHeaderBytes = 9;  // length (3), type, flags, stream (4)
inline constexpr size_t kPrefaceBytes = 24;

// A DATA frame with at least the five bytes that open a gRPC message: compressed, length (4). (One
// that goes on with a message has others there, which are as good to change.)
inline bool BeginsGrpcMessage(std::span<const uint8_t> frame) {
  return frame.size() >= kFrameHeaderBytes + 5 && frame[3] == 0;
}

class Http2Frames {
 public:
  explicit Http2Frames(bool from_client) : preface_(from_client) {}
  void Add(std::span<const uint8_t> bytes) {
    rest_.insert(rest_.end(), bytes.begin(), bytes.end());
  }
  // The next whole message; nullopt: more bytes are needed.
  std::optional<std::vector<uint8_t>> Next() {
    const size_t size = SizeOfNext();
    if (size == 0 || rest_.size() < size) return std::nullopt;
    preface_ = false;
    const auto end = rest_.begin() + static_cast<std::ptrdiff_t>(size);
    std::vector<uint8_t> message(rest_.begin(), end);
    rest_.erase(rest_.begin(), end);
    return message;
  }

 private:
  size_t SizeOfNext() const {
    if (preface_) return kPrefaceBytes;
    if (rest_.size() < kFrameHeaderBytes) return 0;
    return kFrameHeaderBytes + (size_t{rest_[0]} << 16 | size_t{rest_[1]} << 8 | rest_[2]);
  }
  bool preface_;
  std::vector<uint8_t> rest_;
};

}  // namespace cairn::lies

#endif  // CAIRN_TESTS_LIES_HTTP2_FRAMES_H_
