// Experts' feed-forward layers on the GPU: weights in several formats, tokens grouped by expert, own kernels.
//
// y = down * (silu(gate * x) . (up * x)); gate and up are [inter, hidden], down is [hidden, inter], row-major, as in
// the models' files. Activations are bf16 [tokens, hidden], those of expert e being rows offset[e] .. offset[e + 1] - 1.
#pragma once

#include <memory>
#include <vector>

#include "device.cuh"

namespace moesim {

enum class Format { kBf16, kFp8, kInt4 };
Format format_named(const std::string& name);

// Bytes of `count` weights, and of the scales of a matrix: fp8 a float for each row, int4 a bf16 for each 128 of a row.
std::int64_t weight_bytes(Format format, std::int64_t count);
std::int64_t scale_bytes(Format format, std::int64_t rows, std::int64_t columns);

// A matrix of each expert: expert e's weights begin at `weights + e * stride`, its scales at `scales + e * scale_stride`.
struct Matrices {
  const unsigned char* weights;
  const unsigned char* scales;
  std::int64_t stride, scale_stride;
  int rows, columns;
};

// Which tokens are whose, on the device: tile t of the tokens of expert e, in tiles of `tile_tokens`.
struct Groups {
  const int* offset;      // [experts + 1] first token of each expert
  const int* tile_start;  // [experts + 1] first tile of each expert
  int experts, tiles;
};

// Which kernel: `kGemv` for up to 8 tokens of an expert, `kSkinny` up to 64 or so (both read weights once and compute
// with what they have), `kTiled` beyond.
enum class Kernel { kGemv, kSkinny, kTiled };

// The kernel that suits so many tokens of an expert, and the tokens that it takes at once (it pads to them).
struct Choice {
  Kernel kernel;
  int tile_tokens;
  const char* name() const {
    return kernel == Kernel::kGemv ? "own_gemv" : kernel == Kernel::kSkinny ? "own_mma_skinny" : "own_mma";
  }
};
Choice choice_for(std::int64_t tokens_of_an_expert);

// Experts of one shape and format, with random weights.
class Experts {
 public:
  Experts(Format format, std::int64_t hidden, std::int64_t inter, std::int64_t count, std::uint64_t seed);
  Format format() const { return format_; }
  std::int64_t hidden() const { return hidden_; }
  std::int64_t inter() const { return inter_; }
  std::int64_t count() const { return count_; }
  std::int64_t bytes_each() const;  // weights and scales
  // Matrix 0, 1, 2: gate, up, down; of the experts from `first` on.
  Matrices matrices(int which, std::int64_t first = 0) const;

 private:
  Format format_;
  std::int64_t hidden_, inter_, count_;
  DeviceBuffer weights_[3], scales_[3];
};

// Token counts of experts, on the device, with the tiles for a kernel.
class TokenGroups {
 public:
  TokenGroups(const std::vector<std::int64_t>& counts, int tile_tokens);
  Groups groups() const;
  std::int64_t tokens() const { return tokens_; }

 private:
  int experts_ = 0, tiles_ = 0;
  std::int64_t tokens_ = 0;
  DeviceBuffer data_;
};

// middle = silu(gate * x) . (up * x), bf16 [tokens, inter].
void launch_gate_up(Format format, Choice choice, const Matrices& gate, const Matrices& up, const Groups& groups,
                    const std::uint16_t* x, std::uint16_t* middle, cudaStream_t stream);
// y = down * middle, bf16 [tokens, hidden].
void launch_down(Format format, Choice choice, const Matrices& down, const Groups& groups, const std::uint16_t* middle,
                 std::uint16_t* y, cudaStream_t stream);

// The weights as bf16, in a pass of their own.
void launch_unpack(Format format, const Matrices& matrix, std::uint16_t* out, cudaStream_t stream);

// Relative error (root mean square) of y against float64, for one token of expert `expert`, at every 61st output.
double ffn_error(const Experts& experts, std::int64_t expert, std::int64_t token, const std::uint16_t* x,
                 const std::uint16_t* y);
constexpr double kFfnTolerance = 0.03;  // y is bf16 (8 bits), and so is what goes into the last product

}  // namespace moesim
