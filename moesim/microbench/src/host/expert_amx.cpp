// Products with AMX: tiles of 16 rows x 64 bytes, in bf16 (32 columns a tile row) or int8 (64 columns).
//
// Weights are tile A as they lie in memory: 16 rows, a row's length apart. Activations are packed once into tiles B: 16
// tokens side by side, the 4 bytes (2 bf16 or 4 int8) of a column group together. C is [16 rows, 16 tokens].
#include "expert.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace moesim {
namespace {

constexpr std::int64_t kTile = 16, kTileBytes = 64;
constexpr int kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

bool cpu_has_amx(bool int8) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  return (d >> 24 & 1u) != 0 && (d >> (int8 ? 25 : 22) & 1u) != 0;
}

// Two row tiles times one or two token tiles over all columns; the sums go to `out` [token tile][row tile][16][16].
template <bool int8, bool two_tokens>
__attribute__((target("amx-tile,amx-bf16,amx-int8"))) void product(const unsigned char* weights, std::int64_t row_bytes,
                                                                   const unsigned char* x, std::int64_t x_stride,
                                                                   void* out) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::int64_t k = 0; k < row_bytes; k += kTileBytes) {
    const unsigned char* tile_x = x + k * kTile;
    _tile_loadd(4, weights + k, row_bytes);
    _tile_loadd(5, weights + kTile * row_bytes + k, row_bytes);
    _tile_loadd(6, tile_x, kTileBytes);
    if constexpr (int8) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 5, 6);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 5, 6);
    }
    if constexpr (two_tokens) {
      _tile_loadd(7, tile_x + x_stride, kTileBytes);
      if constexpr (int8) {
        _tile_dpbssd(2, 4, 7);
        _tile_dpbssd(3, 5, 7);
      } else {
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  auto* tiles = static_cast<unsigned char*>(out);
  _tile_stored(0, tiles, kTileBytes);
  _tile_stored(1, tiles + 1024, kTileBytes);
  if constexpr (two_tokens) {
    _tile_stored(2, tiles + 2048, kTileBytes);
    _tile_stored(3, tiles + 3072, kTileBytes);
  }
}

class Amx final : public Product {
 public:
  explicit Amx(bool int8) : int8_(int8) {}
  std::string format() const override { return int8_ ? "int8" : "bf16"; }
  std::int64_t row_step() const override { return 2 * kTile; }
  std::int64_t token_step() const override { return kTile; }

  // After the tiles: a float scale for each token (int8).
  std::int64_t packed_bytes(std::int64_t tokens, std::int64_t columns) const override {
    const std::int64_t padded = (tokens + kTile - 1) / kTile * kTile;
    return padded * row_bytes(columns) + 4 * padded;
  }

  void pack(const std::uint16_t* x, std::int64_t tokens, std::int64_t columns, std::int64_t first, std::int64_t last,
            unsigned char* packed) const override {
    const std::int64_t tile_bytes = kTile * row_bytes(columns);
    const std::int64_t padded = (tokens + kTile - 1) / kTile * kTile;
    auto* scales = reinterpret_cast<float*>(packed + padded * row_bytes(columns));
    for (std::int64_t token = first; token < (last == tokens ? padded : last); ++token) {
      unsigned char* tile = packed + token / kTile * tile_bytes + token % kTile * 4;
      const std::uint16_t* row = token < tokens ? x + token * columns : nullptr;
      scales[token] = int8_ ? pack_int8(row, columns, tile) : pack_bf16(row, columns, tile);
    }
  }

  __attribute__((target("amx-tile"))) void begin_thread() const override {
    const TileConfig config;
    _tile_loadconfig(&config);
  }
  __attribute__((target("amx-tile"))) void end_thread() const override { _tile_release(); }

  void multiply(const Matrix& matrix, std::int64_t first, std::int64_t last, const unsigned char* packed,
                std::int64_t tokens, float* out, std::int64_t stride) const override {
    const std::int64_t bytes = row_bytes(matrix.columns), tile_bytes = kTile * bytes;
    const std::int64_t token_tiles = (tokens + kTile - 1) / kTile;
    const auto* scales = reinterpret_cast<const float*>(packed + token_tiles * tile_bytes);
    alignas(64) unsigned char sums[4096];
    for (std::int64_t row = first; row < last; row += 2 * kTile) {
      const unsigned char* weights = matrix.weights + row * bytes;
      for (std::int64_t tile = 0; tile < token_tiles; tile += 2) {
        const bool two = tile + 1 < token_tiles;
        run(two, weights, bytes, packed + tile * tile_bytes, tile_bytes, sums);
        scatter(matrix, row, tile * kTile, std::min(tokens, (tile + (two ? 2 : 1)) * kTile), scales, sums, out, stride);
      }
    }
  }

 private:
  std::int64_t row_bytes(std::int64_t columns) const { return int8_ ? columns : 2 * columns; }

  static float pack_bf16(const std::uint16_t* row, std::int64_t columns, unsigned char* tile) {
    for (std::int64_t pair = 0; pair < columns / 2; ++pair) {
      if (row != nullptr) memcpy(tile + pair * kTileBytes, row + 2 * pair, 4);
      else memset(tile + pair * kTileBytes, 0, 4);
    }
    return 1;
  }

  static float pack_int8(const std::uint16_t* row, std::int64_t columns, unsigned char* tile) {
    float largest = 1e-20f;
    for (std::int64_t k = 0; row != nullptr && k < columns; ++k)
      largest = std::max(largest, std::fabs(float_from_bf16(row[k])));
    for (std::int64_t k = 0; k < columns; ++k) {
      const float value = row == nullptr ? 0 : float_from_bf16(row[k]) * (127 / largest);
      tile[k / 4 * kTileBytes + k % 4] = static_cast<unsigned char>(static_cast<std::int8_t>(std::lrintf(value)));
    }
    return largest / 127;
  }

  void run(bool two, const unsigned char* weights, std::int64_t bytes, const unsigned char* x, std::int64_t x_stride,
           void* sums) const {
    if (int8_) (two ? product<true, true> : product<true, false>)(weights, bytes, x, x_stride, sums);
    else (two ? product<false, true> : product<false, false>)(weights, bytes, x, x_stride, sums);
  }

  void scatter(const Matrix& matrix, std::int64_t row, std::int64_t first, std::int64_t last, const float* scales,
               const unsigned char* sums, float* out, std::int64_t stride) const {
    for (std::int64_t token = first; token < last; ++token)
      for (std::int64_t r = 0; r < 2 * kTile; ++r) {
        const std::int64_t tile = (token - first) / kTile * 2 + r / kTile;
        const unsigned char* from = sums + tile * 1024 + (r % kTile * kTile + (token - first) % kTile) * 4;
        float sum = 0;
        std::int32_t whole = 0;
        memcpy(&sum, from, 4);
        memcpy(&whole, from, 4);
        out[token * stride + row + r] =
            int8_ ? static_cast<float>(whole) * scales[token] * matrix.row_scales[row + r] : sum;
      }
  }

  bool int8_;
};

}  // namespace

std::unique_ptr<Product> make_amx(bool int8) {
  if (!cpu_has_amx(int8)) throw Skip(int8 ? "this CPU has no AMX int8" : "this CPU has no AMX bf16");
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) throw Skip("the kernel does not permit AMX");
  return std::make_unique<Amx>(int8);
}

}  // namespace moesim

#else

namespace moesim {

std::unique_ptr<Product> make_amx(bool int8) { throw Skip(int8 ? "this CPU has no AMX int8" : "this CPU has no AMX bf16"); }

}  // namespace moesim

#endif
