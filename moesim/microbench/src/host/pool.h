// Threads that start together: pinned to one CPU each, spinning between rounds, so that a round starts in a microsecond.
// With real-time priority, every CPU is held as long as the pool lives: other programs would take their share of memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "../shared/measure.h"

namespace moesim {

// The CPUs that this process may run on.
std::vector<int> allowed_cpus();

class Pool {
 public:
  explicit Pool(int threads);  // throws Skip where there are fewer CPUs
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }
  // Runs `work(thread)` on every thread, the caller being thread 0: from the start to the last end. A thread that starts
  // late or is put off its CPU lowers the share; one that ends early does not.
  Timed run(const std::function<void(int)>& work);
  // Waits inside `work` until every thread is there.
  void meet();

 private:
  struct alignas(64) Span {
    double end_us, cpu_us;
  };
  void serve(int thread);
  void hold(int cpu);
  void work_timed(int thread);

  int threads_;
  std::vector<Span> spans_;
  std::vector<std::thread> others_, holders_;
  std::atomic<int> round_{0}, busy_{0}, met_{0}, meeting_{0}, placed_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int)>* work_ = nullptr;
};

// The part of `count` items that belongs to one of several threads, in multiples of `step`.
struct Part {
  std::int64_t begin, end;
};
inline Part part_of(std::int64_t count, int thread, int threads, std::int64_t step) {
  const std::int64_t steps = (count + step - 1) / step;
  const auto cut = [&](int index) { return std::min(count, steps * index / threads * step); };
  return {cut(thread), cut(thread + 1)};
}

}  // namespace moesim
