#include "cublas.cuh"

#include <dlfcn.h>

#include <cstdlib>

namespace moesim {
namespace {

// The numbers of cublas_api.h and library_types.h.
constexpr int kNoTranspose = 0, kTranspose = 1, kReal16Bf = 14, kCompute32F = 68, kDefaultAlgorithm = -1;

void* open_library() {
  const char* own = std::getenv("MOESIM_CUBLAS");
  for (const char* name : {own != nullptr ? own : "libcublas.so.13", "libcublas.so.13", "libcublas.so.12", "libcublas.so"})
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  throw Skip("no cuBLAS found (MOESIM_CUBLAS can name its library)");
}

template <typename Function>
Function function_in(void* library, const char* name) {
  void* address = dlsym(library, name);
  if (address == nullptr) throw Skip(std::string("cuBLAS has no ") + name);
  return reinterpret_cast<Function>(address);
}

}  // namespace

Cublas::Cublas() : library_(open_library()) {
  set_stream_ = function_in<SetStream>(library_, "cublasSetStream_v2");
  multiply_ = function_in<Multiply>(library_, "cublasGemmEx");
  if (const int status = function_in<Create>(library_, "cublasCreate_v2")(&handle_); status != 0)
    throw Skip("cublasCreate failed with " + std::to_string(status));
  function_in<GetVersion>(library_, "cublasGetVersion_v2")(handle_, &version_);
  // A workspace of our own: cuBLAS may allocate one at a first call, which must not happen behind a gate.
  using SetWorkspace = int (*)(Handle, void*, std::size_t);
  workspace_ = DeviceBuffer(64 << 20);
  function_in<SetWorkspace>(library_, "cublasSetWorkspace_v2")(handle_, workspace_.at(), 64 << 20);
}

Cublas::~Cublas() {
  if (handle_ != nullptr) function_in<Destroy>(library_, "cublasDestroy_v2")(handle_);
}

// Row-major y = x w^T is column-major y^T = w x^T: w^T and x are what their memory already is.
void Cublas::multiply(const void* x, const void* w, void* y, int m, int n, int k, cudaStream_t stream) const {
  const float one = 1, zero = 0;
  set_stream_(handle_, stream);
  const int status = multiply_(handle_, kTranspose, kNoTranspose, n, m, k, &one, w, kReal16Bf, k, x, kReal16Bf, k, &zero,
                               y, kReal16Bf, n, kCompute32F, kDefaultAlgorithm);
  if (status != 0) throw std::runtime_error("cublasGemmEx failed with " + std::to_string(status));
}

}  // namespace moesim
