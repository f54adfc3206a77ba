#include "ffn.cuh"

#include <cmath>

#include "ffn_launch.cuh"
#include "fragments.cuh"

namespace moesim {
namespace {

// Random bytes have NaN codes of e4m3 among them (0x7F, 0xFF): those become the largest number.
__global__ void without_nan(unsigned char* bytes, std::int64_t count) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < count; i += stride)
    if ((bytes[i] & 0x7F) == 0x7F) bytes[i] ^= 1;
}

template <Format format>
__global__ void unpack(Matrices matrix, std::uint16_t* out) {
  using W = Weights<format>;
  const std::int64_t chunks = static_cast<std::int64_t>(matrix.rows) * matrix.columns / 8;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < chunks; i += stride) {
    const std::int64_t row = i * 8 / matrix.columns;
    const int k = static_cast<int>(i * 8 % matrix.columns);
    const uint4 values = W::widen(W::load(matrix, 0, row, k), matrix, 0, row, k);
    const float scale = W::row_scale(matrix, 0, row);
    const auto scaled = [&](std::uint32_t pair) { return bf16_pair(low_float(pair) * scale, high_float(pair) * scale); };
    reinterpret_cast<uint4*>(out)[i] = {scaled(values.x), scaled(values.y), scaled(values.z), scaled(values.w)};
  }
}

// A matrix of one expert on the host, to be multiplied in float64.
class HostMatrix {
 public:
  HostMatrix(Format format, const Matrices& matrix, std::int64_t expert)
      : format_(format), rows_(matrix.rows), columns_(matrix.columns) {
    weights_.resize(static_cast<std::size_t>(weight_bytes(format, rows_ * columns_)));
    scales_.resize(static_cast<std::size_t>(scale_bytes(format, rows_, columns_)));
    MOESIM_CUDA(cudaMemcpy(weights_.data(), matrix.weights + expert * matrix.stride, weights_.size(), cudaMemcpyDeviceToHost));
    if (!scales_.empty())
      MOESIM_CUDA(cudaMemcpy(scales_.data(), matrix.scales + expert * matrix.scale_stride, scales_.size(),
                             cudaMemcpyDeviceToHost));
  }
  double dot(std::int64_t row, const std::vector<double>& x) const {
    double sum = 0;
    for (std::int64_t k = 0; k < columns_; ++k) sum += weight(row, k) * x[static_cast<std::size_t>(k)];
    return sum;
  }
  std::int64_t rows() const { return rows_; }

 private:
  template <typename T>
  T at(const std::vector<unsigned char>& bytes, std::int64_t index) const {
    T value;
    memcpy(&value, bytes.data() + index * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    return value;
  }
  double weight(std::int64_t row, std::int64_t k) const {
    const std::int64_t index = row * columns_ + k;
    if (format_ == Format::kBf16) return float_from_bf16(at<std::uint16_t>(weights_, index));
    if (format_ == Format::kFp8)
      return static_cast<double>(float_from_e4m3(at<std::uint8_t>(weights_, index))) * at<float>(scales_, row);
    const std::int64_t groups = (columns_ + kInt4Group - 1) / kInt4Group;
    const float scale = float_from_bf16(at<std::uint16_t>(scales_, row * groups + k / kInt4Group));
    const auto byte = at<std::uint8_t>(weights_, index / 2);
    return int4_from_nibble(nibble_of(byte, static_cast<int>(index % 2))) * static_cast<double>(scale);
  }

  Format format_;
  std::int64_t rows_, columns_;
  std::vector<unsigned char> weights_, scales_;
};

std::vector<double> row_on_host(const std::uint16_t* values, std::int64_t row, std::int64_t columns) {
  std::vector<std::uint16_t> bits(static_cast<std::size_t>(columns));
  MOESIM_CUDA(cudaMemcpy(bits.data(), values + row * columns, bits.size() * 2, cudaMemcpyDeviceToHost));
  std::vector<double> row_values;
  for (const auto value : bits) row_values.push_back(float_from_bf16(value));
  return row_values;
}

}  // namespace

Format format_named(const std::string& name) {
  if (name == "bf16") return Format::kBf16;
  if (name == "fp8") return Format::kFp8;
  if (name.rfind("int4", 0) == 0) return Format::kInt4;
  throw std::runtime_error("unknown format " + name);
}

std::int64_t weight_bytes(Format format, std::int64_t count) {
  return format == Format::kBf16 ? 2 * count : format == Format::kFp8 ? count : count / 2;
}

std::int64_t scale_bytes(Format format, std::int64_t rows, std::int64_t columns) {
  if (format == Format::kFp8) return 4 * rows;
  return format == Format::kInt4 ? 2 * rows * ((columns + kInt4Group - 1) / kInt4Group) : 0;
}

Choice choice_for(std::int64_t tokens) {
  for (const int few : {1, 4, 8})
    if (tokens <= few) return {Kernel::kGemv, few};
  for (const int some : {16, 32, 64})
    if (tokens <= some) return {Kernel::kSkinny, some};
  return {Kernel::kTiled, kTiledTokens};
}

