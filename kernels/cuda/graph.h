// graph.h: launches recorded once and queued again as one.
//
// Threads:   one at a time. Ownership: what the launches read and write outlives the graph.
// Errors:    of the launches while they are recorded; else INTERNAL.
#ifndef CAIRN_KERNELS_CUDA_GRAPH_H_
#define CAIRN_KERNELS_CUDA_GRAPH_H_

#include <functional>
#include <utility>

#include "kernels/cuda/device.h"

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

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_GRAPH_H_
