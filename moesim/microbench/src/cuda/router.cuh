// The router's kernels: scores to experts, experts to places, tokens to places and back.
#pragma once

#include "device.cuh"

namespace moesim {

constexpr int kMostExperts = 512, kMostChosen = 16;

// ids, weights: [tokens, k]; scores: [tokens, experts] float. As choose_experts.
void launch_topk(const float* scores, std::int64_t tokens, int experts, int k, bool sigmoid, std::int32_t* ids,
                 float* weights, cudaStream_t stream);
// offset: [experts + 1], where each expert's pairs begin; `cursor` [experts] becomes a copy of the first of them.
void launch_offsets(const std::int32_t* ids, std::int64_t pairs, int experts, int* counts, int* offset, int* cursor,
                    cudaStream_t stream);
// place[pair]: a row of its expert's own; rows: x of the pair's token there, bf16 [pairs, hidden].
void launch_permute(const std::uint16_t* x, const std::int32_t* ids, std::int64_t tokens, int k, int hidden, int* cursor,
                    int* place, std::uint16_t* rows, cudaStream_t stream);
// y[token] = sum over its pairs of weight * rows[place].
void launch_combine(const std::uint16_t* rows, const int* place, const float* weights, std::int64_t tokens, int k,
                    int hidden, std::uint16_t* y, cudaStream_t stream);
void fill_scores(float* scores, std::int64_t count, std::uint64_t seed);

}  // namespace moesim
