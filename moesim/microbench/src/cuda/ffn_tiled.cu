// The kernel for many tokens: blocks of 128 tokens x 128 columns, k in steps of 32 through three stages of shared
// memory, filled in the background while the matrix units work on the stage before.
//
// Eight warps, 2 along tokens x 4 along columns, 64 x 32 each. For gate and up a block computes 64 columns of both: rows
// of its weight tile are interleaved so that each lane ends with gate and up of the same place (gate_up_column).
#include "ffn_launch.cuh"
#include "fragments.cuh"

namespace moesim {
namespace {

constexpr int kTokens = kTiledTokens, kColumns = 128, kDepth = 32, kStages = 3, kThreads = 256;
constexpr int kStride = kDepth + 8;  // of a row in shared memory: 80 bytes, so that eight rows hit different banks
constexpr int kStageValues = (kTokens + kColumns) * kStride;
constexpr int kSharedBytes = kStages * kStageValues * 2;

struct Block : TokenTile {
  int column;  // first one of the output
};

__device__ __forceinline__ Block block_of(const Groups& groups, int columns_each) {
  const int tile = static_cast<int>(blockIdx.y);
  return {tokens_of_tile(groups.offset, groups.tile_start, groups.experts, tile, kTokens),
          static_cast<int>(blockIdx.x) * columns_each};
}

// Tokens' values k .. k + 31 of the stage.
__device__ __forceinline__ void load_tokens(std::uint16_t* stage, const Block& block, const std::uint16_t* x, int columns,
                                            int k) {
#pragma unroll
  for (int i = 0; i < kTokens * kDepth / 8 / kThreads; ++i) {
    const int chunk = static_cast<int>(threadIdx.x) + i * kThreads, row = chunk / 4, part = chunk % 4 * 8;
    const bool there = row < block.tokens;
    const std::int64_t token = block.first + (there ? row : 0);
    copy_async(stage + row * kStride + part, x + token * columns + k + part, there);
  }
}

// Weights' values k .. k + 31 of the stage: 128 rows of one matrix, or 64 each of gate and up.
template <Format format, bool fused>
__device__ __forceinline__ void load_weights(std::uint16_t* stage, const Block& block, const Matrices& first,
                                             const Matrices& up, int k) {
  using W = Weights<format>;
#pragma unroll
  for (int i = 0; i < kColumns * kDepth / 8 / kThreads; ++i) {
    const int chunk = static_cast<int>(threadIdx.x) + i * kThreads, row = chunk / 4, part = chunk % 4 * 8;
    bool is_up = false;
    const int column = block.column + (fused ? gate_up_column(row, is_up) : row);
    Matrices matrix = first;  // gate and up have the same shape
    if (is_up) matrix.weights = up.weights, matrix.scales = up.scales;
    const bool there = column < matrix.rows;
    const std::int64_t weight_row = there ? column : 0;
    std::uint16_t* to = stage + row * kStride + part;
    if constexpr (format == Format::kBf16) {
      const unsigned char* from = matrix.weights + block.expert * matrix.stride;
      copy_async(to, from + 2 * (weight_row * matrix.columns + k + part), there);
    } else {
      uint4 values = {0, 0, 0, 0};
      if (there)
        values = W::widen(W::load(matrix, block.expert, weight_row, k + part), matrix, block.expert, weight_row, k + part);
      *reinterpret_cast<uint4*>(to) = values;
    }
  }
}

// One stage's products: 64 tokens x 32 columns of this warp.
__device__ __forceinline__ void compute(const std::uint16_t* tokens, const std::uint16_t* weights, int warp_token,
                                        int warp_column, float (&sums)[4][4][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    std::uint32_t a[4][4], b[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      load_matrices(a[i], tokens + (warp_token + i * 16 + lane % 16) * kStride + k + lane / 16 * 8);
#pragma unroll
    for (int j = 0; j < 2; ++j)
      load_matrices(b[j], weights + (warp_column + j * 16 + lane % 8 + lane / 16 * 8) * kStride + k + lane / 8 % 2 * 8);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        multiply_add(sums[i][j], a[i][0], a[i][1], a[i][2], a[i][3], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
  }
}

template <Format format, bool fused>
__device__ __forceinline__ void all_products(std::uint16_t* shared, const Block& block, const Matrices& first,
                                             const Matrices& up, const std::uint16_t* x, float (&sums)[4][4][4]) {
  const int warp = static_cast<int>(threadIdx.x) / 32, steps = first.columns / kDepth;
  const int warp_token = warp / 4 * 64, warp_column = warp % 4 * 32;
  const auto fill = [&](int step) {
    if (step < steps) {
      std::uint16_t* stage = shared + step % kStages * kStageValues;
      load_tokens(stage, block, x, first.columns, step * kDepth);
      load_weights<format, fused>(stage + kTokens * kStride, block, first, up, step * kDepth);
    }
    end_group();  // an empty one at the end, so that the count of groups stays right
  };
  for (int step = 0; step < kStages - 1; ++step) fill(step);
  for (int step = 0; step < steps; ++step) {
    wait_groups<kStages - 2>();
    __syncthreads();  // the stage is there for all, and all are done with the one that is filled next
    fill(step + kStages - 1);
    const std::uint16_t* stage = shared + step % kStages * kStageValues;
    compute(stage, stage + kTokens * kStride, warp_token, warp_column, sums);
  }
}

template <Format format>
__global__ void __launch_bounds__(kThreads) gate_up_tiled(Matrices gate, Matrices up, Groups groups,
                                                         const std::uint16_t* x, std::uint16_t* middle) {
  extern __shared__ __align__(16) std::uint16_t shared[];
  const Block block = block_of(groups, kColumns / 2);
  float sums[4][4][4] = {};
  all_products<format, true>(shared, block, gate, up, x, sums);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int token = warp / 4 * 64 + i * 16 + fragment_row(lane) + c / 2 * 8;
        const int column = block.column + warp % 4 * 16 + j * 8 + fragment_column(lane) + c % 2;
        if (token >= block.tokens || column >= gate.rows) continue;
        const float g = sums[i][j][c] * Weights<format>::row_scale(gate, block.expert, column);
        const float u = sums[i][j + 2][c] * Weights<format>::row_scale(up, block.expert, column);
        middle[static_cast<std::int64_t>(block.first + token) * gate.rows + column] = bf16_from_float(silu(g) * u);
      }
}

template <Format format>
__global__ void __launch_bounds__(kThreads) down_tiled(Matrices down, Groups groups, const std::uint16_t* middle,
                                                      std::uint16_t* y) {
  extern __shared__ __align__(16) std::uint16_t shared[];
  const Block block = block_of(groups, kColumns);
  float sums[4][4][4] = {};
  all_products<format, false>(shared, block, down, down, middle, sums);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int token = warp / 4 * 64 + i * 16 + fragment_row(lane) + half * 8;
        const int column = block.column + warp % 4 * 32 + j * 8 + fragment_column(lane);
        if (token >= block.tokens || column >= down.rows) continue;
        const float left = sums[i][j][half * 2] * Weights<format>::row_scale(down, block.expert, column);
        const float right = sums[i][j][half * 2 + 1] * Weights<format>::row_scale(down, block.expert, column + 1);
        *reinterpret_cast<std::uint32_t*>(y + static_cast<std::int64_t>(block.first + token) * down.rows + column) =
            bf16_pair(left, right);
      }
}

template <Format format>
void launch(const Ffn& f) {
  static const bool ready = [] {
    MOESIM_CUDA(cudaFuncSetAttribute(gate_up_tiled<format>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
    MOESIM_CUDA(cudaFuncSetAttribute(down_tiled<format>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
    return true;
  }();
  (void)ready;
  const int each = f.up != nullptr ? kColumns / 2 : kColumns;
  const dim3 grid((f.rows() + each - 1) / each, f.groups.tiles);
  if (f.up != nullptr) gate_up_tiled<format><<<grid, kThreads, kSharedBytes, f.stream>>>(*f.first, *f.up, f.groups, f.in, f.out);
  else down_tiled<format><<<grid, kThreads, kSharedBytes, f.stream>>>(*f.first, f.groups, f.in, f.out);
}

}  // namespace

void launch_tiled(Format format, const Ffn& ffn) {
  if (format == Format::kBf16) launch<Format::kBf16>(ffn);
  else if (format == Format::kFp8) launch<Format::kFp8>(ffn);
  else launch<Format::kInt4>(ffn);
  MOESIM_LAUNCHED();
}

}  // namespace moesim
