// `hbm`: GPU memory by working set. read, write, copy: the same set over and over (small ones stay in the L2); blocks:
// experts at random places of most of the memory; again: an expert that was touched just before.
//
// case: op=read|write|copy|blocks|again bytes=N.
#include "hbm.cuh"

#include "benches.cuh"

namespace moesim {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) read_all(const uint4* data, std::int64_t count, std::uint32_t* totals) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  std::uint32_t sum = 0;
#pragma unroll 8
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x; i < count; i += stride) {
    const uint4 value = data[i];
    sum += value.x + value.y + value.z + value.w;
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
  if (threadIdx.x % 32 == 0) atomicAdd(totals, sum);
}

__global__ void __launch_bounds__(kThreads) write_all(uint4* data, std::int64_t count, std::uint32_t value) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x; i < count; i += stride)
    data[i] = {value, value + 1, value + 2, value + 3};
}

__global__ void __launch_bounds__(kThreads) copy_all(uint4* to, const uint4* from, std::int64_t count) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
#pragma unroll 8
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x; i < count; i += stride)
    to[i] = from[i];
}

unsigned blocks_for(std::int64_t bytes) {
  return static_cast<unsigned>(std::clamp<std::int64_t>(bytes / 16 / kThreads, 1, kStreamBlocks));
}

std::uint32_t sum_on_host(const void* device, std::int64_t bytes) {
  std::vector<std::uint32_t> words(static_cast<std::size_t>(bytes / 4));
  MOESIM_CUDA(cudaMemcpy(words.data(), device, bytes, cudaMemcpyDeviceToHost));
  std::uint32_t sum = 0;
  for (const auto word : words) sum += word;
  return sum;
}

class Memory {
 public:
  Memory(const Options& options, std::int64_t bytes)
      : random_(options.seed), data_(bytes), thrash_(4 * l2_bytes()), totals_(4) {
    fill_random(data_.at(), bytes, options.seed);
    MOESIM_CUDA(cudaDeviceSynchronize());
  }

  Row measure(const Case& the_case, const Options& options) {
    const auto op = the_case.text("op");
    const std::int64_t bytes = the_case.number("bytes") / 16 * 16;
    if ((op == "copy" ? 2 * bytes : bytes) > data_.bytes()) throw Skip("not enough GPU memory");
    Row row;
    row.impl = "own";
    row.bytes = static_cast<double>(op == "copy" ? 2 * bytes : bytes);
    if (op == "again") gather(row, options, [&] { return again(bytes); });
    else gather_batches(row, options, 1, [&](std::int64_t batch) {
      return gated(gate_, stream_, [&] {
        for (std::int64_t i = 0; i < batch; ++i) run(op, bytes);
      });
    });
    row.checked = right(op, std::min<std::int64_t>(bytes, 64 << 20));
    if (!row.checked) row.flags.push_back("wrong");
    if (op == "write") fill_random(data_.at(), bytes, options.seed), MOESIM_CUDA(cudaDeviceSynchronize());
    return row;
  }

 private:
  void run(const std::string& op, std::int64_t bytes) {
    if (op == "write") launch_write(data_.at(), bytes, 7, stream_);
    else if (op == "copy") launch_copy(data_.at(bytes), data_.at(), bytes, stream_);
    else launch_read(data_.at(op == "blocks" ? place(bytes) : 0), bytes, totals_.at<std::uint32_t>(), stream_);
  }
  std::int64_t place(std::int64_t bytes) {
    return static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>((data_.bytes() - bytes) / 256 + 1)) * 256;
  }
  // Other data through the L2, the expert once, and the timed second time.
  Timed again(std::int64_t bytes) {
    const std::int64_t at = place(bytes);
    return gated(
        gate_, stream_,
        [&] {
          launch_read(thrash_.at(), thrash_.bytes(), totals_.at<std::uint32_t>(), stream_);
          launch_read(data_.at(at), bytes, totals_.at<std::uint32_t>(), stream_);
        },
        [&] { launch_read(data_.at(at), bytes, totals_.at<std::uint32_t>(), stream_); });
  }
  bool right(const std::string& op, std::int64_t bytes) {
    if (op == "write") {
      launch_write(data_.at(), bytes, 7, stream_);
      stream_.wait();
      const auto each = static_cast<std::uint32_t>(bytes / 16);
      return sum_on_host(data_.at(), bytes) == each * (7 + 8 + 9 + 10);
    }
    if (op == "copy") {
      set_bytes(data_.at(bytes), 0xFF, bytes);
      launch_copy(data_.at(bytes), data_.at(), bytes, stream_);
      stream_.wait();
      return device_checksum(data_.at(bytes), bytes) == device_checksum(data_.at(), bytes);
    }
    set_bytes(totals_.at(), 0, 4);
    launch_read(data_.at(), bytes, totals_.at<std::uint32_t>(), stream_);
    stream_.wait();
    std::uint32_t sum = 0;
    MOESIM_CUDA(cudaMemcpy(&sum, totals_.at(), 4, cudaMemcpyDeviceToHost));
    return sum == sum_on_host(data_.at(), bytes);
  }

  Random random_;
  DeviceBuffer data_, thrash_, totals_;
  Stream stream_;
  Gate gate_;
};

}  // namespace

void launch_read(const void* data, std::int64_t bytes, std::uint32_t* totals, cudaStream_t stream) {
  read_all<<<blocks_for(bytes), kThreads, 0, stream>>>(static_cast<const uint4*>(data), bytes / 16, totals);
  MOESIM_LAUNCHED();
}
void launch_write(void* data, std::int64_t bytes, std::uint32_t value, cudaStream_t stream) {
  write_all<<<blocks_for(bytes), kThreads, 0, stream>>>(static_cast<uint4*>(data), bytes / 16, value);
  MOESIM_LAUNCHED();
}
void launch_copy(void* to, const void* from, std::int64_t bytes, cudaStream_t stream) {
  copy_all<<<blocks_for(bytes), kThreads, 0, stream>>>(static_cast<uint4*>(to), static_cast<const uint4*>(from), bytes / 16);
  MOESIM_LAUNCHED();
}

void run_hbm(const Cases& cases, const Options& options) {
  std::int64_t largest = 512 << 20;
  for (const auto& the_case : cases)
    largest = std::max(largest, the_case.number("bytes") * (the_case.is("op", "copy") ? 2 : 1));
  constexpr std::int64_t kLarge = 8ll << 30;
  const std::int64_t room = free_bytes() - 4 * l2_bytes() - kLarge / 8;
  if (room < 64 << 20) throw Skip("not enough GPU memory");
  Memory memory(options, std::min(std::max(largest, kLarge), room) / 256 * 256);
  for_each_case(cases, [&](const Case& the_case) { return memory.measure(the_case, options); });
}

}  // namespace moesim
