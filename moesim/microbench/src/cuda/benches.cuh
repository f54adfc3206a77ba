// The benchmarks of moesim-bench.
#pragma once

#include "device.cuh"

namespace moesim {

using Cases = std::vector<Case>;
void run_copy(const Cases& cases, const Options& options);
void run_copy_host_kind(const Cases& cases, const Options& options);
void run_copy_bidir(const Cases& cases, const Options& options);
void run_copy_queue(const Cases& cases, const Options& options);
void run_overlap(const Cases& cases, const Options& options);
void run_zero_copy(const Cases& cases, const Options& options);
void run_launch(const Cases& cases, const Options& options);
void run_router_roundtrip(const Cases& cases, const Options& options);
void run_expert_ffn(const Cases& cases, const Options& options);
void run_grouped(const Cases& cases, const Options& options);
void run_hbm(const Cases& cases, const Options& options);
void run_d2d(const Cases& cases, const Options& options);
void run_router_permute(const Cases& cases, const Options& options);
void run_dequant(const Cases& cases, const Options& options);
void run_alloc(const Cases& cases, const Options& options);
void run_file_to_gpu(const Cases& cases, const Options& options);
void run_replay(const Cases& cases, const Options& options);

}  // namespace moesim
