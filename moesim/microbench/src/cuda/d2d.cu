// `d2d`: copies inside one GPU (ce: copy engine, sm: a kernel) and between GPUs (peer, peer_latency, all_to_all), which
// need two.
//
// case: op=ce|sm|peer|peer_latency|all_to_all bytes=N. all_to_all sends bytes / GPUs from each GPU to each other one.
#include "benches.cuh"
#include "hbm.cuh"

namespace moesim {
namespace {

int device_count() {
  int count = 0;
  MOESIM_CUDA(cudaGetDeviceCount(&count));
  return count;
}

// Makes a device the current one for a while.
class On {
 public:
  explicit On(int device) : before_(device_number()) { MOESIM_CUDA(cudaSetDevice(device)); }
  ~On() { cudaSetDevice(before_); }
  On(const On&) = delete;
  On& operator=(const On&) = delete;

 private:
  int before_;
};

void enable_peers(int count) {
  for (int from = 0; from < count; ++from)
    for (int to = 0; to < count; ++to) {
      int can = 0;
      if (from == to) continue;
      MOESIM_CUDA(cudaDeviceCanAccessPeer(&can, from, to));
      if (can == 0) throw Skip("the GPUs can't reach each other's memory");
      const On on(from);
      const cudaError_t status = cudaDeviceEnablePeerAccess(to, 0);
      if (status == cudaErrorPeerAccessAlreadyEnabled) cudaGetLastError();
      else check(status, "cudaDeviceEnablePeerAccess");
    }
}

Row measure_inside(const Case& the_case, const Options& options) {
  const bool by_kernel = the_case.is("op", "sm");
  const std::int64_t bytes = the_case.number("bytes");
  const std::int64_t pieces = std::max<std::int64_t>(2, 4 * l2_bytes() / bytes + 1);
  const DeviceBuffer from(bytes * pieces), to(bytes * pieces);
  fill_random(from.at(), from.bytes(), options.seed);
  MOESIM_CUDA(cudaMemset(to.at(), 0xFF, to.bytes()));
  MOESIM_CUDA(cudaDeviceSynchronize());
  const Stream stream;
  Gate gate;
  std::int64_t at = 0;
  Row row;
  row.impl = the_case.text("op");
  row.bytes = static_cast<double>(2 * bytes);
  gather_batches(row, options, 1, [&](std::int64_t batch) {
    return gated(gate, stream, [&] {
      for (std::int64_t i = 0; i < batch; ++i) {
        at = (at + 1) % pieces;
        if (by_kernel) launch_copy(to.at(at * bytes), from.at(at * bytes), bytes, stream);
        else MOESIM_CUDA(cudaMemcpyAsync(to.at(at * bytes), from.at(at * bytes), bytes, cudaMemcpyDeviceToDevice, stream));
      }
    });
  });
  row.checked = device_checksum(to.at(at * bytes), bytes) == device_checksum(from.at(at * bytes), bytes);
  return row;
}

Row measure_peer(const Case& the_case, const Options& options) {
  const std::int64_t bytes = the_case.number("bytes");
  enable_peers(2);
  const DeviceBuffer from(bytes);
  DeviceBuffer to;
  {
    const On on(1);
    to = DeviceBuffer(bytes);
    set_bytes(to.at(), 0xFF, bytes);
  }
  fill_random(from.at(), bytes, options.seed);
  MOESIM_CUDA(cudaDeviceSynchronize());
  const Stream stream;
  Gate gate;
  Row row;
  row.impl = "ce";
  row.bytes = static_cast<double>(bytes);
  gather_batches(row, options, 1, [&](std::int64_t batch) {
    return gated(gate, stream, [&] {
      for (std::int64_t i = 0; i < batch; ++i) MOESIM_CUDA(cudaMemcpyPeerAsync(to.at(), 1, from.at(), 0, bytes, stream));
    });
  });
  row.checked = device_checksum(to.at(), bytes) == device_checksum(from.at(), bytes);
  return row;
}

// Every GPU sends a piece to every other one, all at once. Host timer: there is no event over several devices.
Row measure_all_to_all(const Case& the_case, const Options& options) {
  const int count = device_count();
  enable_peers(count);
  const std::int64_t bytes = the_case.number("bytes"), piece = bytes / count / 256 * 256;
  if (piece == 0) throw Skip("too few bytes for so many GPUs");
  std::vector<DeviceBuffer> send, receive;
  std::vector<std::unique_ptr<Stream>> streams;
  for (int device = 0; device < count; ++device) {
    const On on(device);
    send.emplace_back(bytes);
    receive.emplace_back(bytes);
    fill_random(send.back().at(), bytes, options.seed + static_cast<std::uint64_t>(device));
    set_bytes(receive.back().at(), 0xFF, bytes);
    streams.push_back(std::make_unique<Stream>());
  }
  Row row;
  row.impl = "ce";
  row.bytes = static_cast<double>(piece * (count - 1));
  row.values.emplace_back("gpus", count);
  gather(row, options, [&] {
    return timed_with_waits([&] {
      const double start = now_us();
      for (int step = 1; step < count; ++step)
        for (int from = 0; from < count; ++from) {
          const int to = (from + step) % count;
          const auto source = static_cast<std::size_t>(from), target = static_cast<std::size_t>(to);
          MOESIM_CUDA(cudaMemcpyPeerAsync(receive[target].at(from * piece), to, send[source].at(to * piece), from, piece,
                                          *streams[source]));
        }
      for (const auto& stream : streams) stream->wait();
      return now_us() - start;
    });
  });
  row.checked = device_checksum(receive[0].at(piece), piece) == [&] {
    const On on(1);
    return device_checksum(send[1].at(), piece);
  }();
  return row;
}

}  // namespace

void run_d2d(const Cases& cases, const Options& options) {
  for_each_case(cases, [&](const Case& the_case) {
    const auto op = the_case.text("op");
    const bool inside = op == "ce" || op == "sm";
    if (!inside && device_count() < 2) throw Skip("one GPU: peers need two");
    Row row = inside                ? measure_inside(the_case, options)
              : op == "all_to_all" ? measure_all_to_all(the_case, options)
                                   : measure_peer(the_case, options);
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  });
}

}  // namespace moesim