Experts::Experts(Format format, std::int64_t hidden, std::int64_t inter, std::int64_t count, std::uint64_t seed)
    : format_(format), hidden_(hidden), inter_(inter), count_(count) {
  Random random(seed);
  for (int which = 0; which < 3; ++which) {
    const std::int64_t rows = which == 2 ? hidden : inter, columns = which == 2 ? inter : hidden;
    const float scale = 1.7f / std::sqrt(static_cast<float>(columns));
    const std::int64_t bytes = weight_bytes(format, rows * columns) * count;
    weights_[which] = DeviceBuffer(bytes);
    scales_[which] = DeviceBuffer(scale_bytes(format, rows, columns) * count);
    if (format == Format::kBf16) {
      fill_bf16(weights_[which].at(), rows * columns * count, scale, random.next());
      continue;
    }
    fill_random(weights_[which].at(), bytes, random.next());
    if (format == Format::kFp8) {
      without_nan<<<1024, 256>>>(weights_[which].at(), bytes);
      MOESIM_LAUNCHED();
      std::vector<float> scales(static_cast<std::size_t>(rows * count));
      for (auto& value : scales) value = scale * (0.75f + 0.25f * random.uniform()) / 150;
      MOESIM_CUDA(cudaMemcpy(scales_[which].at(), scales.data(), scales.size() * 4, cudaMemcpyHostToDevice));
    } else {
      std::vector<std::uint16_t> scales(static_cast<std::size_t>(scales_[which].bytes() / 2));
      for (auto& value : scales) value = bf16_from_float(scale * (0.75f + 0.25f * random.uniform()) / 8);
      MOESIM_CUDA(cudaMemcpy(scales_[which].at(), scales.data(), scales.size() * 2, cudaMemcpyHostToDevice));
    }
  }
  MOESIM_CUDA(cudaDeviceSynchronize());
}

std::int64_t Experts::bytes_each() const {
  return 3 * weight_bytes(format_, hidden_ * inter_) + 2 * scale_bytes(format_, inter_, hidden_) +
         scale_bytes(format_, hidden_, inter_);
}

Matrices Experts::matrices(int which, std::int64_t first) const {
  const std::int64_t rows = which == 2 ? hidden_ : inter_, columns = which == 2 ? inter_ : hidden_;
  const std::int64_t stride = weight_bytes(format_, rows * columns), scale_stride = scale_bytes(format_, rows, columns);
  return {weights_[which].at(first * stride), scales_[which].at(first * scale_stride), stride, scale_stride,
          static_cast<int>(rows), static_cast<int>(columns)};
}

TokenGroups::TokenGroups(const std::vector<std::int64_t>& counts, int tile_tokens)
    : experts_(static_cast<int>(counts.size())) {
  std::vector<int> numbers(2 * counts.size() + 2, 0);
  int *offset = numbers.data(), *tile_start = offset + counts.size() + 1;
  lay_out_tiles(counts.data(), experts_, tile_tokens, offset, tile_start);
  tokens_ = offset[counts.size()];
  tiles_ = tile_start[counts.size()];
  data_ = DeviceBuffer(static_cast<std::int64_t>(numbers.size() * sizeof(int)));
  MOESIM_CUDA(cudaMemcpy(data_.at(), numbers.data(), numbers.size() * sizeof(int), cudaMemcpyHostToDevice));
}

Groups TokenGroups::groups() const {
  const int* numbers = data_.at<int>();
  return {numbers, numbers + experts_ + 1, experts_, tiles_};
}

void launch_gate_up(Format format, Choice choice, const Matrices& gate, const Matrices& up, const Groups& groups,
                    const std::uint16_t* x, std::uint16_t* middle, cudaStream_t stream) {
  const Ffn ffn = {&gate, &up, groups, x, middle, stream};
  if (choice.kernel == Kernel::kTiled) launch_tiled(format, ffn);
  else launch_few(format, choice, ffn);
}

void launch_down(Format format, Choice choice, const Matrices& down, const Groups& groups, const std::uint16_t* middle,
                 std::uint16_t* y, cudaStream_t stream) {
  const Ffn ffn = {&down, nullptr, groups, middle, y, stream};
  if (choice.kernel == Kernel::kTiled) launch_tiled(format, ffn);
  else launch_few(format, choice, ffn);
}

void launch_unpack(Format format, const Matrices& matrix, std::uint16_t* out, cudaStream_t stream) {
  if (format == Format::kBf16) unpack<Format::kBf16><<<2048, 256, 0, stream>>>(matrix, out);
  else if (format == Format::kFp8) unpack<Format::kFp8><<<2048, 256, 0, stream>>>(matrix, out);
  else unpack<Format::kInt4><<<2048, 256, 0, stream>>>(matrix, out);
  MOESIM_LAUNCHED();
}

double ffn_error(const Experts& experts, std::int64_t expert, std::int64_t token, const std::uint16_t* x,
                 const std::uint16_t* y) {
  MOESIM_CUDA(cudaDeviceSynchronize());
  const auto in = row_on_host(x, token, experts.hidden()), out = row_on_host(y, token, experts.hidden());
  std::vector<double> middle;
  {
    const HostMatrix gate(experts.format(), experts.matrices(0), expert), up(experts.format(), experts.matrices(1), expert);
    for (std::int64_t row = 0; row < gate.rows(); ++row) {
      const double g = gate.dot(row, in);
      middle.push_back(g / (1 + std::exp(-g)) * up.dot(row, in));
    }
  }
  const HostMatrix down(experts.format(), experts.matrices(2), expert);
  double difference = 0, reference = 0;
  for (std::int64_t row = 0; row < down.rows(); row += 61) {
    const double expected = down.dot(row, middle), found = out[static_cast<std::size_t>(row)];
    difference += (found - expected) * (found - expected);
    reference += expected * expected;
  }
  const double error = std::sqrt(difference / std::max(reference, 1e-300));
  return std::isfinite(error) ? error : 1e9;
}

}  // namespace moesim
