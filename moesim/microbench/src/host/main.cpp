// moesim-hostbench BENCH [options] < cases: measures cases of one benchmark, prints a JSON line for each.
#include <sched.h>

#include <cstdio>
#include <exception>

#include "benches.h"

int main(int count, char** words) {
  using namespace moesim;
  try {
    const Options options = parse_options(count, words);
    const auto cases = read_cases();
    const sched_param priority{10};
    if (options.realtime && sched_setscheduler(0, SCHED_FIFO, &priority) != 0)
      throw std::runtime_error("real-time priority is not permitted");
    if (options.bench == "dram") run_dram(cases, options);
    else if (options.bench == "cpu_expert") run_cpu_expert(cases, options);
    else if (options.bench == "file") run_file(cases, options);
    else if (options.bench == "mmap") run_mmap(cases, options);
    else if (options.bench == "stage") run_stage(cases, options);
    else throw std::runtime_error("unknown benchmark " + options.bench);
    return 0;
  } catch (const std::exception& error) {
    std::puts(("{\"error\":" + quoted(error.what()) + "}").c_str());
    return 2;
  }
}
