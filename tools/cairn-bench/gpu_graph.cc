#include "tools/cairn-bench/gpu_graph.h"

#include <cuda_runtime_api.h>

#include <memory>

#include "tools/cairn-bench/gpu_timing.h"

namespace cairn::bench {
namespace {

using kernels::cuda::CudaStatus;
using kernels::cuda::OwnedStream;
using kernels::cuda::Stream;

using Graph = std::unique_ptr<CUgraph_st, decltype(&cudaGraphDestroy)>;
using Replay = std::unique_ptr<CUgraphExec_st, decltype(&cudaGraphExecDestroy)>;

}  // namespace

absl::StatusOr<double> SecondsInGraph(
    int64_t count, const std::function<absl::Status(Stream stream, int64_t i)>& launch) {
  CAIRN_ASSIGN_OR_RETURN(const OwnedStream stream, OwnedStream::Create());
  // Once outside: what a first launch takes may not be captured.
  CAIRN_RETURN_IF_ERROR(launch(stream.get(), 0));
  CAIRN_RETURN_IF_ERROR(CudaStatus(
      cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "capturing"));
  absl::Status status;
  for (int64_t i = 0; i < count && status.ok(); ++i) status = launch(stream.get(), i);
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream.get(), &captured);
  const Graph graph(captured, &cudaGraphDestroy);
  CAIRN_RETURN_IF_ERROR(status);
  CAIRN_RETURN_IF_ERROR(CudaStatus(ended, "capturing"));
  cudaGraphExec_t made = nullptr;
  CAIRN_RETURN_IF_ERROR(CudaStatus(cudaGraphInstantiate(&made, graph.get(), 0), "a graph"));
  const Replay replay(made, &cudaGraphExecDestroy);
  CAIRN_ASSIGN_OR_RETURN(const double seconds, SecondsALaunch(stream.get(), [&](int64_t) {
                           return CudaStatus(cudaGraphLaunch(made, stream.get()), "a graph");
                         }));
  return seconds / static_cast<double>(count);
}

}  // namespace cairn::bench
