// Index arithmetic that kernels, the host and the tests share. No CUDA in here: tests compile it with g++ alone.
#pragma once

#include <cmath>
#include <cstdint>

#include "../shared/formats.h"

namespace moesim {

// Where part `index` of `parts` begins, of `bytes` cut at multiples of 256: the last one ends at `bytes`.
MOESIM_BOTH std::int64_t part_begin(std::int64_t bytes, std::int64_t parts, std::int64_t index) {
  return index >= parts ? bytes : bytes / 256 * index / parts * 256;
}

// The m16n8k16 product of a warp (PTX ISA, mma.m16n8k16 with .bf16): a lane holds, of the 16 x 8 result, rows
// `fragment_row(lane)` and that + 8, and columns `fragment_column(lane)` and that + 1.
MOESIM_BOTH int fragment_row(int lane) { return lane / 4; }
MOESIM_BOTH int fragment_column(int lane) { return lane % 4 * 2; }

// Which 8 of 32 consecutive k a lane loads at once (16 bytes of bf16). Two products of k = 16 take them: the first its
// values 0..3, the second 4..7. Both operands are loaded by this map, so that the order of k does not matter.
MOESIM_BOTH int fragment_k(int lane) { return lane % 4 * 8; }

// The expert of a tile, where the tiles of expert e are tile_start[e] .. tile_start[e + 1] - 1 (binary search).
MOESIM_BOTH int expert_of_tile(const int* tile_start, int experts, int tile) {
  int low = 0, high = experts - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (tile_start[middle] <= tile) low = middle;
    else high = middle - 1;
  }
  return low;
}

// Tokens of experts in tiles: `offset` and `tile_start` [experts + 1] from the `counts` of each.
inline void lay_out_tiles(const std::int64_t* counts, int experts, int tile_tokens, int* offset, int* tile_start) {
  offset[0] = tile_start[0] = 0;
  for (int e = 0; e < experts; ++e) {
    offset[e + 1] = offset[e] + static_cast<int>(counts[e]);
    tile_start[e + 1] = tile_start[e] + static_cast<int>((counts[e] + tile_tokens - 1) / tile_tokens);
  }
}

// The tokens of a tile: whose they are, the first one, and how many.
struct TokenTile {
  int expert, first, tokens;
};
MOESIM_BOTH TokenTile tokens_of_tile(const int* offset, const int* tile_start, int experts, int tile, int tile_tokens) {
  const int expert = expert_of_tile(tile_start, experts, tile);
  const int first = offset[expert] + (tile - tile_start[expert]) * tile_tokens;
  const int left = offset[expert + 1] - first;
  return {expert, first, left < tile_tokens ? left : tile_tokens};
}

// Whether a score comes before another one: the larger, and of equal ones that of the lower number.
MOESIM_BOTH bool comes_before(float score, int id, float other, int other_id) {
  return score > other || (score == other && id < other_id);
}

// Where a warp that shares out a token's experts has them: lane l holds experts l, l + 32, ...
MOESIM_BOTH int expert_of_lane(int lane, int index) { return lane + 32 * index; }

// The row of the shared-memory tile of a fused gate-and-up product that holds row `row` of its 128: each warp's 32 rows
// are 16 of the gate and the same 16 of up. Returns the column of the layer, counted in the tile's 64; `is_up` says which.
MOESIM_BOTH int gate_up_column(int row, bool& is_up) {
  is_up = row % 32 >= 16;
  return row / 32 * 16 + row % 16;
}

// The k experts with the largest scores, the lower number first among equals, and their weights: the softmax over all
// scores (or the sigmoid of each), scaled so that the chosen ones sum to one.
MOESIM_BOTH void choose_experts(const float* scores, int experts, int k, bool sigmoid, std::int32_t* ids,
                                float* weights) {
  float sum = 0;
  for (int rank = 0; rank < k; ++rank) {
    int best = -1;
    for (int e = 0; e < experts; ++e) {
      bool taken = false;
      for (int other = 0; other < rank; ++other) taken = taken || ids[other] == e;
      if (!taken && (best < 0 || scores[e] > scores[best])) best = e;
    }
    ids[rank] = best;
    weights[rank] = sigmoid ? 1 / (1 + expf(-scores[best])) : expf(scores[best] - scores[ids[0]]);
    sum += weights[rank];
  }
  for (int rank = 0; rank < k; ++rank) weights[rank] /= sum;
}

// Two e4m3 bytes (low one first) as two bf16, 2^-120 times their value: the caller multiplies by 2^120.
MOESIM_BOTH std::uint32_t e4m3_pair_shifted(std::uint32_t pair) {
  const std::uint32_t apart = (pair & 0xFFu) | (pair & 0xFF00u) << 8;
  return (apart & 0x00800080u) << 8 | (apart & 0x007F007Fu) << 4;
}
constexpr std::uint32_t kTwoTo120 = 0x7B807B80u;  // 2^120 as two bf16

// Experts of a decode loop that the previous token used in the next layer: what the `temporal` prefetch proposes.
// `ids` is [tokens, layers, k]; returns the place of the first of k in it, or -1 where there is none.
MOESIM_BOTH std::int64_t proposals_at(std::int64_t token, std::int64_t layer, std::int64_t layers, std::int64_t k) {
  return token == 0 || layer + 1 >= layers ? -1 : ((token - 1) * layers + layer + 1) * k;
}

}  // namespace moesim
