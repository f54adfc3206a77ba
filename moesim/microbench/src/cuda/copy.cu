// `copy`: pinned host memory to the GPU and back, by bytes and segments. `copy_host_kind`: other kinds of host memory,
// and pinning. `copy_bidir`: one direction while the other runs, and one copy over several streams.
#include <sys/mman.h>

#include <cstdlib>

#include "benches.cuh"
#include "index_maps.h"

namespace moesim {
namespace {

constexpr std::int64_t kArena = 256ll << 20;

bool to_device(const Case& the_case) { return the_case.is("dir", "h2d"); }

// Pinned host memory of which each operation takes the next piece, so that small ones don't stay in the CPU's cache.
class Arena {
 public:
  Arena(std::int64_t bytes, std::uint64_t seed) : bytes_(bytes), data_(std::max(kArena, bytes)) {
    Random(seed).fill(data_.at(), static_cast<std::size_t>(data_.bytes()));
  }
  unsigned char* next() {
    at_ = at_ + 2 * bytes_ > data_.bytes() ? 0 : at_ + bytes_;
    return data_.at(at_);
  }
  void take(std::int64_t bytes) { bytes_ = bytes, at_ = 0; }

 private:
  std::int64_t bytes_, at_ = 0;
  PinnedBuffer data_;
};

DeviceBuffer random_buffer(std::int64_t bytes, std::uint64_t seed) {
  DeviceBuffer buffer(bytes);
  fill_random(buffer.at(), bytes, seed + 9);
  MOESIM_CUDA(cudaDeviceSynchronize());
  return buffer;
}

void copy_parts(unsigned char* device, unsigned char* host, std::int64_t bytes, std::int64_t parts, bool up,
                cudaStream_t stream) {
  for (std::int64_t i = 0; i < parts; ++i) {
    const std::int64_t begin = part_begin(bytes, parts, i), size = part_begin(bytes, parts, i + 1) - begin;
    if (up) MOESIM_CUDA(cudaMemcpyAsync(device + begin, host + begin, size, cudaMemcpyHostToDevice, stream));
    else MOESIM_CUDA(cudaMemcpyAsync(host + begin, device + begin, size, cudaMemcpyDeviceToHost, stream));
  }
}

// One copy from poisoned memory into the target, its checksum against the source's.
bool copies_right(unsigned char* device, unsigned char* host, std::int64_t bytes, std::int64_t parts, bool up) {
  const Stream stream;
  const std::int64_t whole = bytes / 8 * 8;
  if (up) set_bytes(device, 0xFF, bytes);
  else fill_random(device, bytes, 77), memset(host, 0xFF, static_cast<std::size_t>(bytes));
  MOESIM_CUDA(cudaDeviceSynchronize());
  copy_parts(device, host, bytes, parts, up, stream);
  stream.wait();
  return device_checksum(device, whole) == checksum(host, static_cast<std::size_t>(whole));
}

Row measure_copy(const Case& the_case, const Options& options, Arena& arena) {
  const std::int64_t bytes = the_case.number("bytes"), segments = the_case.number("segments");
  const bool up = to_device(the_case);
  const DeviceBuffer device = random_buffer(bytes, options.seed);
  const Stream stream;
  Gate gate;
  arena.take(bytes);
  Row row;
  row.impl = "ce";
  row.bytes = static_cast<double>(bytes);
  gather_batches(row, options, static_cast<int>(segments), [&](std::int64_t batch) {
    return gated(gate, stream, [&] {
      for (std::int64_t i = 0; i < batch; ++i) copy_parts(device.at(), arena.next(), bytes, segments, up, stream);
    });
  });
  row.checked = copies_right(device.at(), arena.next(), bytes, segments, up);
  return row;
}

// Host memory of one kind; pageable memory is what malloc gives.
class HostMemory {
 public:
  HostMemory(const std::string& kind, std::int64_t bytes) : bytes_((bytes + (2 << 20) - 1) >> 21 << 21) {
    if (kind == "write_combined") {
      pinned_ = PinnedBuffer(bytes_, cudaHostAllocWriteCombined);
      return;
    }
    mapped_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped_ == MAP_FAILED) throw Skip("not enough host memory");
    madvise(mapped_, bytes_, kind == "registered_huge" ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(mapped_, 1, bytes_);
    if (kind == "pageable") return;
    const cudaError_t status = cudaHostRegister(mapped_, bytes_, cudaHostRegisterDefault);
    if (status == cudaSuccess) registered_ = true;
    else cudaGetLastError(), release(), throw Skip(std::string("cudaHostRegister: ") + cudaGetErrorString(status));
  }
  ~HostMemory() { release(); }
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  unsigned char* data() const { return mapped_ ? static_cast<unsigned char*>(mapped_) : pinned_.at(); }

