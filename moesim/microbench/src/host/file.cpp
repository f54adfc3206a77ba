// `file`: reading a file past the page cache, by request size and requests in flight.
//
// case: api=pread|uring pattern=random|sequential bytes=N depth=N. pread: `depth` threads, each with one request; uring:
// one thread, `depth` requests in one ring. A sample is a window of many requests; its time is divided by their number,
// so it is the time between completions, not the latency of one (that is the value latency_us).
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <thread>

#include "benches.h"
#include "memory.h"
#include "../shared/test_file.h"
#include "uring.h"

namespace moesim {
namespace {

constexpr std::int64_t kPage = 4096;
constexpr double kWindowUs = 20e3;

class Reader {
 public:
  Reader(const Case& the_case, const TestFile& file, const Options& options)
      : file_(file),
        descriptor_(file.open_direct()),
        bytes_(the_case.number("bytes")),
        depth_(static_cast<int>(the_case.number("depth"))),
        random_order_(the_case.is("pattern", "random")),
        random_(options.seed + 1),
        buffers_(bytes_ * depth_, random_) {
    if (bytes_ % kPage != 0) throw Skip("O_DIRECT reads whole pages");
    if (2 * bytes_ * depth_ > file.bytes()) throw Skip("the test file is too small for so many requests");
    started_.assign(static_cast<std::size_t>(depth_), 0);
    offsets_.assign(static_cast<std::size_t>(depth_), 0);
  }
  virtual ~Reader() { close(descriptor_); }

  Row measure(const Options& options) {
    Row row;
    row.bytes = static_cast<double>(bytes_);
    row.batch = requests_for(window(4 * depth_).us);
    latencies_.clear();
    gather(row, options, [&] { return window(row.batch); });
    std::nth_element(latencies_.begin(), latencies_.begin() + latencies_.size() / 2, latencies_.end());
    row.values.emplace_back("latency_us", latencies_[latencies_.size() / 2]);
    row.checked = check();
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  }

 protected:
  virtual Timed window(std::int64_t requests) = 0;  // so many requests

  std::int64_t next_offset() {
    const std::int64_t last = file_.bytes() - bytes_;
    if (random_order_) return static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>(last / kPage)) * kPage;
    at_ = at_ + 2 * bytes_ > file_.bytes() ? 0 : at_ + bytes_;
    return at_;
  }
  unsigned char* buffer(std::int64_t slot) const { return buffers_.at(slot * bytes_); }

  const TestFile& file_;
  int descriptor_;
  std::int64_t bytes_;
  int depth_;
  std::vector<double> started_, latencies_;
  std::vector<std::int64_t> offsets_;

 private:
  // Enough requests for a window of about kWindowUs, from the time that a first one took.
  std::int64_t requests_for(double first_us) const {
    const double each = first_us / (4.0 * depth_);
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(kWindowUs / each), 4 * depth_, 4096);
  }
  // The last read of each slot, against what was written: first, middle and last word.
  bool check() const {
    for (int slot = 0; slot < depth_; ++slot)
      for (const std::int64_t index : {std::int64_t{0}, bytes_ / 16, bytes_ / 8 - 1}) {
        std::uint64_t word = 0;
        memcpy(&word, buffer(slot) + index * 8, 8);
        if (word != file_.word(offsets_[static_cast<std::size_t>(slot)] / 8 + index)) return false;
      }
    return true;
  }

  bool random_order_;
  Random random_;
  Buffer buffers_;
  std::int64_t at_ = 0;
};

class RingReader final : public Reader {
 public:
  RingReader(const Case& the_case, const TestFile& file, const Options& options)
      : Reader(the_case, file, options), ring_(static_cast<unsigned>(depth_)) {}

 protected:
  Timed window(std::int64_t requests) override {
    return timed_with_waits([&] { return run_window(requests); });
  }

 private:
  double run_window(std::int64_t requests) {
    const double start = now_us();
    std::int64_t begun = 0, ended = 0;
    for (int slot = 0; slot < depth_ && begun < requests; ++slot, ++begun) begin(static_cast<std::uint64_t>(slot));
    while (ended < requests) {
      ring_.enter();
      for (std::uint64_t slot = 0; ring_.ended(slot, static_cast<unsigned>(bytes_)); ++ended) {
        latencies_.push_back(now_us() - started_[slot]);
        if (begun < requests) begin(slot), ++begun;
      }
    }
    return now_us() - start;
  }

  void begin(std::uint64_t slot) {
    offsets_[slot] = next_offset();
    started_[slot] = now_us();
    ring_.read(descriptor_, buffer(static_cast<std::int64_t>(slot)), static_cast<unsigned>(bytes_), offsets_[slot], slot);
  }

  Ring ring_;
};

class ThreadReader final : public Reader {
 public:
  // Threads that share a CPU wait for each other, and that can't be told from waiting for other programs.
  ThreadReader(const Case& the_case, const TestFile& file, const Options& options) : Reader(the_case, file, options) {
    if (depth_ > static_cast<int>(std::thread::hardware_concurrency())) throw Skip("more threads than CPUs");
  }

 protected:
  Timed window(std::int64_t requests) override {
    const std::int64_t each = requests / depth_;
    std::vector<std::vector<double>> latencies(static_cast<std::size_t>(depth_));
    queued_us_ = 0;
    std::vector<std::vector<std::int64_t>> plans(static_cast<std::size_t>(depth_));
    for (auto& plan : plans)
      for (std::int64_t i = 0; i < each; ++i) plan.push_back(next_offset());
    const double start = now_us();
    std::vector<std::thread> threads;
    for (std::size_t slot = 1; slot < plans.size(); ++slot)
      threads.emplace_back([&, slot] { read_all(slot, plans[slot], latencies[slot]); });
    read_all(0, plans[0], latencies[0]);
    for (auto& thread : threads) thread.join();
    const double us = now_us() - start;
    for (const auto& part : latencies) latencies_.insert(latencies_.end(), part.begin(), part.end());
    if (failed_) throw std::runtime_error("a read came short");
    const double share = 1 - queued_us_ / (us * depth_);
    return {us * static_cast<double>(requests) / static_cast<double>(each * depth_), share};
  }

 private:
  void read_all(std::size_t slot, const std::vector<std::int64_t>& plan, std::vector<double>& latencies) {
    const double queued = run_queue_us();
    for (const auto offset : plan) {
      const double start = now_us();
      const auto got = pread(descriptor_, buffer(static_cast<std::int64_t>(slot)), static_cast<std::size_t>(bytes_), offset);
      if (got != bytes_) failed_ = true;
      latencies.push_back(now_us() - start);
      offsets_[slot] = offset;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    queued_us_ += run_queue_us() - queued;
  }

  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  double queued_us_ = 0;
};

}  // namespace

void run_file(const std::vector<Case>& cases, const Options& options) {
  const TestFile file(options);
  for_each_case(cases, [&](const Case& the_case) {
    std::unique_ptr<Reader> reader;
    if (the_case.is("api", "uring")) reader = std::make_unique<RingReader>(the_case, file, options);
    else reader = std::make_unique<ThreadReader>(the_case, file, options);
    Row row = reader->measure(options);
    row.impl = the_case.text("api") + "_direct";
    return row;
  });
}

}  // namespace moesim
