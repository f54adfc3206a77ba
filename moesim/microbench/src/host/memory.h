// Memory for benchmarks: page-aligned, touched, filled with random data, in huge pages where the kernel gives them.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

#include "../shared/random_data.h"
#include "../shared/row.h"

namespace moesim {

constexpr std::int64_t kHugePage = 2 << 20;

class Buffer {
 public:
  Buffer() = default;
  // Starts at a huge page's boundary and fills whole ones, so that its end is not left to small pages.
  Buffer(std::int64_t bytes, Random& random) : bytes_(bytes) {
    mapped_bytes_ = (bytes + 2 * kHugePage - 1) / kHugePage * kHugePage;
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped_ == MAP_FAILED) {
      mapped_ = nullptr;
      throw Skip("not enough memory for " + std::to_string(bytes) + " bytes");
    }
    const auto start = reinterpret_cast<std::uintptr_t>(mapped_);
    data_ = reinterpret_cast<unsigned char*>((start + kHugePage - 1) / kHugePage * kHugePage);
    madvise(mapped_, mapped_bytes_, MADV_HUGEPAGE);
    random.fill(data_, static_cast<std::size_t>(bytes));
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(mapped_, other.mapped_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() {
    if (mapped_ != nullptr) munmap(mapped_, mapped_bytes_);
  }

  std::int64_t bytes() const { return bytes_; }
  template <typename T = unsigned char>
  T* at(std::int64_t byte = 0) const {
    return reinterpret_cast<T*>(data_ + byte);
  }

 private:
  void* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  unsigned char* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

// Bytes that can be had without swapping.
inline std::int64_t available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string name, rest;
  for (std::int64_t kib = 0; info >> name >> kib; std::getline(info, rest))
    if (name == "MemAvailable:") return kib * 1024;
  return 1ll << 30;
}

// Bytes of the largest cache of CPU 0.
inline std::int64_t last_level_cache() {
  std::int64_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
    std::int64_t size = 0;
    char unit = ' ';
    if (file >> size >> unit) largest = std::max(largest, unit == 'M' ? size << 20 : size << 10);
  }
  return largest > 0 ? largest : 32 << 20;
}

}  // namespace moesim
