// Launches on torch's current stream and device. With HK_EMULATE, the tests' shim runs the same kernels on the CPU.
#pragma once

#include "../layout.h"

#if defined(HK_EMULATE)

#include "cuda_shim.h"

#define HK_REGISTER(m) STABLE_TORCH_LIBRARY_IMPL(hybridkern_emulated, CPU, m)
#define HK_LAUNCH(kernel, blocks, arguments) hk::shim::launch<(kernel)>(blocks, hk::cuda::block_threads, arguments)

namespace hk::cuda {
struct OnDeviceOf {
  explicit OnDeviceOf(const Tensor&) {}
};
}  // namespace hk::cuda

#else

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#define HK_REGISTER(m) STABLE_TORCH_LIBRARY_IMPL(hybridkern, CUDA, m)
#define HK_LAUNCH(kernel, blocks, arguments)                                                           \
  do {                                                                                                 \
    kernel<<<dim3(blocks), dim3(hk::cuda::block_threads), 0, hk::cuda::current_stream()>>>(arguments); \
    hk::cuda::check_launch();                                                                          \
  } while (false)

namespace hk::cuda {

// Makes the tensor's device the current one until the end of the scope.
struct OnDeviceOf {
  explicit OnDeviceOf(const Tensor& tensor) : guard(tensor.get_device_index()) {}
  torch::stable::accelerator::DeviceGuard guard;
};

// The stable interface has the handle of a stream from torch 2.13 on; before, libtorch_cuda exports a function of its
// own, which is looked up so that this library links, and is built, beside a torch without CUDA.
inline cudaStream_t current_stream() {
  using Get = int32_t (*)(int32_t, void**);
  static const Get get = reinterpret_cast<Get>(
      dlsym(dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD), "aoti_torch_get_current_cuda_stream"));
  STD_TORCH_CHECK(get != nullptr, "hybridkern: this torch has no CUDA streams");
  void* stream = nullptr;
  STD_TORCH_CHECK(get(torch::stable::accelerator::getCurrentDeviceIndex(), &stream) == 0,
                  "hybridkern: torch gave no current stream");
  return static_cast<cudaStream_t>(stream);
}

inline void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "hybridkern: a CUDA kernel was not launched: ", cudaGetErrorString(error));
}

}  // namespace hk::cuda

#endif
