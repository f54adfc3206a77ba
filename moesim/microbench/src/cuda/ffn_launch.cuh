// One product of the layer, as its kernels are launched.
#pragma once

#include "ffn.cuh"

namespace moesim {

// `up` is null for the product with `down`.
struct Ffn {
  const Matrices *first, *up;
  Groups groups;
  const std::uint16_t* in;
  std::uint16_t* out;
  cudaStream_t stream;
  int rows() const { return first->rows; }
};

void launch_few(Format format, Choice choice, const Ffn& ffn);
void launch_tiled(Format format, const Ffn& ffn);

constexpr int kTiledTokens = 128;

}  // namespace moesim
