// Products with AVX2 (bf16 widened to float) and AVX-512 BF16 (pairs of bf16 multiplied and added to float).
//
// A block of rows times a block of tokens stays in registers while the columns go by, so that each weight is read from
// memory once for all tokens: a row block of weights (16 to 112 KB) stays in the caches between token blocks.
#include "expert.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace moesim {
namespace {

constexpr int kRows = 4, kTokens = 4;

using Bf16 = const std::uint16_t;

__attribute__((target("avx512f"))) inline float sum_of(__m512 lanes) {
  alignas(64) float parts[16];
  _mm512_store_ps(parts, lanes);
  float sum = 0;
  for (const float part : parts) sum += part;
  return sum;
}

template <int rows, int tokens>
__attribute__((target("avx512f,avx512bw,avx512bf16"))) void block_avx512(Bf16* weights, std::int64_t columns, Bf16* x,
                                                                         float* out, std::int64_t stride) {
  __m512 sums[rows][tokens];
  for (auto& row : sums)
    for (auto& sum : row) sum = _mm512_setzero_ps();
  for (std::int64_t k = 0; k < columns; k += 32) {
    __m512bh activations[tokens];
    for (int t = 0; t < tokens; ++t) activations[t] = (__m512bh)_mm512_loadu_si512(x + t * columns + k);
    for (int r = 0; r < rows; ++r) {
      const auto weight = (__m512bh)_mm512_loadu_si512(weights + r * columns + k);
      for (int t = 0; t < tokens; ++t) sums[r][t] = _mm512_dpbf16_ps(sums[r][t], weight, activations[t]);
    }
  }
  for (int t = 0; t < tokens; ++t)
    for (int r = 0; r < rows; ++r) out[t * stride + r] = sum_of(sums[r][t]);
}

__attribute__((target("avx2,fma"))) inline __m256 widened(Bf16* from) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

__attribute__((target("avx2,fma"))) inline float sum_of(__m256 lanes) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}

template <int rows, int tokens>
__attribute__((target("avx2,fma"))) void block_avx2(Bf16* weights, std::int64_t columns, const float* x, float* out,
                                                    std::int64_t stride) {
  for (int first = 0; first < rows; first += 2) {  // two rows at a time: eight sums, and registers left for loads
    __m256 sums[2][tokens];
    for (auto& row : sums)
      for (auto& sum : row) sum = _mm256_setzero_ps();
    for (std::int64_t k = 0; k < columns; k += 8) {
      const __m256 upper = widened(weights + first * columns + k);
      const __m256 lower = widened(weights + (first + 1) * columns + k);
      for (int t = 0; t < tokens; ++t) {
        const __m256 activation = _mm256_loadu_ps(x + t * columns + k);
        sums[0][t] = _mm256_fmadd_ps(upper, activation, sums[0][t]);
        sums[1][t] = _mm256_fmadd_ps(lower, activation, sums[1][t]);
      }
    }
    for (int t = 0; t < tokens; ++t)
      for (int r = 0; r < 2; ++r) out[t * stride + first + r] = sum_of(sums[r][t]);
  }
}

// Calls block<kRows, tokens> for a number of tokens from 1 to kTokens.
template <typename X, typename Block1, typename Block2, typename Block3, typename Block4>
void for_token_blocks(Bf16* weights, std::int64_t columns, const X* x, std::int64_t tokens, float* out,
                      std::int64_t stride, Block1 one, Block2 two, Block3 three, Block4 four) {
  for (std::int64_t t = 0; t < tokens; t += kTokens) {
    const X* from = x + t * columns;
    float* to = out + t * stride;
    switch (std::min<std::int64_t>(kTokens, tokens - t)) {
      case 1: one(weights, columns, from, to, stride); break;
      case 2: two(weights, columns, from, to, stride); break;
      case 3: three(weights, columns, from, to, stride); break;
      default: four(weights, columns, from, to, stride);
    }
  }
}

// What both have in common: rows in blocks of kRows, int4 rows first unpacked into a scratch that stays in the cache.
class RowBlocks : public Product {
 public:
  explicit RowBlocks(bool int4) : int4_(int4) {}
  std::string format() const override { return int4_ ? "int4" : "bf16"; }

  void multiply(const Matrix& matrix, std::int64_t first, std::int64_t last, const unsigned char* packed,
                std::int64_t tokens, float* out, std::int64_t stride) const override {
    static thread_local std::vector<std::uint16_t> scratch;
    scratch.resize(static_cast<std::size_t>(int4_ ? kRows * matrix.columns : 0));
    for (std::int64_t row = first; row < last; row += kRows) {
      Bf16* weights = reinterpret_cast<Bf16*>(matrix.weights) + row * matrix.columns;
      if (int4_) {
        for (int r = 0; r < kRows; ++r) unpack_int4_row(matrix, row + r, scratch.data() + r * matrix.columns);
        weights = scratch.data();
      }
      block(weights, matrix.columns, packed, tokens, out + row, stride);
    }
  }

