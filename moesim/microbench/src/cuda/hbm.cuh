// Kernels that stream GPU memory.
#pragma once

#include "device.cuh"

namespace moesim {

// Reads everything and writes the sum of all words where `total` says (one word a block).
void launch_read(const void* data, std::int64_t bytes, std::uint32_t* totals, cudaStream_t stream);
void launch_write(void* data, std::int64_t bytes, std::uint32_t value, cudaStream_t stream);
// Reads and writes so many bytes each; also from or to host memory that the GPU can reach.
void launch_copy(void* to, const void* from, std::int64_t bytes, cudaStream_t stream);
constexpr int kStreamBlocks = 2048;

}  // namespace moesim
