// The benchmarks of moesim-hostbench, one file each.
#pragma once

#include "../shared/measure.h"

namespace moesim {

void run_dram(const std::vector<Case>& cases, const Options& options);
void run_cpu_expert(const std::vector<Case>& cases, const Options& options);
void run_file(const std::vector<Case>& cases, const Options& options);
void run_mmap(const std::vector<Case>& cases, const Options& options);
void run_stage(const std::vector<Case>& cases, const Options& options);

}  // namespace moesim
