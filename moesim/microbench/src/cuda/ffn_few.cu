// Kernels for few tokens of an expert: weights stream through registers, each read once from memory.
//
// own_gemv (up to 8 tokens): a warp computes one row for all tokens of a tile, lanes along k. own_mma_skinny (up to 64):
// a warp multiplies 16 rows by the tile's tokens with the matrix units, weights being the left operand; the warps of a
// block share the rows and divide k.
#include "ffn_launch.cuh"
#include "fragments.cuh"

namespace moesim {
namespace {

constexpr int kWarps = 8;
constexpr int kAhead = 4;  // loads of weights under way in each lane

__device__ __forceinline__ int lane_of() { return static_cast<int>(threadIdx.x) % 32; }
__device__ __forceinline__ int warp_of() { return static_cast<int>(threadIdx.x) / 32; }

using Tile = TokenTile;
__device__ __forceinline__ Tile tile_of(const Groups& groups, int tile, int tile_tokens) {
  return tokens_of_tile(groups.offset, groups.tile_start, groups.experts, tile, tile_tokens);
}

__device__ __forceinline__ float sum_of_warp(float value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
  return value;
}

__device__ __forceinline__ void add_products(float& sum, uint4 w, uint4 x) {
  const std::uint32_t weights[4] = {w.x, w.y, w.z, w.w}, values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = fmaf(low_float(weights[i]), low_float(values[i]), sum);
    sum = fmaf(high_float(weights[i]), high_float(values[i]), sum);
  }
}

// Products of `matrices` rows (gate and up, or down alone) with each token of the tile. Lanes take 8 columns each.
template <Format format, int matrices, int tokens>
__device__ __forceinline__ void gemv_row(const Matrices* const (&matrix)[matrices], const Tile& tile, int row,
                                         const std::uint16_t* x, float (&sums)[matrices][tokens]) {
  using W = Weights<format>;
  const int columns = matrix[0]->columns;
#pragma unroll
  for (int m = 0; m < matrices; ++m)
#pragma unroll
    for (int t = 0; t < tokens; ++t) sums[m][t] = 0;
  constexpr int kStep = 256;
  for (int k = lane_of() * 8; k < columns; k += kAhead * kStep) {
    typename W::Raw raw[matrices][kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
#pragma unroll
      for (int m = 0; m < matrices; ++m)
        if (k + i * kStep < columns) raw[m][i] = W::load(*matrix[m], tile.expert, row, k + i * kStep);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int column = k + i * kStep;
      if (column >= columns) break;
      uint4 weights[matrices];
#pragma unroll
      for (int m = 0; m < matrices; ++m) weights[m] = W::widen(raw[m][i], *matrix[m], tile.expert, row, column);
#pragma unroll
      for (int t = 0; t < tokens; ++t) {
        const int token = tile.first + min(t, tile.tokens - 1);
        const uint4 values = __ldg(reinterpret_cast<const uint4*>(x + static_cast<std::int64_t>(token) * columns + column));
#pragma unroll
        for (int m = 0; m < matrices; ++m) add_products(sums[m][t], weights[m], values);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < matrices; ++m)
#pragma unroll
    for (int t = 0; t < tokens; ++t)
      sums[m][t] = sum_of_warp(sums[m][t]) * W::row_scale(*matrix[m], tile.expert, row);
}

template <Format format, int tokens>
__global__ void __launch_bounds__(kWarps * 32, 1) gate_up_gemv(Matrices gate, Matrices up, Groups groups,
                                                           const std::uint16_t* x, std::uint16_t* middle) {
  const Tile tile = tile_of(groups, static_cast<int>(blockIdx.y), tokens);
  const int row = static_cast<int>(blockIdx.x) * kWarps + warp_of();
  if (row >= gate.rows) return;
  float sums[2][tokens];
  const Matrices* const both[2] = {&gate, &up};
  gemv_row<format, 2, tokens>(both, tile, row, x, sums);
#pragma unroll
  for (int t = 0; t < tokens; ++t) {
    const std::uint16_t value = bf16_from_float(silu(sums[0][t]) * sums[1][t]);
    if (lane_of() == t && t < tile.tokens) middle[static_cast<std::int64_t>(tile.first + t) * gate.rows + row] = value;
  }
}

template <Format format, int tokens>
__global__ void __launch_bounds__(kWarps * 32, 1) down_gemv(Matrices down, Groups groups, const std::uint16_t* middle,
                                                        std::uint16_t* y) {
  const Tile tile = tile_of(groups, static_cast<int>(blockIdx.y), tokens);
  const int row = static_cast<int>(blockIdx.x) * kWarps + warp_of();
  if (row >= down.rows) return;
  float sums[1][tokens];
  const Matrices* const one[1] = {&down};
  gemv_row<format, 1, tokens>(one, tile, row, middle, sums);
#pragma unroll
  for (int t = 0; t < tokens; ++t)
    if (lane_of() == t && t < tile.tokens)
      y[static_cast<std::int64_t>(tile.first + t) * down.rows + row] = bf16_from_float(sums[0][t]);
}

// 16 rows of `matrices` times 8 * blocks tokens, over this warp's share of k. Sums as multiply_add leaves them.
template <Format format, int matrices, int blocks>
__device__ __forceinline__ void skinny_rows(const Matrices* const (&matrix)[matrices], const Tile& tile, int first_row,
                                            const std::uint16_t* x, float (&sums)[matrices][blocks][4]) {
  using W = Weights<format>;
  const int lane = lane_of(), columns = matrix[0]->columns;
  const int upper = min(first_row + fragment_row(lane), matrix[0]->rows - 1);
  const int lower = min(first_row + fragment_row(lane) + 8, matrix[0]->rows - 1);
#pragma unroll
  for (int m = 0; m < matrices; ++m)
#pragma unroll
    for (int b = 0; b < blocks; ++b)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][b][i] = 0;
#pragma unroll 2
  for (int start = warp_of() * 32; start < columns; start += kWarps * 32) {
    const int k = start + fragment_k(lane);
    typename W::Raw raw[matrices][2];
#pragma unroll
    for (int m = 0; m < matrices; ++m) {
      raw[m][0] = W::load(*matrix[m], tile.expert, upper, k);
      raw[m][1] = W::load(*matrix[m], tile.expert, lower, k);
    }
    uint4 a[matrices][2];
#pragma unroll
    for (int m = 0; m < matrices; ++m) {
      a[m][0] = W::widen(raw[m][0], *matrix[m], tile.expert, upper, k);
      a[m][1] = W::widen(raw[m][1], *matrix[m], tile.expert, lower, k);
    }
#pragma unroll
    for (int b = 0; b < blocks; ++b) {
      const int token = tile.first + min(b * 8 + fragment_row(lane), tile.tokens - 1);
      const uint4 values = __ldg(reinterpret_cast<const uint4*>(x + static_cast<std::int64_t>(token) * columns + k));
#pragma unroll
      for (int m = 0; m < matrices; ++m) {
        multiply_add(sums[m][b], a[m][0].x, a[m][1].x, a[m][0].y, a[m][1].y, values.x, values.y);
        multiply_add(sums[m][b], a[m][0].z, a[m][1].z, a[m][0].w, a[m][1].w, values.z, values.w);
      }
    }
  }
}

// The warps' sums, added up in shared memory: [16 rows][8 * blocks tokens] for one matrix.
template <int blocks>
__device__ __forceinline__ void add_up(const float (&sums)[blocks][4], float* total) {
  const int row = fragment_row(lane_of()), column = fragment_column(lane_of());
#pragma unroll
  for (int b = 0; b < blocks; ++b)
#pragma unroll
    for (int i = 0; i < 4; ++i) atomicAdd(total + (row + i / 2 * 8) * (8 * blocks) + b * 8 + column + i % 2, sums[b][i]);
}

template <int matrices, int blocks>
__device__ __forceinline__ void clear(float (&total)[matrices][16 * 8 * blocks]) {
  for (int i = static_cast<int>(threadIdx.x); i < matrices * 16 * 8 * blocks; i += kWarps * 32) (&total[0][0])[i] = 0;
  __syncthreads();
}

template <Format format, int blocks>
__global__ void __launch_bounds__(kWarps * 32, 1) gate_up_skinny(Matrices gate, Matrices up, Groups groups,
                                                             const std::uint16_t* x, std::uint16_t* middle) {
  __shared__ float total[2][16 * 8 * blocks];
  clear<2, blocks>(total);
  const Tile tile = tile_of(groups, static_cast<int>(blockIdx.y), 8 * blocks);
  const int first_row = static_cast<int>(blockIdx.x) * 16;
  float sums[2][blocks][4];
  const Matrices* const both[2] = {&gate, &up};
  skinny_rows<format, 2, blocks>(both, tile, first_row, x, sums);
  add_up<blocks>(sums[0], total[0]);
  add_up<blocks>(sums[1], total[1]);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 16 * 8 * blocks; i += kWarps * 32) {
    const int row = first_row + i % 16, token = i / 16;
    if (row >= gate.rows || token >= tile.tokens) continue;
    const int at = i % 16 * (8 * blocks) + token;
    const float g = total[0][at] * Weights<format>::row_scale(gate, tile.expert, row);
    const float u = total[1][at] * Weights<format>::row_scale(up, tile.expert, row);
    middle[static_cast<std::int64_t>(tile.first + token) * gate.rows + row] = bf16_from_float(silu(g) * u);
  }
}

template <Format format, int blocks>
__global__ void __launch_bounds__(kWarps * 32, 1) down_skinny(Matrices down, Groups groups, const std::uint16_t* middle,
                                                          std::uint16_t* y) {
  __shared__ float total[1][16 * 8 * blocks];
  clear<1, blocks>(total);
  const Tile tile = tile_of(groups, static_cast<int>(blockIdx.y), 8 * blocks);
  const int first_row = static_cast<int>(blockIdx.x) * 16;
  float sums[1][blocks][4];
  const Matrices* const one[1] = {&down};
  skinny_rows<format, 1, blocks>(one, tile, first_row, middle, sums);
  add_up<blocks>(sums[0], total[0]);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 16 * 8 * blocks; i += kWarps * 32) {
    const int row = first_row + i % 16, token = i / 16;
    if (row >= down.rows || token >= tile.tokens) continue;
    const float sum = total[0][i % 16 * (8 * blocks) + token] * Weights<format>::row_scale(down, tile.expert, row);
    y[static_cast<std::int64_t>(tile.first + token) * down.rows + row] = bf16_from_float(sum);
  }
}

