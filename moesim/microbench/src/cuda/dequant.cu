// `dequant`: weights unpacked to bf16 in a pass of their own.
//
// case: format=int4|int8|fp8|mxfp4 bytes=N (of the bf16 result). int4: two a byte, a bf16 scale for 128; int8: a float
// for each row of 2048; fp8 (e4m3): the same; mxfp4: two e2m1 a byte, a power of two (e8m0) for 32.
#include "benches.cuh"
#include "fragments.cuh"

namespace moesim {
namespace {

constexpr std::int64_t kColumns = 2048;
constexpr int kThreads = 256;

enum class Packed { kInt4, kInt8, kFp8, kMxfp4 };

Packed packed_named(const std::string& name) {
  if (name == "int4") return Packed::kInt4;
  if (name == "int8") return Packed::kInt8;
  if (name == "fp8") return Packed::kFp8;
  if (name == "mxfp4") return Packed::kMxfp4;
  throw std::runtime_error("unknown format " + name);
}

// The value of weight `index`, the same on host and device.
MOESIM_BOTH float value_of(Packed format, const unsigned char* weights, const unsigned char* scales, std::int64_t index) {
  const std::int64_t row = index / kColumns;
  if (format == Packed::kInt8) {
    float scale;
    memcpy(&scale, scales + 4 * row, 4);
    return static_cast<float>(static_cast<std::int8_t>(weights[index])) * scale;
  }
  if (format == Packed::kFp8) {
    float scale;
    memcpy(&scale, scales + 4 * row, 4);
    return float_from_e4m3(weights[index]) * scale;
  }
  const std::uint32_t nibble = nibble_of(weights[index / 2], static_cast<int>(index % 2));
  if (format == Packed::kMxfp4) return float_from_e2m1(nibble) * float_from_e8m0(scales[index / kMxfp4Group]);
  std::uint16_t scale;
  memcpy(&scale, scales + 2 * (index / kInt4Group), 2);
  return static_cast<float>(int4_from_nibble(nibble)) * float_from_bf16(scale);
}

std::int64_t packed_bytes(Packed format, std::int64_t count) {
  return format == Packed::kInt4 || format == Packed::kMxfp4 ? count / 2 : count;
}

std::int64_t scales_bytes(Packed format, std::int64_t count) {
  if (format == Packed::kInt4) return 2 * count / kInt4Group;
  return format == Packed::kMxfp4 ? count / kMxfp4Group : 4 * count / kColumns;
}

// A thread unpacks 8 weights at a time: 4 or 8 bytes in, 16 out.
template <Packed format>
__global__ void __launch_bounds__(kThreads) unpack(const unsigned char* weights, const unsigned char* scales,
                                                  std::int64_t chunks, uint4* out) {
  constexpr bool kNibbles = format == Packed::kInt4 || format == Packed::kMxfp4;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
#pragma unroll 4
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x; i < chunks; i += stride) {
    std::uint32_t raw[2] = {0, 0};
    if constexpr (kNibbles) {
      raw[0] = __ldg(reinterpret_cast<const std::uint32_t*>(weights) + i);
    } else {
      const uint2 both = __ldg(reinterpret_cast<const uint2*>(weights) + i);
      raw[0] = both.x, raw[1] = both.y;
    }
    float scale;
    if constexpr (format == Packed::kInt4)
      scale = float_from_bf16(__ldg(reinterpret_cast<const std::uint16_t*>(scales) + i * 8 / kInt4Group));
    else if constexpr (format == Packed::kMxfp4)
      scale = float_from_e8m0(__ldg(scales + i * 8 / kMxfp4Group));
    else
      scale = __ldg(reinterpret_cast<const float*>(scales) + i * 8 / kColumns);
    float values[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if constexpr (format == Packed::kInt4) values[j] = static_cast<float>(int4_from_nibble(raw[0] >> (4 * j)));
      else if constexpr (format == Packed::kMxfp4) values[j] = float_from_e2m1(raw[0] >> (4 * j) & 15u);
      else if constexpr (format == Packed::kInt8)
        values[j] = static_cast<float>(static_cast<std::int8_t>(raw[j / 4] >> (8 * (j % 4)) & 255u));
      else values[j] = float_from_e4m3(static_cast<std::uint8_t>(raw[j / 4] >> (8 * (j % 4)) & 255u));
      values[j] *= scale;
    }
    out[i] = {bf16_pair(values[0], values[1]), bf16_pair(values[2], values[3]), bf16_pair(values[4], values[5]),
              bf16_pair(values[6], values[7])};
  }
}

void launch(Packed format, const unsigned char* weights, const unsigned char* scales, std::int64_t count, void* out,
            cudaStream_t stream) {
  const std::int64_t chunks = count / 8;
  const auto blocks = static_cast<unsigned>(std::clamp<std::int64_t>(chunks / kThreads, 1, 4096));
  auto* to = static_cast<uint4*>(out);
  if (format == Packed::kInt4) unpack<Packed::kInt4><<<blocks, kThreads, 0, stream>>>(weights, scales, chunks, to);
  else if (format == Packed::kInt8) unpack<Packed::kInt8><<<blocks, kThreads, 0, stream>>>(weights, scales, chunks, to);
  else if (format == Packed::kFp8) unpack<Packed::kFp8><<<blocks, kThreads, 0, stream>>>(weights, scales, chunks, to);
  else unpack<Packed::kMxfp4><<<blocks, kThreads, 0, stream>>>(weights, scales, chunks, to);
  MOESIM_LAUNCHED();
}

// Random weights and scales near one, on the host.
struct HostWeights {
  HostWeights(Packed format, std::int64_t count, std::uint64_t seed)
      : weights(static_cast<std::size_t>(packed_bytes(format, count))), scales(static_cast<std::size_t>(scales_bytes(format, count))) {
    Random random(seed);
    random.fill(weights.data(), weights.size());
    if (format == Packed::kFp8)
      for (auto& byte : weights)
        if ((byte & 0x7F) == 0x7F) byte ^= 1;
    for (std::size_t i = 0; i < scales.size(); ++i) {
      const float scale = 1 + 0.25f * random.uniform();
      if (format == Packed::kMxfp4) scales[i] = static_cast<unsigned char>(120 + random.next() % 8);
      else if (format == Packed::kInt4 && i % 2 == 0) set(i, bf16_from_float(scale));
      else if (format != Packed::kInt4 && i % 4 == 0) set(i, scale);
    }
  }
  std::vector<unsigned char> weights, scales;

