// One expert's weights on the CPU, and the products that its instruction sets offer.
//
// y = down * (silu(gate * x) . (up * x)); gate and up are [inter, hidden], down is [hidden, inter], row-major.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "memory.h"

namespace moesim {

// A matrix as it is stored: `rows` of `columns` weights. int4: two a byte, a bf16 scale for each kInt4Group of a row.
// int8: a float scale for each row.
struct Matrix {
  std::int64_t rows = 0, columns = 0;
  const unsigned char* weights = nullptr;
  const std::uint16_t* group_scales = nullptr;
  const float* row_scales = nullptr;
};

// An instruction set's way to multiply. Activations come as bf16 [tokens, columns] and are packed as it likes them.
class Product {
 public:
  virtual ~Product() = default;
  virtual std::string format() const = 0;                // of the weights: bf16, int8, int4
  virtual std::int64_t row_step() const { return 4; }    // rows are shared out in multiples of it
  virtual std::int64_t token_step() const { return 4; }  // tokens are packed in blocks of it
  virtual std::int64_t packed_bytes(std::int64_t tokens, std::int64_t columns) const = 0;
  virtual void pack(const std::uint16_t* x, std::int64_t tokens, std::int64_t columns, std::int64_t first,
                    std::int64_t last, unsigned char* packed) const = 0;
  // out[token, row] for rows first..last; `stride` floats between tokens.
  virtual void multiply(const Matrix& matrix, std::int64_t first, std::int64_t last, const unsigned char* packed,
                        std::int64_t tokens, float* out, std::int64_t stride) const = 0;
  virtual void begin_thread() const {}
  virtual void end_thread() const {}
};

// Throws Skip where the CPU lacks what it needs. impl: avx512_bf16, avx2, avx512_bf16_int4, avx2_int4, amx_bf16,
// amx_int8.
std::unique_ptr<Product> make_product(const std::string& impl);

std::unique_ptr<Product> make_avx512_bf16(bool int4);
std::unique_ptr<Product> make_avx2(bool int4);
std::unique_ptr<Product> make_amx(bool int8);

// One row of int4 weights as bf16. AVX2.
void unpack_int4_row(const Matrix& matrix, std::int64_t row, std::uint16_t* out);

double weight_as_double(const std::string& format, const Matrix& matrix, std::int64_t row, std::int64_t column);

class Expert {
 public:
  Expert(const std::string& format, std::int64_t hidden, std::int64_t inter, Random& random);
  const Matrix& gate() const { return matrices_[0]; }
  const Matrix& up() const { return matrices_[1]; }
  const Matrix& down() const { return matrices_[2]; }
  static std::int64_t bytes(const std::string& format, std::int64_t hidden, std::int64_t inter);

 private:
  Buffer weights_[3], scales_[3];
  Matrix matrices_[3];
};

}  // namespace moesim
