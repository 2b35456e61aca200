// workspace.h: scratch memory that is kept between steps, because the first touch of fresh memory
// is slower than the arithmetic done on it.
//
// A stack: Floats() takes, a Frame gives back at its end everything taken since its start. Contents
// are undefined. Threads: externally synchronised. Units: floats; alignment 64 bytes.
#ifndef CAIRN_ENGINE_FORWARD_WORKSPACE_H_
#define CAIRN_ENGINE_FORWARD_WORKSPACE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace cairn::engine {

class Workspace {
 public:
  float* Floats(int64_t count);
  // The most that was taken at a time, so far.
  int64_t peak_floats() const { return peak_; }

  class Frame {
   public:
    explicit Frame(Workspace& workspace)
        : workspace_(workspace), chunk_(workspace.chunk_), used_(workspace.used_) {}
    ~Frame() {
      workspace_.chunk_ = chunk_;
      workspace_.used_ = used_;
    }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Workspace& workspace_;
    size_t chunk_;
    int64_t used_;
  };

 private:
  struct Chunk {
    std::unique_ptr<float, void (*)(float*)> floats;
    int64_t size;
  };
  std::vector<Chunk> chunks_;
  size_t chunk_ = 0;  // the one in use
  int64_t used_ = 0;  // floats of it
  int64_t peak_ = 0;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_WORKSPACE_H_
