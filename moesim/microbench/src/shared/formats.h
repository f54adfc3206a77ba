// Number formats and checksums, the same on host and device.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define MOESIM_BOTH __host__ __device__ __forceinline__
#else
#define MOESIM_BOTH inline
#endif

namespace moesim {

MOESIM_BOTH std::uint64_t mixed(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// A word mixed with its place: what checksums add up.
MOESIM_BOTH std::uint64_t place_mixed(std::uint64_t word, std::uint64_t place) {
  return mixed(word ^ (place * 0x9E3779B97F4A7C15ull));
}

MOESIM_BOTH std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

MOESIM_BOTH float float_of(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

MOESIM_BOTH float float_from_bf16(std::uint16_t bits) { return float_of(static_cast<std::uint32_t>(bits) << 16); }

// Round to nearest, ties to even. NaN stays NaN.
MOESIM_BOTH std::uint16_t bf16_from_float(float value) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

// e4m3 (OCP fp8): 1 sign, 4 exponent (bias 7), 3 mantissa bits; 0x7F and 0xFF are NaN; no infinity.
MOESIM_BOTH float float_from_e4m3(std::uint8_t byte) {
  const std::uint32_t sign = static_cast<std::uint32_t>(byte & 0x80u) << 24;
  const std::uint32_t exponent = byte >> 3 & 0xFu, mantissa = byte & 7u;
  if ((byte & 0x7Fu) == 0x7Fu) return float_of(0x7FC00000u);
  if (exponent == 0) return float_of(sign | bits_of(static_cast<float>(mantissa) * 0x1p-9f));
  return float_of(sign | (exponent + 120u) << 23 | mantissa << 20);
}

// e2m1 (fp4): 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
MOESIM_BOTH float float_from_e2m1(std::uint32_t nibble) {
  const std::uint32_t exponent = nibble >> 1 & 3u, mantissa = nibble & 1u;
  const float size = exponent == 0 ? 0.5f * static_cast<float>(mantissa)
                                   : float_of((exponent + 126u) << 23 | mantissa << 22);
  return nibble & 8u ? -size : size;
}

// e8m0: the scale of an mxfp4 block, a power of two; 255 is NaN.
MOESIM_BOTH float float_from_e8m0(std::uint8_t byte) {
  if (byte == 255) return float_of(0x7FC00000u);
  return byte == 0 ? 0x1p-127f : float_of(static_cast<std::uint32_t>(byte) << 23);
}

// int4 in groups: weight i of a row is nibble i % 2 (low first) of byte i / 2; value (nibble - 8) * scale[i / group].
constexpr int kInt4Group = 128;
constexpr int kMxfp4Group = 32;
MOESIM_BOTH int int4_from_nibble(std::uint32_t nibble) { return static_cast<int>(nibble & 15u) - 8; }
MOESIM_BOTH std::uint32_t nibble_of(std::uint8_t byte, int index) { return byte >> (index % 2 * 4) & 15u; }

}  // namespace moesim
