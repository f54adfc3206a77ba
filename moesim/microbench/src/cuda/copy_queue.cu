// `copy_queue`: how long an urgent expert takes that is issued while prefetches are queued on another stream.
//
// case: bytes=N ahead=N prefetch=N chunk=N window=N priority=0|1. `ahead` prefetches (0: none) of `prefetch` bytes, cut into
// chunks of `chunk` bytes (0: whole). window=0 queues them all at once; else at most `window` chunks are in flight, the
// host issuing the next as one ends, and none any more once the urgent copy is asked for. Host timer: from issuing the
// urgent copy, with prefetches under way, to its end.
#include <deque>

#include "benches.cuh"

namespace moesim {
namespace {

constexpr int kMostChunks = Gate::kMostQueued;  // more would make the host wait in the call that queues them

class Queue {
 public:
  Queue(const Case& the_case, std::uint64_t seed)
      : bytes_(the_case.number("bytes")),
        ahead_(the_case.number("ahead")),
        prefetch_(the_case.number("prefetch")),
        chunk_(the_case.number("chunk") > 0 ? the_case.number("chunk") : prefetch_),
        window_(the_case.number("window")),
        urgent_(the_case.number("priority") != 0),
        host_(prefetch_),
        urgent_host_(bytes_),
        device_(prefetch_),
        urgent_device_(bytes_) {
    if (ahead_ * ((prefetch_ + chunk_ - 1) / chunk_) > kMostChunks) throw Skip("more chunks than a queue holds");
    Random random(seed);
    random.fill(host_.at(), static_cast<std::size_t>(prefetch_));
    random.fill(urgent_host_.at(), static_cast<std::size_t>(bytes_));
    for (int i = 0; i < kMostChunks; ++i) chunk_ends_.emplace_back(false);
  }

  Timed once() {
    next_ = 0;
    done_ = 0;
    const std::int64_t before = window_ > 0 ? window_ : chunks();
    while (next_ < before) issue_chunk();
    while (window_ > 0 && done_ < std::min<std::int64_t>(3, chunks() / 2)) advance();
    if (window_ == 0) pause_us(50);  // the first chunk is under way
    const double start = now_us();
    MOESIM_CUDA(cudaMemcpyAsync(urgent_device_.at(), urgent_host_.at(), bytes_, cudaMemcpyHostToDevice, urgent_));
    urgent_end_.record(urgent_);
    urgent_end_.spin();
    const double us = now_us() - start;
    prefetches_.wait();
    return {us, 1};
  }

  // Once more, into poisoned memory, with the prefetches around it.
  bool right() {
    set_bytes(urgent_device_.at(), 0xFF, bytes_);
    once();
    return device_checksum(urgent_device_.at(), bytes_) == checksum(urgent_host_.at(), static_cast<std::size_t>(bytes_));
  }

 private:
  std::int64_t chunks_each() const { return (prefetch_ + chunk_ - 1) / chunk_; }
  std::int64_t chunks() const { return ahead_ * chunks_each(); }

  void issue_chunk() {
    const std::int64_t begin = next_ % chunks_each() * chunk_, size = std::min(chunk_, prefetch_ - begin);
    MOESIM_CUDA(cudaMemcpyAsync(device_.at(begin), host_.at(begin), size, cudaMemcpyHostToDevice, prefetches_));
    chunk_ends_[static_cast<std::size_t>(next_)].record(prefetches_);
    ++next_;
  }
  // Issues the next chunk as soon as one of those in flight has ended.
  void advance() {
    while (!chunk_ends_[static_cast<std::size_t>(done_)].done()) pause_cpu();
    ++done_;
    if (next_ < chunks()) issue_chunk();
  }
  static void pause_us(double us) {
    for (const double start = now_us(); now_us() - start < us;) pause_cpu();
  }

  std::int64_t bytes_, ahead_, prefetch_, chunk_, window_, next_ = 0, done_ = 0;
  Stream prefetches_, urgent_;
  PinnedBuffer host_, urgent_host_;
  DeviceBuffer device_, urgent_device_;
  std::vector<Event> chunk_ends_;
  Event urgent_end_{false};
};

}  // namespace

void run_copy_queue(const Cases& cases, const Options& options) {
  for_each_case(cases, [&](const Case& the_case) {
    Queue queue(the_case, options.seed);
    Row row;
    row.impl = "ce";
    row.bytes = static_cast<double>(the_case.number("bytes"));
    gather(row, options, [&] { return timed_with_waits([&] { return queue.once().us; }); });
    row.checked = queue.right();
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  });
}

}  // namespace moesim