template <Format format, int tokens>
void gemv(const Ffn& f) {
  const dim3 grid((f.rows() + kWarps - 1) / kWarps, f.groups.tiles);
  if (f.up != nullptr) gate_up_gemv<format, tokens><<<grid, kWarps * 32, 0, f.stream>>>(*f.first, *f.up, f.groups, f.in, f.out);
  else down_gemv<format, tokens><<<grid, kWarps * 32, 0, f.stream>>>(*f.first, f.groups, f.in, f.out);
}

template <Format format, int blocks>
void skinny(const Ffn& f) {
  const dim3 grid((f.rows() + 15) / 16, f.groups.tiles);
  if (f.up != nullptr) gate_up_skinny<format, blocks><<<grid, kWarps * 32, 0, f.stream>>>(*f.first, *f.up, f.groups, f.in, f.out);
  else down_skinny<format, blocks><<<grid, kWarps * 32, 0, f.stream>>>(*f.first, f.groups, f.in, f.out);
}

template <Format format>
void launch(const Ffn& f, Choice choice) {
  if (choice.kernel == Kernel::kGemv) {
    if (choice.tile_tokens == 1) gemv<format, 1>(f);
    else if (choice.tile_tokens == 4) gemv<format, 4>(f);
    else gemv<format, 8>(f);
  } else if (choice.tile_tokens == 16) {
    skinny<format, 2>(f);
  } else if (choice.tile_tokens == 32) {
    skinny<format, 4>(f);
  } else {
    skinny<format, 8>(f);
  }
}

}  // namespace

void launch_few(Format format, Choice choice, const Ffn& ffn) {
  if (format == Format::kBf16) launch<Format::kBf16>(ffn, choice);
  else if (format == Format::kFp8) launch<Format::kFp8>(ffn, choice);
  else launch<Format::kInt4>(ffn, choice);
  MOESIM_LAUNCHED();
}

}  // namespace moesim
