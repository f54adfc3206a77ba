// Random data: fresh for each process, never zeros (zeros draw less power and run faster).
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats.h"

namespace moesim {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 0x1234567ull) {}

  // splitmix64.
  std::uint64_t next() { return mixed(state_ += 0x9E3779B97F4A7C15ull); }
  // Uniform in [-1, 1).
  float uniform() { return static_cast<float>(static_cast<std::int64_t>(next()) >> 11) * 0x1p-52f; }

  void fill(void* out, std::size_t bytes) {
    auto* words = static_cast<std::uint64_t*>(out);
    for (std::size_t i = 0; i < bytes / 8; ++i) words[i] = next();
    auto* rest = static_cast<unsigned char*>(out) + bytes / 8 * 8;
    for (std::size_t i = 0; i < bytes % 8; ++i) rest[i] = static_cast<unsigned char>(next());
  }
  void fill_bf16(std::uint16_t* out, std::size_t count, float scale) {
    for (std::size_t i = 0; i < count; ++i) out[i] = bf16_from_float(uniform() * scale);
  }

 private:
  std::uint64_t state_;
};

// The sum of all 8-byte words, each mixed with its place, so that moved or swapped data is noticed.
inline std::uint64_t checksum(const void* data, std::size_t bytes) {
  const auto* words = static_cast<const std::uint64_t*>(data);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < bytes / 8; ++i) sum += place_mixed(words[i], i);
  return sum;
}

}  // namespace moesim
