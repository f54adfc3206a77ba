// cuBLAS where it is found, by dlopen and hand-declared prototypes: no headers, nothing to link.
#pragma once

#include "device.cuh"

namespace moesim {

class Cublas {
 public:
  Cublas();  // throws Skip where the library can't be loaded or started
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;
  int version() const { return version_; }
  // y[m, n] = x[m, k] * w[n, k]^T in bf16, all row-major, summed in float.
  void multiply(const void* x, const void* w, void* y, int m, int n, int k, cudaStream_t stream) const;

 private:
  using Handle = void*;
  using Create = int (*)(Handle*);
  using Destroy = int (*)(Handle);
  using GetVersion = int (*)(Handle, int*);
  using SetStream = int (*)(Handle, cudaStream_t);
  using Multiply = int (*)(Handle, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int,
                           const void*, void*, int, int, int, int);
  void* library_ = nullptr;
  Handle handle_ = nullptr;
  int version_ = 0;
  SetStream set_stream_ = nullptr;
  Multiply multiply_ = nullptr;
  DeviceBuffer workspace_;
};

}  // namespace moesim
