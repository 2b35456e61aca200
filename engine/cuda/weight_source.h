// weight_source.h: where a CudaModel's tensors come from: files, or random numbers of the device.
//
// Threads: one. Private to engine/cuda.
#ifndef CAIRN_ENGINE_CUDA_WEIGHT_SOURCE_H_
#define CAIRN_ENGINE_CUDA_WEIGHT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/cuda/cuda_model.h"

namespace cairn::engine {

// A matrix that is made of several: below one another, `padding` rows of zeros, and of `count`
// experts one after the other. `parts` [count * parts of each].
struct MatrixRequest {
  kernels::WeightFormat format = kernels::WeightFormat::kFp8;
  int64_t n = 0;  // of one of `count`, padding and all
  int64_t k = 0;
  int64_t count = 1;
  std::vector<const LinearWeight*> parts = {};
};

// Experts as stored to what the products read, one after the other through the same room.
class Fp4Packer {
 public:
  static absl::StatusOr<Fp4Packer> Create(const MatrixRequest& request);
  // One matrix as stored: values [n, k / 2], scales [n, k / 32].
  kernels::cuda::DeviceBuffer<uint8_t>& values() { return values_; }
  kernels::cuda::DeviceBuffer<uint8_t>& scales() { return scales_; }
  // It becomes the i-th. Waits. INVALID_ARGUMENT naming its row if it cannot be packed.
  absl::Status Pack(int64_t i);
  CudaMatrix Take() &&;

 private:
  explicit Fp4Packer(const MatrixRequest& request) : request_(request) {}
  MatrixRequest request_;
  kernels::cuda::DeviceBuffer<uint8_t> values_, scales_;
  kernels::cuda::DeviceBuffer<int32_t> unfit_;
  CudaMatrix packed_;
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual absl::StatusOr<CudaMatrix> Matrix(const MatrixRequest& request) = 0;
  // A shorter tensor is filled up with `padding`.
  virtual absl::StatusOr<kernels::cuda::DeviceBuffer<float>> Floats(const TensorView& tensor,
                                                                    int64_t count,
                                                                    float padding = 0.0f) = 0;
  // Norm weights and the embedding.
  virtual absl::StatusOr<kernels::cuda::DeviceBuffer<uint16_t>> Bf16(const TensorView& tensor,
                                                                     int64_t count, bool norm) = 0;
  // A table of experts, below `experts`.
  virtual absl::StatusOr<kernels::cuda::DeviceBuffer<int32_t>> Table(const TensorView& tensor,
                                                                     int64_t count,
                                                                     int64_t experts) = 0;
};

std::unique_ptr<WeightSource> FileWeightSource();
std::unique_ptr<WeightSource> RandomWeightSource(uint64_t seed);

// `weights`: bound, or only sized (the config's numbers of layers and experts, all views empty).
absl::StatusOr<std::unique_ptr<CudaModel>> BuildCudaModel(const Weights& weights,
                                                          WeightSource& source);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_WEIGHT_SOURCE_H_
