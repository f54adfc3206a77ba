#include "expert.h"

#include <cmath>

namespace moesim {
namespace {

std::int64_t weight_bytes(const std::string& format, std::int64_t count) {
  return format == "bf16" ? 2 * count : format == "int8" ? count : count / 2;
}

std::int64_t scale_bytes(const std::string& format, std::int64_t rows, std::int64_t columns) {
  if (format == "int4") return 2 * rows * ((columns + kInt4Group - 1) / kInt4Group);
  return format == "int8" ? 4 * rows : 0;
}

}  // namespace

std::unique_ptr<Product> make_product(const std::string& impl) {
  if (impl == "avx512_bf16") return make_avx512_bf16(false);
  if (impl == "avx512_bf16_int4") return make_avx512_bf16(true);
  if (impl == "avx2") return make_avx2(false);
  if (impl == "avx2_int4") return make_avx2(true);
  if (impl == "amx_bf16") return make_amx(false);
  if (impl == "amx_int8") return make_amx(true);
  throw std::runtime_error("unknown impl " + impl);
}

std::int64_t Expert::bytes(const std::string& format, std::int64_t hidden, std::int64_t inter) {
  return 3 * weight_bytes(format, hidden * inter) + 2 * scale_bytes(format, inter, hidden) +
         scale_bytes(format, hidden, inter);
}

Expert::Expert(const std::string& format, std::int64_t hidden, std::int64_t inter, Random& random) {
  for (int which = 0; which < 3; ++which) {
    Matrix& matrix = matrices_[which];
    matrix.rows = which == 2 ? hidden : inter;
    matrix.columns = which == 2 ? inter : hidden;
    const float scale = 1.7f / std::sqrt(static_cast<float>(matrix.columns));
    weights_[which] = Buffer(weight_bytes(format, hidden * inter), random);
    matrix.weights = weights_[which].at();
    if (format == "bf16") {
      random.fill_bf16(weights_[which].at<std::uint16_t>(), static_cast<std::size_t>(hidden * inter), scale);
      continue;
    }
    const std::int64_t bytes = scale_bytes(format, matrix.rows, matrix.columns);
    scales_[which] = Buffer(bytes, random);
    if (format == "int4") {
      for (std::int64_t i = 0; i < bytes / 2; ++i)
        scales_[which].at<std::uint16_t>()[i] = bf16_from_float(scale * (0.75f + 0.25f * random.uniform()) / 8);
      matrix.group_scales = scales_[which].at<std::uint16_t>();
    } else {
      for (std::int64_t i = 0; i < bytes / 4; ++i)
        scales_[which].at<float>()[i] = scale * (0.75f + 0.25f * random.uniform()) / 128;
      matrix.row_scales = scales_[which].at<float>();
    }
  }
}

double weight_as_double(const std::string& format, const Matrix& matrix, std::int64_t row, std::int64_t column) {
  const std::int64_t index = row * matrix.columns + column;
  if (format == "bf16") return float_from_bf16(reinterpret_cast<const std::uint16_t*>(matrix.weights)[index]);
  if (format == "int8")
    return static_cast<double>(reinterpret_cast<const std::int8_t*>(matrix.weights)[index]) * matrix.row_scales[row];
  const std::int64_t groups = (matrix.columns + kInt4Group - 1) / kInt4Group;
  const auto scale = float_from_bf16(matrix.group_scales[row * groups + column / kInt4Group]);
  return int4_from_nibble(nibble_of(matrix.weights[index / 2], static_cast<int>(index % 2))) * static_cast<double>(scale);
}

}  // namespace moesim
