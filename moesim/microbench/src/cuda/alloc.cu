// `alloc`: a place for an expert. malloc: cudaMalloc and cudaFree; malloc_async: the stream-ordered pool; slot: a place
// that is there already, taken again once an event says that its last use is over.
//
// case: op=malloc|malloc_async|slot bytes=N. Host timer, from asking for the place until the stream has touched it.
#include "benches.cuh"

namespace moesim {
namespace {

class Places {
 public:
  explicit Places(std::int64_t bytes) : bytes_(bytes), slot_(bytes) {
    // Keep freed memory in the pool, as an engine would; else each free gives it back to the system.
    cudaMemPool_t pool = nullptr;
    MOESIM_CUDA(cudaDeviceGetDefaultMemPool(&pool, device_number()));
    std::uint64_t threshold = ~0ull;
    MOESIM_CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  }

  double once(const std::string& op) {
    const double start = now_us();
    void* place = nullptr;
    if (op == "malloc") {
      MOESIM_CUDA(cudaMalloc(&place, bytes_));
      touch(place);
      MOESIM_CUDA(cudaFree(place));
    } else if (op == "malloc_async") {
      MOESIM_CUDA(cudaMallocAsync(&place, bytes_, stream_));
      touch(place);
      MOESIM_CUDA(cudaFreeAsync(place, stream_));
    } else {
      MOESIM_CUDA(cudaStreamWaitEvent(stream_, last_use_));
      touch(slot_.at());
      last_use_.record(stream_);
    }
    return now_us() - start;
  }

  // Whether the last touch of the slot is there.
  bool right() const {
    set_bytes(slot_.at(), 0, 64);
    touch(slot_.at());
    unsigned char byte = 0;
    MOESIM_CUDA(cudaMemcpy(&byte, slot_.at(), 1, cudaMemcpyDeviceToHost));
    return byte == 0x5A;
  }

 private:
  void touch(void* place) const {
    MOESIM_CUDA(cudaMemsetAsync(place, 0x5A, 64, stream_));
    stream_.wait();
  }

  std::int64_t bytes_;
  DeviceBuffer slot_;
  Stream stream_;
  Event last_use_{false};
};

}  // namespace

void run_alloc(const Cases& cases, const Options& options) {
  for_each_case(cases, [&](const Case& the_case) {
    Places places(the_case.number("bytes"));
    Row row;
    row.impl = the_case.text("op");
    row.bytes = static_cast<double>(the_case.number("bytes"));
    gather(row, options, [&] { return timed_with_waits([&] { return places.once(row.impl); }); });
    row.checked = places.right();
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  });
}

}  // namespace moesim
