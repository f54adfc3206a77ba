// Pieces of kernels: the warp's matrix product, asynchronous copies, and eight weights as bf16 from any format.
#pragma once

#include <cuda_bf16.h>

#include "ffn.cuh"
#include "index_maps.h"

namespace moesim {

__device__ __forceinline__ float low_float(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_float(std::uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000u); }

__device__ __forceinline__ std::uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

__device__ __forceinline__ float silu(float value) { return value / (1.0f + __expf(-value)); }

// c += a * b: a is 16 x 16 by rows, b is 16 x 8 by columns, c is 16 x 8; see fragment_row and fragment_column.
__device__ __forceinline__ void multiply_add(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                             std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices from shared memory, one row's address from each lane.
__device__ __forceinline__ void load_matrices(std::uint32_t (&to)[4], const std::uint16_t* from) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(from));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

// 16 bytes to shared memory in the background; zeros where `there` is false.
__device__ __forceinline__ void copy_async(std::uint16_t* to, const void* from, bool there) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int left>
__device__ __forceinline__ void wait_groups() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(left) : "memory");
}

// Read once, past the L1.
__device__ __forceinline__ uint4 load_stream(const uint4* from) {
  uint4 value;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// Eight weights of a row, from column k (a multiple of 8), as they lie in memory, and as four pairs of bf16.
template <Format format>
struct Weights;

template <>
struct Weights<Format::kBf16> {
  using Raw = uint4;
  static __device__ __forceinline__ Raw load(const Matrices& m, std::int64_t expert, std::int64_t row, int k) {
    return load_stream(reinterpret_cast<const uint4*>(m.weights + expert * m.stride + 2 * (row * m.columns + k)));
  }
  static __device__ __forceinline__ uint4 widen(Raw raw, const Matrices&, std::int64_t, std::int64_t, int) { return raw; }
  static __device__ __forceinline__ float row_scale(const Matrices&, std::int64_t, std::int64_t) { return 1.0f; }
};

template <>
struct Weights<Format::kFp8> {
  using Raw = uint2;
  static __device__ __forceinline__ Raw load(const Matrices& m, std::int64_t expert, std::int64_t row, int k) {
    return __ldg(reinterpret_cast<const uint2*>(m.weights + expert * m.stride + row * m.columns + k));
  }
  // The exponent of e4m3 put where bf16 has its own gives 2^-120 times the value, also for subnormals.
  static __device__ __forceinline__ std::uint32_t pair(std::uint32_t two) {
    const std::uint32_t shifted = e4m3_pair_shifted(two), factor = kTwoTo120;
    const __nv_bfloat162 value = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&shifted),
                                         *reinterpret_cast<const __nv_bfloat162*>(&factor));
    return *reinterpret_cast<const std::uint32_t*>(&value);
  }
  static __device__ __forceinline__ uint4 widen(Raw raw, const Matrices&, std::int64_t, std::int64_t, int) {
    return {pair(raw.x & 0xFFFFu), pair(raw.x >> 16), pair(raw.y & 0xFFFFu), pair(raw.y >> 16)};
  }
  static __device__ __forceinline__ float row_scale(const Matrices& m, std::int64_t expert, std::int64_t row) {
    return __ldg(reinterpret_cast<const float*>(m.scales + expert * m.scale_stride) + row);
  }
};

template <>
struct Weights<Format::kInt4> {
  using Raw = std::uint32_t;
  static __device__ __forceinline__ Raw load(const Matrices& m, std::int64_t expert, std::int64_t row, int k) {
    return __ldg(reinterpret_cast<const std::uint32_t*>(m.weights + expert * m.stride + (row * m.columns + k) / 2));
  }
  static __device__ __forceinline__ uint4 widen(Raw raw, const Matrices& m, std::int64_t expert, std::int64_t row, int k) {
    const int groups = (m.columns + kInt4Group - 1) / kInt4Group;
    const auto* scales = reinterpret_cast<const std::uint16_t*>(m.scales + expert * m.scale_stride);
    const float scale = float_from_bf16(__ldg(scales + row * groups + k / kInt4Group));
    const auto at = [&](int index) { return static_cast<float>(int4_from_nibble(raw >> (4 * index))) * scale; };
    return {bf16_pair(at(0), at(1)), bf16_pair(at(2), at(3)), bf16_pair(at(4), at(5)), bf16_pair(at(6), at(7))};
  }
  static __device__ __forceinline__ float row_scale(const Matrices&, std::int64_t, std::int64_t) { return 1.0f; }
};

}  // namespace moesim