 protected:
  virtual void block(Bf16* weights, std::int64_t columns, const unsigned char* packed, std::int64_t tokens, float* out,
                     std::int64_t stride) const = 0;

 private:
  bool int4_;
};

class Avx512Bf16 final : public RowBlocks {
 public:
  using RowBlocks::RowBlocks;
  std::int64_t packed_bytes(std::int64_t tokens, std::int64_t columns) const override { return 2 * tokens * columns; }
  void pack(const std::uint16_t* x, std::int64_t, std::int64_t columns, std::int64_t first, std::int64_t last,
            unsigned char* packed) const override {
    const std::int64_t begin = 2 * first * columns;
    memcpy(packed + begin, x + first * columns, static_cast<std::size_t>(2 * last * columns - begin));
  }

 protected:
  void block(Bf16* weights, std::int64_t columns, const unsigned char* packed, std::int64_t tokens, float* out,
             std::int64_t stride) const override {
    for_token_blocks(weights, columns, reinterpret_cast<Bf16*>(packed), tokens, out, stride, block_avx512<kRows, 1>,
                     block_avx512<kRows, 2>, block_avx512<kRows, 3>, block_avx512<kRows, 4>);
  }
};

class Avx2 final : public RowBlocks {
 public:
  using RowBlocks::RowBlocks;
  std::int64_t packed_bytes(std::int64_t tokens, std::int64_t columns) const override { return 4 * tokens * columns; }
  void pack(const std::uint16_t* x, std::int64_t, std::int64_t columns, std::int64_t first, std::int64_t last,
            unsigned char* packed) const override {
    auto* out = reinterpret_cast<float*>(packed);
    for (std::int64_t i = first * columns; i < last * columns; ++i) out[i] = float_from_bf16(x[i]);
  }

 protected:
  void block(Bf16* weights, std::int64_t columns, const unsigned char* packed, std::int64_t tokens, float* out,
             std::int64_t stride) const override {
    for_token_blocks(weights, columns, reinterpret_cast<const float*>(packed), tokens, out, stride,
                     block_avx2<kRows, 1>, block_avx2<kRows, 2>, block_avx2<kRows, 3>, block_avx2<kRows, 4>);
  }
};

__attribute__((target("avx2,fma"))) void store_scaled(__m128i weights, __m256 scale, std::uint16_t* out) {
  const __m256 values = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(weights)), scale);
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i high = _mm256_srli_epi32(rounded, 16);
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), packed);
}

}  // namespace

__attribute__((target("avx2,fma"))) void unpack_int4_row(const Matrix& matrix, std::int64_t row, std::uint16_t* out) {
  const std::int64_t columns = matrix.columns, groups = (columns + kInt4Group - 1) / kInt4Group;
  const unsigned char* bytes = matrix.weights + row * columns / 2;
  const __m128i low_half = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
  for (std::int64_t k = 0; k < columns; k += 32) {
    const __m256 scale = _mm256_set1_ps(float_from_bf16(matrix.group_scales[row * groups + k / kInt4Group]));
    const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + k / 2));
    const __m128i low = _mm_and_si128(pairs, low_half), high = _mm_and_si128(_mm_srli_epi16(pairs, 4), low_half);
    const __m128i first = _mm_sub_epi8(_mm_unpacklo_epi8(low, high), eight);
    const __m128i second = _mm_sub_epi8(_mm_unpackhi_epi8(low, high), eight);
    store_scaled(first, scale, out + k);
    store_scaled(_mm_srli_si128(first, 8), scale, out + k + 8);
    store_scaled(second, scale, out + k + 16);
    store_scaled(_mm_srli_si128(second, 8), scale, out + k + 24);
  }
}

std::unique_ptr<Product> make_avx512_bf16(bool int4) {
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512bw"))
    throw Skip("this CPU has no AVX-512 BF16");
  return std::make_unique<Avx512Bf16>(int4);
}

std::unique_ptr<Product> make_avx2(bool int4) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) throw Skip("this CPU has no AVX2");
  return std::make_unique<Avx2>(int4);
}

}  // namespace moesim

#else

namespace moesim {

std::unique_ptr<Product> make_avx512_bf16(bool) { throw Skip("this CPU has no AVX-512 BF16"); }
std::unique_ptr<Product> make_avx2(bool) { throw Skip("this CPU has no AVX2"); }

}  // namespace moesim

#endif
