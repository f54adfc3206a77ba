// Clocks, the share of the CPU that a sample got, and the loop that gathers samples.
#pragma once

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>

#include "options.h"
#include "row.h"

namespace moesim {

inline double clock_us(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) * 1e-3;
}
inline double now_us() { return clock_us(CLOCK_MONOTONIC); }

// Tells the CPU that this is a waiting loop.
inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Microseconds that the calling thread has stood in a run queue without a CPU, so far; 0 where the kernel won't say.
inline double run_queue_us() {
  std::ifstream stat("/proc/thread-self/schedstat");
  double ran = 0, waited = 0;
  return stat >> ran >> waited ? waited * 1e-3 : 0;
}

// Microseconds of CPU time since some start: of everybody on this machine (and what its hypervisor took), and of us.
struct CpuUse {
  double wall_us = 0, all_us = 0, own_us = 0;
};
inline CpuUse cpu_use_now() {
  CpuUse use;
  use.wall_us = now_us();
  std::ifstream stat("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, waiting = 0, irq = 0, soft_irq = 0, stolen = 0;
  stat >> name >> user >> nice >> system >> idle >> waiting >> irq >> soft_irq >> stolen;
  use.all_us = (user + nice + system + irq + soft_irq + stolen) * 1e6 / static_cast<double>(sysconf(_SC_CLK_TCK));
  rusage own{};
  getrusage(RUSAGE_SELF, &own);
  for (const auto& part : {own.ru_utime, own.ru_stime})
    use.own_us += static_cast<double>(part.tv_sec) * 1e6 + static_cast<double>(part.tv_usec);
  return use;
}

// One sample: how long, and which share of the CPU time that its threads wanted they got.
struct Timed {
  double us = 0, share = 1;
};

// One thread that waits for a device now and then: what it spends in the run queue is not the device's time.
template <typename Work>
Timed timed_with_waits(Work work) {
  const double queued = run_queue_us(), start = now_us();
  const double us = work();
  const double wall = now_us() - start;
  return {us, 1 - (run_queue_us() - queued) / wall};
}

constexpr double kCleanShare = 0.95;
constexpr double kStartUs = 2;   // what starting threads and reading clocks may cost, which is nobody's contention
constexpr int kWarmup = 3;
constexpr int kFewest = 5;       // clean samples that will do when time is up
constexpr int kMost = 2000;      // samples, clean or not
constexpr double kPatience = 4;  // times the case's time, while too few samples are clean
constexpr double kLeastUs = 50e3;  // of sampling, so that the kernel's clock ticks tell who else was at work

inline double share_of(const std::vector<Timed>& samples) {
  double wanted = 0, got = 0;
  for (const auto& sample : samples) wanted += sample.us, got += sample.us * sample.share;
  return std::clamp(got / wanted, 0.0, 1.0);
}

// Takes samples until there are enough of them, or the case has had its time.
//
// `once` does one. A sample whose threads did not get at least 95 % of the CPU time that they wanted tells of other
// programs, not of this machine: it is set aside, and taken again. Where too few are left, all are kept, and the row's
// cpu_share says how it was. The value others_busy_cpus is how many CPUs others kept busy meanwhile: they may not have
// been in the way, but memory and disk were shared with them.
inline void gather(Row& row, const Options& options, const std::function<Timed()>& once) {
  for (int i = 0; i < kWarmup; ++i) once();
  row.warmup = kWarmup;
  std::vector<Timed> clean, all;
  const CpuUse before = cpu_use_now();
  const double start = now_us(), least = std::min(kLeastUs, options.case_us);
  while (static_cast<int>(all.size()) < kMost) {
    const double spent = now_us() - start;
    if (static_cast<int>(clean.size()) >= options.samples && spent >= least) break;
    const bool enough = static_cast<int>(clean.size()) >= kFewest;
    if (spent > options.case_us && (enough || spent > kPatience * options.case_us)) break;
    all.push_back(once());
    if (all.back().us * (1 - all.back().share) < kStartUs) all.back().share = 1;
    if (all.back().share >= kCleanShare) clean.push_back(all.back());
  }
  const CpuUse after = cpu_use_now();
  const auto& kept = static_cast<int>(clean.size()) >= kFewest ? clean : all;
  for (const auto& sample : kept) row.samples_us.push_back(sample.us / static_cast<double>(row.batch));
  row.cpu_share = share_of(kept);
  const double others = (after.all_us - before.all_us) - (after.own_us - before.own_us);
  row.values.emplace_back("others_busy_cpus", std::max(0.0, others) / (after.wall_us - before.wall_us));
  row.values.emplace_back("samples_set_aside", static_cast<double>(all.size() - kept.size()));
}

}  // namespace moesim
