#include "kernels/cuda/graph.h"

#include <cuda_runtime_api.h>

namespace cairn::kernels::cuda {

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

}  // namespace cairn::kernels::cuda
