// What every benchmark of the CUDA program needs: checked calls, memory, streams, events, and timing behind a gate.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../shared/measure.h"
#include "../shared/random_data.h"

namespace moesim {

// Throws what a CUDA call complains of; too little memory is no failure, but a case that can't be run here.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  const std::string message = std::string(what) + ": " + cudaGetErrorString(status);
  if (status == cudaErrorMemoryAllocation) throw Skip(message);
  throw std::runtime_error(message);
}
#define MOESIM_CUDA(call) ::moesim::check((call), #call)
#define MOESIM_LAUNCHED() ::moesim::check(cudaGetLastError(), "kernel launch")

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::int64_t bytes) : bytes_(bytes) { MOESIM_CUDA(cudaMalloc(&data_, bytes > 0 ? bytes : 1)); }
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceBuffer() { cudaFree(data_); }
  std::int64_t bytes() const { return bytes_; }
  template <typename T = unsigned char>
  T* at(std::int64_t byte = 0) const {
    return reinterpret_cast<T*>(static_cast<unsigned char*>(data_) + byte);
  }

 private:
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

// Host memory that the GPU can reach, pinned by cudaHostAlloc.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::int64_t bytes, unsigned flags = cudaHostAllocDefault) : bytes_(bytes) {
    MOESIM_CUDA(cudaHostAlloc(&data_, bytes > 0 ? bytes : 1, flags));
  }
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PinnedBuffer() {
    if (data_ != nullptr) cudaFreeHost(data_);
  }
  std::int64_t bytes() const { return bytes_; }
  template <typename T = unsigned char>
  T* at(std::int64_t byte = 0) const {
    return reinterpret_cast<T*>(static_cast<unsigned char*>(data_) + byte);
  }

 private:
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

class Stream {
 public:
  // `urgent` has the highest priority that there is.
  explicit Stream(bool urgent = false) {
    int least = 0, greatest = 0;
    MOESIM_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    MOESIM_CUDA(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, urgent ? greatest : least));
  }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void wait() const { MOESIM_CUDA(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(bool timing = true) {
    MOESIM_CUDA(cudaEventCreateWithFlags(&event_, timing ? cudaEventDefault : cudaEventDisableTiming));
  }
  Event(Event&& other) noexcept { std::swap(event_, other.event_); }
  ~Event() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  operator cudaEvent_t() const { return event_; }
  void record(cudaStream_t stream) const { MOESIM_CUDA(cudaEventRecord(event_, stream)); }
  bool done() const {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) {
      cudaGetLastError();  // it counts as the last error, which the next launch would be blamed for
      return false;
    }
    check(status, "cudaEventQuery");
    return true;
  }
  // Waits with the CPU: a blocking wait would add a wake-up of the thread to what is measured.
  void spin() const {
    while (!done()) pause_cpu();
  }

 private:
  cudaEvent_t event_ = nullptr;
};

inline double microseconds(const Event& from, const Event& to) {
  float milliseconds = 0;
  MOESIM_CUDA(cudaEventElapsedTime(&milliseconds, from, to));
  return static_cast<double>(milliseconds) * 1e3;
}

// Holds a stream until the host has queued everything, so that the GPU never waits for the host between operations.
//
// The kernel behind it spins on a word in host memory, and gives up after `kMostCycles` (about a second): a host that is
// put off its CPU must not hang the device. Then `expired` is true, and the sample says nothing. Never queue behind a
// closed gate what makes the host wait: pageable copies, allocations, more than kMostQueued operations.
class Gate {
 public:
  static constexpr int kMostQueued = 400;
  Gate();
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  void close(cudaStream_t stream);
  void open();
  bool expired() const;

 private:
  PinnedBuffer words_;  // [0]: open, [1]: expired
};

// Queues work on a stream behind a gate, and times it: from the gate's opening to the work's end.
//
// `before` runs ahead of the first event (other streams may be told to wait for the gate there).
template <typename Before, typename Work>
Timed gated(Gate& gate, cudaStream_t stream, Before before, Work work) {
  static const Event start, end;
  gate.close(stream);
  try {
    before();
    start.record(stream);
    work();
    end.record(stream);
  } catch (...) {
    gate.open();
    cudaDeviceSynchronize();
    throw;
  }
  gate.open();
  MOESIM_CUDA(cudaEventSynchronize(end));
  return {microseconds(start, end), gate.expired() ? 0.0 : 1.0};
}

template <typename Work>
Timed gated(Gate& gate, cudaStream_t stream, Work work) {
  return gated(gate, stream, [] {}, work);
}

// How many operations make one sample: so that it lasts 40 us or more, and fits behind the gate. `once` is run twice.
template <typename Once>
std::int64_t batch_for(Once once, int queued_each) {
  once(1);
  const double us = once(1).us;
  const auto wanted = static_cast<std::int64_t>(40.0 / (us > 0.1 ? us : 0.1)) + 1;
  const std::int64_t most = Gate::kMostQueued / (queued_each > 0 ? queued_each : 1);
  return us >= 20 ? 1 : std::max<std::int64_t>(1, std::min(wanted, most));
}

// Samples of `once(batch)`, which queues so many operations: 20 of them, or ten times as many of what is short.
template <typename Once>
void gather_batches(Row& row, const Options& options, int queued_each, Once once) {
  row.batch = batch_for(once, queued_each);
  const double us = once(row.batch).us / static_cast<double>(row.batch);
  Options wanted = options;
  if (us < 50) wanted.samples = options.samples * 10;
  gather(row, wanted, [&] { return once(row.batch); });
}

// What `work` launches on a stream, as a graph, ready on the device. Not to be made behind a gate.
class Graph {
 public:
  template <typename Work>
  Graph(cudaStream_t stream, Work work) {
    cudaGraph_t graph = nullptr;
    MOESIM_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    MOESIM_CUDA(cudaStreamEndCapture(stream, &graph));
    const cudaError_t status = cudaGraphInstantiate(&exec_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
    MOESIM_CUDA(cudaGraphUpload(exec_, stream));
    MOESIM_CUDA(cudaStreamSynchronize(stream));
  }
  ~Graph() { cudaGraphExecDestroy(exec_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(cudaStream_t stream) const { MOESIM_CUDA(cudaGraphLaunch(exec_, stream)); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

int device_number();
std::int64_t l2_bytes();
std::int64_t free_bytes();

// Random words, the same for the same seed.
void fill_random(void* data, std::int64_t bytes, std::uint64_t seed, cudaStream_t stream = nullptr);
// Random bf16 in [-scale, scale).
void fill_bf16(void* data, std::int64_t count, float scale, std::uint64_t seed, cudaStream_t stream = nullptr);
// Every byte, done when it returns: streams of ours don't wait for the one that cudaMemset runs on.
void set_bytes(void* data, int value, std::int64_t bytes);
// As `checksum` on the host. Waits.
std::uint64_t device_checksum(const void* data, std::int64_t bytes);

}  // namespace moesim
