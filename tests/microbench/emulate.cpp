// What the CUDA program computes with, callable from Python: index maps, formats, and the decode loop's cache run
// against virtual time. Built with g++ alone.
#include <cmath>
#include <queue>

#include "cuda/decode_cache.h"
#include "cuda/index_maps.h"

using namespace moesim;

extern "C" {

std::int64_t part_begin_of(std::int64_t bytes, std::int64_t parts, std::int64_t index) {
  return part_begin(bytes, parts, index);
}

void decode_formats(const std::uint8_t* bytes, int count, float* e4m3, float* e8m0, float* shifted) {
  for (int i = 0; i < count; ++i) {
    e4m3[i] = float_from_e4m3(bytes[i]);
    e8m0[i] = float_from_e8m0(bytes[i]);
    const std::uint32_t pair = e4m3_pair_shifted(bytes[i] | static_cast<std::uint32_t>(bytes[i]) << 8);
    const bool same = (pair & 0xFFFFu) == pair >> 16;
    shifted[i] = same ? float_from_bf16(static_cast<std::uint16_t>(pair & 0xFFFFu)) * 0x1p120f : NAN;
  }
}

void decode_nibbles(float* e2m1, int* int4) {
  for (std::uint32_t i = 0; i < 16; ++i) e2m1[i] = float_from_e2m1(i), int4[i] = int4_from_nibble(i);
}

void to_bf16(const float* values, int count, std::uint16_t* bits) {
  for (int i = 0; i < count; ++i) bits[i] = bf16_from_float(values[i]);
}

void tiles(const std::int64_t* counts, int experts, int tile_tokens, int* offset, int* tile_start) {
  lay_out_tiles(counts, experts, tile_tokens, offset, tile_start);
}
void tile(const int* offset, const int* tile_start, int experts, int number, int tile_tokens, int* out) {
  const TokenTile found = tokens_of_tile(offset, tile_start, experts, number, tile_tokens);
  out[0] = found.expert, out[1] = found.first, out[2] = found.tokens;
}

// The warp of the top-k kernel, lane by lane: each lane's best of what it holds, then five exchanges.
void warp_topk(const float* scores, int experts, int k, std::int32_t* ids) {
  float own[32][16];
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 16; ++i) {
      const int expert = expert_of_lane(lane, i);
      own[lane][i] = expert < experts ? scores[expert] : -INFINITY;
    }
  for (int rank = 0; rank < k; ++rank) {
    float best[32];
    int id[32];
    for (int lane = 0; lane < 32; ++lane) {
      best[lane] = -INFINITY, id[lane] = 512;
      for (int i = 0; i < 16; ++i)
        if (own[lane][i] > best[lane]) best[lane] = own[lane][i], id[lane] = expert_of_lane(lane, i);
    }
    for (int step = 16; step > 0; step /= 2) {
      float other[32];
      int other_id[32];
      for (int lane = 0; lane < 32; ++lane) other[lane] = best[lane ^ step], other_id[lane] = id[lane ^ step];
      for (int lane = 0; lane < 32; ++lane)
        if (comes_before(other[lane], other_id[lane], best[lane], id[lane])) best[lane] = other[lane], id[lane] = other_id[lane];
    }
    ids[rank] = id[0];
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 16; ++i)
        if (expert_of_lane(lane, i) == id[lane]) own[lane][i] = -INFINITY;
  }
}

int tile_expert(const int* tile_start, int experts, int tile) { return expert_of_tile(tile_start, experts, tile); }

void gate_up_rows(int* columns, int* is_up) {
  for (int row = 0; row < 128; ++row) {
    bool up = false;
    columns[row] = gate_up_column(row, up);
    is_up[row] = up;
  }
}

void choose(const float* scores, int tokens, int experts, int k, int sigmoid, std::int32_t* ids, float* weights) {
  for (int t = 0; t < tokens; ++t)
    choose_experts(scores + t * experts, experts, k, sigmoid != 0, ids + t * k, weights + t * k);
}

// One k-block of 32 of own_mma_skinny: 16 rows of weights times 8 tokens, lane by lane as the kernel loads and the PTX
// manual lays out m16n8k16. weights [16, 32], x [8, 32], out [16, 8].
void skinny_block(const float* weights, const float* x, float* out) {
  for (int product = 0; product < 2; ++product) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int row = fragment_row(lane), slot = fragment_column(lane), k = fragment_k(lane) + 4 * product;
      for (int i = 0; i < 2; ++i) {
        a[row][slot + i] = weights[row * 32 + k + i];                  // register a0
        a[row + 8][slot + i] = weights[(row + 8) * 32 + k + i];        // a1
        a[row][slot + 8 + i] = weights[row * 32 + k + 2 + i];          // a2
        a[row + 8][slot + 8 + i] = weights[(row + 8) * 32 + k + 2 + i];  // a3
        b[slot + i][row] = x[row * 32 + k + i];                        // b0
        b[slot + 8 + i][row] = x[row * 32 + k + 2 + i];                // b1
      }
    }
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 8; ++column)
        for (int k = 0; k < 16; ++k) out[row * 8 + column] += a[row][k] * b[k][column];
  }
}

// The decode loop in virtual time: labels [lookups] and the end of each visit [visits].
void decode_loop(const int* ids, int tokens, int layers, int experts, int k, int slots, int prefetch, double before_s,
                 double expert_s, double copy_s, int* labels, double* visit_end_s, double* stall_s) {
  DecodeCache cache(layers * experts, slots);
  double now = 0, copy_end = -1;
  int copying = -1, next_label = 0;
  // The copies' thread: ends what is due until `until`, and starts what waits.
  const auto copies_until = [&](double until, bool at_end) {
    for (;;) {
      if (copying >= 0) {
        if (copy_end > until || (!at_end && copy_end == until)) return;
        const double end = copy_end;
        cache.end_copy(copying);
        copying = -1;
        DecodeCache::Copy copy;
        if (end < until && cache.start_next(copy)) copying = copy.key, copy_end = end + copy_s;
      } else {
        return;
      }
    }
  };
  const auto start_copy = [&] {
    DecodeCache::Copy copy;
    if (copying < 0 && cache.start_next(copy)) copying = copy.key, copy_end = now + copy_s;
  };
  const auto work = [&](double seconds) {
    copies_until(now + seconds, true);
    now += seconds;
  };
  for (int token = 0; token < tokens; ++token)
    for (int layer = 0; layer < layers; ++layer) {
      const std::int64_t visit = token * layers + layer;
      work(before_s);
      std::vector<int> members, ready;
      for (int rank = 0; rank < k; ++rank) members.push_back(layer * experts + ids[visit * k + rank]);
      for (const auto label : cache.ask(visit, members, ready)) labels[next_label++] = static_cast<int>(label);
      const std::int64_t at = prefetch ? proposals_at(token, layer, layers, k) : -1;
      for (int rank = 0; at >= 0 && rank < k; ++rank) cache.propose((layer + 1) * experts + ids[at + rank], visit + 1);
      start_copy();
      for (std::size_t i = 0; i < ready.size(); ++i) work(expert_s), start_copy();
      stall_s[visit] = 0;
      for (std::size_t i = ready.size(); i < members.size(); ++i) {
        int key = -1;
        while (!cache.take_arrival(key)) {
          const double end = copy_end;
          stall_s[visit] += end - now;
          copies_until(end, true);
          now = end;
          start_copy();
        }
        work(expert_s);
        start_copy();
      }
      cache.end_visit(members);
      visit_end_s[visit] = now;
    }
}
}