 private:
  void release() {
    if (registered_) cudaHostUnregister(mapped_);
    if (mapped_ != nullptr) munmap(mapped_, bytes_);
    mapped_ = nullptr;
  }
  std::size_t bytes_;
  PinnedBuffer pinned_;
  void* mapped_ = nullptr;
  bool registered_ = false;
};

// Pageable copies must not stand behind a gate: the runtime waits for the stream before it stages them. Host timer.
Row measure_kind(const Case& the_case, const Options& options) {
  const std::int64_t bytes = the_case.number("bytes");
  const HostMemory host(the_case.text("kind"), bytes);
  const DeviceBuffer device(bytes);
  const Stream stream;
  Random(options.seed).fill(host.data(), static_cast<std::size_t>(bytes));
  Row row;
  row.impl = "ce";
  row.bytes = static_cast<double>(bytes);
  gather(row, options, [&] {
    return timed_with_waits([&] {
      const double start = now_us();
      MOESIM_CUDA(cudaMemcpyAsync(device.at(), host.data(), bytes, cudaMemcpyHostToDevice, stream));
      stream.wait();
      return now_us() - start;
    });
  });
  // Reading write-combined memory is slow for the host: there, a part will do.
  const std::int64_t compared = the_case.is("kind", "write_combined") ? std::min<std::int64_t>(bytes, 16 << 20) : bytes;
  row.checked = copies_right(device.at(), host.data(), compared, 1, true);
  return row;
}

Row measure_pinning(const Case& the_case, const Options& options) {
  const std::int64_t bytes = the_case.number("bytes");
  const bool allocates = the_case.is("kind", "alloc");
  const HostMemory memory("pageable", bytes);
  const DeviceBuffer device(std::min<std::int64_t>(bytes, 1 << 20));
  Row row;
  row.impl = allocates ? "cudaHostAlloc" : "cudaHostRegister";
  row.bytes = static_cast<double>(bytes);
  Options fewer = options;
  fewer.samples = std::min(options.samples, 7);
  gather(row, fewer, [&] {
    void* data = memory.data();
    const Timed timed = timed_with_waits([&] {
      const double start = now_us();
      if (allocates) MOESIM_CUDA(cudaHostAlloc(&data, bytes, cudaHostAllocDefault));
      else MOESIM_CUDA(cudaHostRegister(data, bytes, cudaHostRegisterDefault));
      return now_us() - start;
    });
    row.checked = copies_right(device.at(), static_cast<unsigned char*>(data), std::min(bytes, device.bytes()), 1, true);
    if (allocates) MOESIM_CUDA(cudaFreeHost(data));
    else MOESIM_CUDA(cudaHostUnregister(data));
    return timed;
  });
  return row;
}

// The other direction starts before the measured copies and ends after them.
Row measure_both(const Case& the_case, const Options& options, Arena& arena) {
  constexpr int kTimed = 4, kOther = 12;
  const std::int64_t bytes = the_case.number("bytes");
  const bool up = to_device(the_case);
  const DeviceBuffer device = random_buffer(bytes, options.seed), other_device = random_buffer(bytes, options.seed + 1);
  const PinnedBuffer other_host(bytes);
  Random(options.seed).fill(other_host.at(), static_cast<std::size_t>(bytes));
  const Stream stream, other;
  const Event opened(false), other_end(false);
  Gate gate;
  arena.take(bytes);
  bool covered = true;
  Row row;
  row.impl = "ce";
  row.bytes = static_cast<double>(bytes);
  row.batch = kTimed;
  gather(row, options, [&] {
    const Timed timed = gated(
        gate, stream,
        [&] {
          opened.record(stream);
          MOESIM_CUDA(cudaStreamWaitEvent(other, opened));
          for (int i = 0; i < kOther; ++i) copy_parts(other_device.at(), other_host.at(), bytes, 1, !up, other);
          other_end.record(other);
          copy_parts(device.at(), arena.next(), bytes, 1, up, stream);
        },
        [&] {
          for (int i = 0; i < kTimed; ++i) copy_parts(device.at(), arena.next(), bytes, 1, up, stream);
        });
    covered = covered && !other_end.done();
    other.wait();
    return timed;
  });
  row.checked = copies_right(device.at(), arena.next(), bytes, 1, up);
  if (!covered) row.flags.push_back("not_covered");
  return row;
}

Row measure_split(const Case& the_case, const Options& options, Arena& arena) {
  const std::int64_t bytes = the_case.number("bytes"), count = the_case.number("streams");
  const DeviceBuffer device(bytes);
  const Stream stream;
  const Event opened(false);
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<Event> ends;
  for (std::int64_t i = 0; i < count; ++i) streams.push_back(std::make_unique<Stream>()), ends.emplace_back(false);
  Gate gate;
  arena.take(bytes);
  Row row;
  row.impl = "ce";
  row.bytes = static_cast<double>(bytes);
  gather(row, options, [&] {
    auto* host = arena.next();
    return gated(gate, stream, [&] {
      opened.record(stream);
      for (std::int64_t i = 0; i < count; ++i) {
        const auto index = static_cast<std::size_t>(i);
        const std::int64_t begin = part_begin(bytes, count, i), size = part_begin(bytes, count, i + 1) - begin;
        MOESIM_CUDA(cudaStreamWaitEvent(*streams[index], opened));
        copy_parts(device.at(begin), host + begin, size, 1, true, *streams[index]);
        ends[index].record(*streams[index]);
        MOESIM_CUDA(cudaStreamWaitEvent(stream, ends[index]));
      }
    });
  });
  row.checked = copies_right(device.at(), arena.next(), bytes, 1, true);
  return row;
}

std::int64_t largest(const std::vector<Case>& cases) {
  std::int64_t bytes = 0;
  for (const auto& the_case : cases) bytes = std::max(bytes, the_case.number("bytes"));
  return bytes;
}

Row marked(Row row) {
  if (!row.checked) row.flags.push_back("wrong");
  return row;
}

}  // namespace

void run_copy(const std::vector<Case>& cases, const Options& options) {
  Arena arena(largest(cases), options.seed);
  for_each_case(cases, [&](const Case& the_case) { return marked(measure_copy(the_case, options, arena)); });
}

void run_copy_host_kind(const std::vector<Case>& cases, const Options& options) {
  for_each_case(cases, [&](const Case& the_case) {
    return marked(the_case.is("op", "pin") ? measure_pinning(the_case, options) : measure_kind(the_case, options));
  });
}

void run_copy_bidir(const std::vector<Case>& cases, const Options& options) {
  Arena arena(largest(cases), options.seed);
  for_each_case(cases, [&](const Case& the_case) {
    const bool both = the_case.is("mode", "both");
    return marked(both ? measure_both(the_case, options, arena) : measure_split(the_case, options, arena));
  });
}

}  // namespace moesim
