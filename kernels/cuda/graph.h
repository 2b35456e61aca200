// graph.h: launches recorded once and queued again as one; parts of them beside each other.
//
// Threads:   one at a time. Ownership: what the launches read and write outlives the graph.
// Errors:    of the launches while they are recorded; else INTERNAL.
#ifndef CAIRN_KERNELS_CUDA_GRAPH_H_
#define CAIRN_KERNELS_CUDA_GRAPH_H_

#include <functional>
#include <utility>

#include "kernels/cuda/device.h"

struct CUevent_st;
struct CUgraphExec_st;

namespace cairn::kernels::cuda {

class Graph {
 public:
  Graph() = default;
  // What `launches` puts on the stream is not done, but kept.
  static absl::StatusOr<Graph> Record(Stream stream, const std::function<absl::Status()>& launches);
  Graph(Graph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(graph_, other.graph_);
    return *this;
  }
  ~Graph();

  explicit operator bool() const { return graph_ != nullptr; }
  absl::Status Launch(Stream stream) const;

 private:
  explicit Graph(CUgraphExec_st* graph) : graph_(graph) {}
  CUgraphExec_st* graph_ = nullptr;
};

// A stream of its own for what may run beside the rest of a recording, or of a stream's work. It
// can be forked again once it was joined.
class Branch {
 public:
  static absl::StatusOr<Branch> Create();
  Branch(Branch&& other) noexcept;
  Branch& operator=(Branch&& other) noexcept;
  ~Branch();

  Stream stream() const { return stream_.get(); }
  // What is put on stream() from now on comes behind what is on `trunk`.
  absl::Status Fork(Stream trunk) const;
  // What is put on `trunk` from now on comes behind what is on stream(). REQUIRES: a Fork before.
  absl::Status Join(Stream trunk) const;

 private:
  Branch(OwnedStream stream, CUevent_st* begin, CUevent_st* end);
  OwnedStream stream_;
  CUevent_st* begin_;
  CUevent_st* end_;
};

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_GRAPH_H_
