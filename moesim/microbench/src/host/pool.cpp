#include "pool.h"

#include <pthread.h>
#include <sched.h>

namespace moesim {
namespace {

void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

// A thread that waits spins; after a while it lets others run, so that a machine with too few CPUs still gets on.
template <typename Condition>
void spin_until(Condition condition) {
  for (int turns = 0; !condition(); ++turns) {
    pause_cpu();
    if (turns > 1 << 16) sched_yield();
  }
}

const std::vector<int>& cpus_at_start() {
  static const std::vector<int> cpus = allowed_cpus();
  return cpus;
}

}  // namespace

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

Pool::Pool(int threads) : threads_(threads), spans_(static_cast<std::size_t>(threads)) {
  const auto& cpus = cpus_at_start();
  if (threads > static_cast<int>(cpus.size())) throw Skip("more threads than CPUs");
  pin_to(cpus[0]);
  for (int thread = 1; thread < threads; ++thread)
    others_.emplace_back([this, thread, cpu = cpus[thread]] {
      pin_to(cpu);
      serve(thread);
    });
  if (sched_getscheduler(0) != SCHED_FIFO) return;
  for (const int cpu : cpus) holders_.emplace_back([this, cpu] { hold(cpu); });
  // They begin on this thread's CPU, and can't leave it before this thread lets them.
  spin_until([&] { return placed_ == static_cast<int>(cpus.size()); });
}

Pool::~Pool() {
  stop_ = true;
  round_.fetch_add(1);
  for (auto& other : others_) other.join();
  for (auto& holder : holders_) holder.join();
}

// Spins with a priority above every ordinary program's, and below that of what is measured.
void Pool::hold(int cpu) {
  pin_to(cpu);
  placed_.fetch_add(1);
  const sched_param lowest{1};
  if (sched_setscheduler(0, SCHED_FIFO, &lowest) != 0) return;
  while (!stop_) pause_cpu();
}

Timed Pool::run(const std::function<void(int)>& work) {
  work_ = &work;
  busy_ = threads_;
  const double start = now_us();
  round_.fetch_add(1);
  work_timed(0);
  spin_until([this] { return busy_ == 0; });
  double end = 0, got = 0;
  for (const auto& span : spans_) end = std::max(end, span.end_us);
  for (const auto& span : spans_) got += span.cpu_us + (end - span.end_us);
  return {end - start, std::min(1.0, got / ((end - start) * threads_))};
}

void Pool::work_timed(int thread) {
  const double cpu = clock_us(CLOCK_THREAD_CPUTIME_ID);
  (*work_)(thread);
  auto& span = spans_[static_cast<std::size_t>(thread)];
  span.cpu_us = clock_us(CLOCK_THREAD_CPUTIME_ID) - cpu;
  span.end_us = now_us();
  busy_.fetch_sub(1);
}

void Pool::meet() {
  const int meeting = meeting_;
  if (met_.fetch_add(1) + 1 == threads_) {
    met_ = 0;
    meeting_.fetch_add(1);
  } else {
    spin_until([this, meeting] { return meeting_ != meeting; });
  }
}

void Pool::serve(int thread) {
  for (int round = 0;;) {
    spin_until([this, round] { return round_ != round; });
    round = round_;
    if (stop_) return;
    work_timed(thread);
  }
}

}  // namespace moesim