 private:
  template <typename T>
  void set(std::size_t at, T value) {
    memcpy(scales.data() + at, &value, sizeof value);
  }
};

Row measure(const Case& the_case, const Options& options) {
  const Packed format = packed_named(the_case.text("format"));
  const std::int64_t count = the_case.number("bytes") / 2 / kColumns * kColumns;
  const HostWeights host(format, count, options.seed);
  const auto in_bytes = static_cast<std::int64_t>(host.weights.size());
  const std::int64_t pieces = std::max<std::int64_t>(2, 4 * l2_bytes() / in_bytes + 1);
  const std::int64_t step = (in_bytes + 255) / 256 * 256;
  const DeviceBuffer weights(step * pieces), scales(static_cast<std::int64_t>(host.scales.size())), out(2 * count);
  for (std::int64_t i = 0; i < pieces; ++i)
    MOESIM_CUDA(cudaMemcpy(weights.at(i * step), host.weights.data(), host.weights.size(), cudaMemcpyHostToDevice));
  MOESIM_CUDA(cudaMemcpy(scales.at(), host.scales.data(), host.scales.size(), cudaMemcpyHostToDevice));
  MOESIM_CUDA(cudaMemset(out.at(), 0xFF, out.bytes()));
  MOESIM_CUDA(cudaDeviceSynchronize());
  const Stream stream;
  Gate gate;
  std::int64_t at = 0;
  Row row;
  row.impl = "own";
  row.bytes = static_cast<double>(in_bytes + scales.bytes() + out.bytes());
  gather_batches(row, options, 1, [&](std::int64_t batch) {
    return gated(gate, stream, [&] {
      for (std::int64_t i = 0; i < batch; ++i) {
        at = (at + 1) % pieces;
        launch(format, weights.at(at * step), scales.at(), count, out.at(), stream);
      }
    });
  });
  std::vector<std::uint16_t> found(static_cast<std::size_t>(count));
  MOESIM_CUDA(cudaMemcpy(found.data(), out.at(), found.size() * 2, cudaMemcpyDeviceToHost));
  row.checked = true;
  for (std::int64_t i = 0; i < count; i += 1009)
    row.checked = row.checked && found[static_cast<std::size_t>(i)] ==
                                     bf16_from_float(value_of(format, host.weights.data(), host.scales.data(), i));
  if (!row.checked) row.flags.push_back("wrong");
  return row;
}

}  // namespace

void run_dequant(const Cases& cases, const Options& options) {
  for_each_case(cases, [&](const Case& the_case) { return measure(the_case, options); });
}

}  // namespace moesim
