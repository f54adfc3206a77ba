#include "device.cuh"

namespace moesim {
namespace {

constexpr long long kMostCycles = 2'000'000'000;  // about a second

__global__ void hold(volatile int* words) {
  const long long start = clock64();
  while (words[0] == 0)
    if (clock64() - start > kMostCycles) {
      words[1] = 1;
      return;
    }
}

__global__ void fill_words(std::uint64_t* words, std::int64_t count, std::uint64_t seed) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < count; i += stride)
    words[i] = mixed(seed + static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15ull);
}

__global__ void fill_bf16_values(std::uint16_t* values, std::int64_t count, float scale, std::uint64_t seed) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < count; i += stride) {
    const std::uint64_t word = mixed(seed + static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15ull);
    values[i] = bf16_from_float(static_cast<float>(static_cast<std::int32_t>(word >> 32)) * 0x1p-31f * scale);
  }
}

__global__ void sum_words(const std::uint64_t* words, std::int64_t count, unsigned long long* total) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  unsigned long long sum = 0;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < count; i += stride)
    sum += place_mixed(words[i], static_cast<std::uint64_t>(i));
  atomicAdd(total, sum);
}

constexpr int kBlocks = 1024, kThreads = 256;

}  // namespace

Gate::Gate() : words_(2 * sizeof(int), cudaHostAllocMapped) {}
Gate::~Gate() { open(); }

void Gate::close(cudaStream_t stream) {
  auto* words = words_.at<volatile int>();
  words[0] = words[1] = 0;
  __sync_synchronize();
  void* on_device = nullptr;
  MOESIM_CUDA(cudaHostGetDevicePointer(&on_device, words_.at(), 0));
  hold<<<1, 1, 0, stream>>>(static_cast<volatile int*>(on_device));
  MOESIM_LAUNCHED();
}

void Gate::open() {
  *words_.at<volatile int>() = 1;
  __sync_synchronize();
}

bool Gate::expired() const { return words_.at<volatile int>()[1] != 0; }

int device_number() {
  int device = 0;
  MOESIM_CUDA(cudaGetDevice(&device));
  return device;
}

std::int64_t l2_bytes() {
  int bytes = 0;
  MOESIM_CUDA(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device_number()));
  return bytes > 0 ? bytes : 32 << 20;
}

std::int64_t free_bytes() {
  std::size_t free = 0, total = 0;
  MOESIM_CUDA(cudaMemGetInfo(&free, &total));
  return static_cast<std::int64_t>(free);
}

void fill_random(void* data, std::int64_t bytes, std::uint64_t seed, cudaStream_t stream) {
  fill_words<<<kBlocks, kThreads, 0, stream>>>(static_cast<std::uint64_t*>(data), bytes / 8, mixed(seed + 1));
  MOESIM_LAUNCHED();
}

void fill_bf16(void* data, std::int64_t count, float scale, std::uint64_t seed, cudaStream_t stream) {
  fill_bf16_values<<<kBlocks, kThreads, 0, stream>>>(static_cast<std::uint16_t*>(data), count, scale, mixed(seed + 1));
  MOESIM_LAUNCHED();
}

void set_bytes(void* data, int value, std::int64_t bytes) {
  MOESIM_CUDA(cudaMemset(data, value, static_cast<std::size_t>(bytes)));
  MOESIM_CUDA(cudaDeviceSynchronize());
}

std::uint64_t device_checksum(const void* data, std::int64_t bytes) {
  const DeviceBuffer total(8);
  MOESIM_CUDA(cudaMemset(total.at(), 0, 8));
  sum_words<<<kBlocks, kThreads>>>(static_cast<const std::uint64_t*>(data), bytes / 8, total.at<unsigned long long>());
  MOESIM_LAUNCHED();
  std::uint64_t sum = 0;
  MOESIM_CUDA(cudaMemcpy(&sum, total.at(), 8, cudaMemcpyDeviceToHost));
  return sum;
}

}  // namespace moesim
