#include "kernels/cuda/graph.h"

#include <cuda_runtime_api.h>

namespace cairn::kernels::cuda {
namespace {

// What is put on `after` from now on comes behind what is on `before`.
absl::Status Order(Stream before, Stream after, cudaEvent_t event) {
  CAIRN_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(event, before), "a branch of a stream"));
  return CudaStatus(cudaStreamWaitEvent(after, event, 0), "a branch of a stream");
}

absl::StatusOr<cudaEvent_t> MakeEvent() {
  cudaEvent_t event = nullptr;
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event"));
  return event;
}

}  // namespace

absl::StatusOr<Graph> Graph::Record(Stream stream, const std::function<absl::Status()>& launches) {
  CAIRN_RETURN_IF_ERROR(CudaStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                                   "recording a graph"));
  const absl::Status launched = launches();
  cudaGraph_t recorded = nullptr;
  const absl::Status ended =
      CudaStatus(cudaStreamEndCapture(stream, &recorded), "recording a graph");
  if (!launched.ok() || !ended.ok()) {
    if (recorded != nullptr) cudaGraphDestroy(recorded);
    return launched.ok() ? ended : launched;
  }
  cudaGraphExec_t graph = nullptr;
  const absl::Status made = CudaStatus(cudaGraphInstantiate(&graph, recorded, 0), "making a graph");
  cudaGraphDestroy(recorded);
  CAIRN_RETURN_IF_ERROR(made);
  return Graph(graph);
}

Graph::~Graph() {
  if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
}

absl::Status Graph::Launch(Stream stream) const {
  return CudaStatus(cudaGraphLaunch(graph_, stream), "a graph");
}

absl::StatusOr<Branch> Branch::Create() {
  CAIRN_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create());
  CAIRN_ASSIGN_OR_RETURN(const cudaEvent_t begin, MakeEvent());
  const absl::StatusOr<cudaEvent_t> end = MakeEvent();
  if (!end.ok()) {
    cudaEventDestroy(begin);
    return end.status();
  }
  return Branch(std::move(stream), begin, *end);
}

Branch::Branch(OwnedStream stream, cudaEvent_t begin, cudaEvent_t end)
    : stream_(std::move(stream)), begin_(begin), end_(end) {}

Branch::Branch(Branch&& other) noexcept
    : stream_(std::move(other.stream_)),
      begin_(std::exchange(other.begin_, nullptr)),
      end_(std::exchange(other.end_, nullptr)) {}

Branch& Branch::operator=(Branch&& other) noexcept {
  std::swap(stream_, other.stream_);
  std::swap(begin_, other.begin_);
  std::swap(end_, other.end_);
  return *this;
}

Branch::~Branch() {
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
}

absl::Status Branch::Fork(Stream trunk) const { return Order(trunk, stream(), begin_); }

absl::Status Branch::Join(Stream trunk) const { return Order(stream(), trunk, end_); }

}  // namespace cairn::kernels::cuda
