// `router_roundtrip`: the turnaround of a miss. The router's kernel runs, its ids come to the host, the host looks them
// up, a copy is issued on another stream (bytes=0: none), and a kernel that depends on it runs.
//
// case: tokens=N experts=N topk=N bytes=N. Host timer, from launching the router to the end of the dependent kernel.
#include "benches.cuh"
#include "index_maps.h"
#include "router.cuh"

namespace moesim {
namespace {

__global__ void use(const std::uint64_t* data, const std::int32_t* ids, std::uint64_t* seen) {
  seen[0] = data[0] + static_cast<std::uint64_t>(ids[0]);
}

class Turnaround {
 public:
  Turnaround(const Case& the_case, std::uint64_t seed)
      : tokens_(the_case.number("tokens")),
        bytes_(the_case.number("bytes")),
        experts_(static_cast<int>(the_case.number("experts"))),
        k_(static_cast<int>(the_case.number("topk"))),
        scores_(4 * tokens_ * experts_),
        ids_(4 * tokens_ * k_),
        weights_(4 * tokens_ * k_),
        slot_(std::max<std::int64_t>(bytes_, 8)),
        host_ids_(4 * tokens_ * k_),
        expert_(slot_.bytes()),
        seen_(8, cudaHostAllocMapped),
        resident_(static_cast<std::size_t>(experts_), -1) {
    if (experts_ > kMostExperts || k_ > kMostChosen) throw Skip("more experts than the kernel holds");
    fill_scores(scores_.at<float>(), tokens_ * experts_, seed);
    Random(seed).fill(expert_.at(), static_cast<std::size_t>(expert_.bytes()));
    MOESIM_CUDA(cudaMemset(slot_.at(), 0, slot_.bytes()));
    MOESIM_CUDA(cudaDeviceSynchronize());
  }

  double once() {
    const double start = now_us();
    launch_topk(scores_.at<float>(), tokens_, experts_, k_, false, ids_.at<std::int32_t>(), weights_.at<float>(), compute_);
    MOESIM_CUDA(cudaMemcpyAsync(host_ids_.at(), ids_.at(), host_ids_.bytes(), cudaMemcpyDeviceToHost, compute_));
    routed_.record(compute_);
    routed_.spin();
    decide();
    if (bytes_ > 0) {
      MOESIM_CUDA(cudaMemcpyAsync(slot_.at(), expert_.at(), bytes_, cudaMemcpyHostToDevice, copies_));
      copied_.record(copies_);
      MOESIM_CUDA(cudaStreamWaitEvent(compute_, copied_));
    }
    void* seen = nullptr;
    MOESIM_CUDA(cudaHostGetDevicePointer(&seen, seen_.at(), 0));
    use<<<1, 1, 0, compute_>>>(slot_.at<std::uint64_t>(), ids_.at<std::int32_t>(), static_cast<std::uint64_t*>(seen));
    MOESIM_LAUNCHED();
    used_.record(compute_);
    used_.spin();
    return now_us() - start;
  }

  bool right() const {
    std::vector<float> scores(static_cast<std::size_t>(experts_));
    MOESIM_CUDA(cudaMemcpy(scores.data(), scores_.at(), scores.size() * 4, cudaMemcpyDeviceToHost));
    std::int32_t expected[kMostChosen];
    float weights[kMostChosen];
    choose_experts(scores.data(), experts_, k_, false, expected, weights);
    const auto* ids = host_ids_.at<std::int32_t>();
    const std::uint64_t word = bytes_ > 0 ? *expert_.at<std::uint64_t>() : 0;
    return std::equal(ids, ids + k_, expected) && *seen_.at<std::uint64_t>() == word + static_cast<std::uint64_t>(ids[0]);
  }

 private:
  // What a cache does with each id: looks it up and notes its use.
  void decide() {
    const auto* ids = host_ids_.at<std::int32_t>();
    for (std::int64_t i = 0; i < tokens_ * k_; ++i) resident_[static_cast<std::size_t>(ids[i])] = ++clock_;
  }

  std::int64_t tokens_, bytes_, clock_ = 0;
  int experts_, k_;
  DeviceBuffer scores_, ids_, weights_, slot_;
  PinnedBuffer host_ids_, expert_, seen_;
  std::vector<std::int64_t> resident_;
  Stream compute_, copies_;
  Event routed_{false}, copied_{false}, used_{false};
};

}  // namespace

void run_router_roundtrip(const Cases& cases, const Options& options) {
  for_each_case(cases, [&](const Case& the_case) {
    Turnaround turnaround(the_case, options.seed);
    Row row;
    row.impl = "host_in_loop";
    row.bytes = static_cast<double>(the_case.number("bytes"));
    Options more = options;
    more.samples = options.samples * 10;
    gather(row, more, [&] { return timed_with_waits([&] { return turnaround.once(); }); });
    row.checked = turnaround.right();
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  });
}

}  // namespace moesim
