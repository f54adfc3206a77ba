// `router_permute`: top-k, histogram and scan, permutation, weighted sum.
//
// case: op=topk_softmax|topk_sigmoid|histogram|permute|combine experts=N topk=N tokens=N hidden=N.
#include "router.cuh"

#include <cmath>

#include "benches.cuh"
#include "fragments.cuh"
#include "index_maps.h"

namespace moesim {
namespace {

constexpr int kThreads = 256, kPerLane = kMostExperts / 32;

__global__ void score(float* scores, std::int64_t count, std::uint64_t seed) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < count; i += stride)
    scores[i] = static_cast<float>(static_cast<std::int32_t>(mixed(seed + static_cast<std::uint64_t>(i)) >> 32)) * 0x1p-29f;
}

// A warp for each token; lane l holds experts l, l + 32, ... The lower number wins among equals.
__global__ void __launch_bounds__(kThreads) topk(const float* scores, std::int64_t tokens, int experts, int k, bool sigmoid,
                                                std::int32_t* ids, float* weights) {
  const std::int64_t token = blockIdx.x * static_cast<std::int64_t>(kThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (token >= tokens) return;
  float own[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = expert_of_lane(lane, i);
    own[i] = expert < experts ? scores[token * experts + expert] : -INFINITY;
  }
  float first = 0, sum = 0, mine = 0;
  std::int32_t my_id = 0;
  for (int rank = 0; rank < k; ++rank) {
    float best = -INFINITY;
    int best_id = kMostExperts;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (own[i] > best) best = own[i], best_id = expert_of_lane(lane, i);
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, best, step);
      const int other_id = __shfl_xor_sync(0xFFFFFFFFu, best_id, step);
      if (comes_before(other, other_id, best, best_id)) best = other, best_id = other_id;
    }
    if (rank == 0) first = best;
    const float weight = sigmoid ? 1 / (1 + __expf(-best)) : __expf(best - first);
    sum += weight;
    if (lane == rank) mine = weight, my_id = best_id;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (expert_of_lane(lane, i) == best_id) own[i] = -INFINITY;
  }
  if (lane < k) {
    ids[token * k + lane] = my_id;
    weights[token * k + lane] = mine / sum;
  }
}

__global__ void __launch_bounds__(kThreads) count_pairs(const std::int32_t* ids, std::int64_t pairs, int experts, int* counts) {
  __shared__ int own[kMostExperts];
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) own[e] = 0;
  __syncthreads();
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x; i < pairs; i += stride)
    atomicAdd(own + ids[i], 1);
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads)
    if (own[e] != 0) atomicAdd(counts + e, own[e]);
}

// One block of kMostExperts threads.
__global__ void __launch_bounds__(kMostExperts) scan(const int* counts, int experts, int* offset, int* cursor) {
  __shared__ int sums[kMostExperts];
  const int e = static_cast<int>(threadIdx.x);
  sums[e] = e < experts ? counts[e] : 0;
  __syncthreads();
  for (int step = 1; step < kMostExperts; step *= 2) {
    const int before = e >= step ? sums[e - step] : 0;
    __syncthreads();
    sums[e] += before;
    __syncthreads();
  }
  if (e >= experts) return;
  offset[e + 1] = sums[e];
  if (e == 0) offset[0] = 0;
  cursor[e] = e == 0 ? 0 : sums[e - 1];
}

// A block for each pair: its first thread takes a place, all copy the row.
__global__ void __launch_bounds__(128) permute(const std::uint16_t* x, const std::int32_t* ids, int k, int hidden, int* cursor,
                                              int* place, std::uint16_t* rows) {
  __shared__ int at;
  const std::int64_t pair = blockIdx.x;
  if (threadIdx.x == 0) place[pair] = at = atomicAdd(cursor + ids[pair], 1);
  __syncthreads();
  const auto* from = reinterpret_cast<const uint4*>(x + pair / k * hidden);
  auto* to = reinterpret_cast<uint4*>(rows + static_cast<std::int64_t>(at) * hidden);
  for (int i = static_cast<int>(threadIdx.x); i < hidden / 8; i += 128) to[i] = from[i];
}

__global__ void __launch_bounds__(128) combine(const std::uint16_t* rows, const int* place, const float* weights, int k,
                                              int hidden, std::uint16_t* y) {
  const std::int64_t token = blockIdx.x;
  for (int i = static_cast<int>(threadIdx.x); i < hidden / 2; i += 128) {
    float low = 0, high = 0;
    for (int rank = 0; rank < k; ++rank) {
      const std::int64_t row = place[token * k + rank];
      const std::uint32_t pair = reinterpret_cast<const std::uint32_t*>(rows + row * hidden)[i];
      const float weight = weights[token * k + rank];
      low = fmaf(weight, low_float(pair), low);
      high = fmaf(weight, high_float(pair), high);
    }
    reinterpret_cast<std::uint32_t*>(y + token * hidden)[i] = bf16_pair(low, high);
  }
}

template <typename T>
std::vector<T> on_host(const DeviceBuffer& buffer) {
  std::vector<T> values(static_cast<std::size_t>(buffer.bytes()) / sizeof(T));
  MOESIM_CUDA(cudaMemcpy(values.data(), buffer.at(), values.size() * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

class Router {
 public:
  Router(const Case& the_case, std::uint64_t seed)
      : experts_(static_cast<int>(the_case.number("experts"))),
        k_(static_cast<int>(the_case.number("topk"))),
        hidden_(static_cast<int>(the_case.number("hidden"))),
        tokens_(the_case.number("tokens")),
        sigmoid_(the_case.is("op", "topk_sigmoid")),
        scores_(4 * tokens_ * experts_),
        ids_(4 * pairs()),
        weights_(4 * pairs()),
        counts_(4 * experts_),
        offset_(4 * (experts_ + 1)),
        cursor_(4 * experts_),
        start_(4 * experts_),
        place_(4 * pairs()),
        x_(2 * tokens_ * hidden_),
        rows_(2 * pairs() * hidden_),
        y_(x_.bytes()) {
    if (experts_ > kMostExperts || k_ > kMostChosen) throw Skip("more experts than the kernel holds");
    fill_scores(scores_.at<float>(), tokens_ * experts_, seed);
    fill_bf16(x_.at(), tokens_ * hidden_, 1, seed);
    MOESIM_CUDA(cudaMemset(ids_.at(), 0xFF, ids_.bytes()));
    MOESIM_CUDA(cudaMemset(y_.at(), 0xFF, y_.bytes()));
    for (const char* op : {"topk_softmax", "histogram", "permute", "combine"}) run(op, nullptr);
    MOESIM_CUDA(cudaDeviceSynchronize());
    MOESIM_CUDA(cudaMemcpy(start_.at(), offset_.at(), start_.bytes(), cudaMemcpyDeviceToDevice));
  }

  std::int64_t pairs() const { return tokens_ * k_; }
  int operations(const std::string& op) const { return op == "histogram" ? 3 : op == "permute" ? 2 : 1; }

  void run(const std::string& op, cudaStream_t stream) {
    if (op == "histogram") {
      launch_offsets(ids_.at<std::int32_t>(), pairs(), experts_, counts_.at<int>(), offset_.at<int>(), cursor_.at<int>(), stream);
    } else if (op == "permute") {
      if (stream != nullptr)
        MOESIM_CUDA(cudaMemcpyAsync(cursor_.at(), start_.at(), cursor_.bytes(), cudaMemcpyDeviceToDevice, stream));
      launch_permute(x_.at<std::uint16_t>(), ids_.at<std::int32_t>(), tokens_, k_, hidden_, cursor_.at<int>(),
                     place_.at<int>(), rows_.at<std::uint16_t>(), stream);
    } else if (op == "combine") {
      launch_combine(rows_.at<std::uint16_t>(), place_.at<int>(), weights_.at<float>(), tokens_, k_, hidden_,
                     y_.at<std::uint16_t>(), stream);
    } else {
      launch_topk(scores_.at<float>(), tokens_, experts_, k_, sigmoid_, ids_.at<std::int32_t>(), weights_.at<float>(), stream);
    }
  }

  double bytes(const std::string& op) const {
    const auto row = 2.0 * hidden_, count = static_cast<double>(pairs());
    if (op == "permute") return 2 * row * count;
    if (op == "combine") return row * count + static_cast<double>(y_.bytes());
    return op == "histogram" ? 4 * count : static_cast<double>(scores_.bytes()) + 8 * count;
  }

  // Chosen experts as on the host, every pair on a row of its own within its expert's, and sums against float64.
  bool right() const { return chosen_right() && places_right() && sums_right(); }

 private:
  std::int64_t step() const { return std::max<std::int64_t>(1, tokens_ / 64); }

  bool chosen_right() const {
    const auto scores = on_host<float>(scores_);
    const auto ids = on_host<std::int32_t>(ids_);
    const auto weights = on_host<float>(weights_);
    for (std::int64_t token = 0; token < tokens_; token += step()) {
      std::int32_t expected[kMostChosen];
      float expected_weight[kMostChosen];
      choose_experts(scores.data() + token * experts_, experts_, k_, sigmoid_, expected, expected_weight);
      for (int rank = 0; rank < k_; ++rank) {
        const auto at = static_cast<std::size_t>(token * k_ + rank);
        if (ids[at] != expected[rank] || std::fabs(weights[at] - expected_weight[rank]) > 1e-4f) return false;
      }
    }
    return true;
  }

  bool places_right() const {
    const auto ids = on_host<std::int32_t>(ids_);
    const auto offset = on_host<int>(offset_), place = on_host<int>(place_);
    std::vector<bool> taken(place.size(), false);
    for (std::size_t pair = 0; pair < place.size(); ++pair) {
      const auto expert = static_cast<std::size_t>(ids[pair]);
      if (place[pair] < offset[expert] || place[pair] >= offset[expert + 1] || taken[static_cast<std::size_t>(place[pair])])
        return false;
      taken[static_cast<std::size_t>(place[pair])] = true;
    }
    return true;
  }

  // Each token's rows are copies of itself and its weights sum to one: the sum is the token.
  bool sums_right() const {
    const auto x = on_host<std::uint16_t>(x_), y = on_host<std::uint16_t>(y_);
    for (std::size_t i = 0; i < x.size(); i += 101)
      if (std::fabs(float_from_bf16(x[i]) - float_from_bf16(y[i])) > 0.01f) return false;
    return true;
  }

  int experts_, k_, hidden_;
  std::int64_t tokens_;
  bool sigmoid_;
  DeviceBuffer scores_, ids_, weights_, counts_, offset_, cursor_, start_, place_, x_, rows_, y_;
};

}  // namespace

void fill_scores(float* scores, std::int64_t count, std::uint64_t seed) {
  score<<<1024, 256>>>(scores, count, mixed(seed + 5));
  MOESIM_LAUNCHED();
}

void launch_topk(const float* scores, std::int64_t tokens, int experts, int k, bool sigmoid, std::int32_t* ids,
                 float* weights, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((tokens + kThreads / 32 - 1) / (kThreads / 32));
  topk<<<blocks, kThreads, 0, stream>>>(scores, tokens, experts, k, sigmoid, ids, weights);
  MOESIM_LAUNCHED();
}

void launch_offsets(const std::int32_t* ids, std::int64_t pairs, int experts, int* counts, int* offset, int* cursor,
                    cudaStream_t stream) {
  MOESIM_CUDA(cudaMemsetAsync(counts, 0, 4 * static_cast<std::size_t>(experts), stream));
  const auto blocks = static_cast<unsigned>(std::clamp<std::int64_t>(pairs / 1024, 1, 256));
  count_pairs<<<blocks, kThreads, 0, stream>>>(ids, pairs, experts, counts);
  MOESIM_LAUNCHED();
  scan<<<1, kMostExperts, 0, stream>>>(counts, experts, offset, cursor);
  MOESIM_LAUNCHED();
}

void launch_permute(const std::uint16_t* x, const std::int32_t* ids, std::int64_t tokens, int k, int hidden, int* cursor,
                    int* place, std::uint16_t* rows, cudaStream_t stream) {
  permute<<<static_cast<unsigned>(tokens * k), 128, 0, stream>>>(x, ids, k, hidden, cursor, place, rows);
  MOESIM_LAUNCHED();
}

void launch_combine(const std::uint16_t* rows, const int* place, const float* weights, std::int64_t tokens, int k,
                    int hidden, std::uint16_t* y, cudaStream_t stream) {
  combine<<<static_cast<unsigned>(tokens), 128, 0, stream>>>(rows, place, weights, k, hidden, y);
  MOESIM_LAUNCHED();
}

void run_router_permute(const Cases& cases, const Options& options) {
  const Stream stream;
  Gate gate;
  for_each_case(cases, [&](const Case& the_case) {
    const auto op = the_case.text("op");
    Router router(the_case, options.seed);
    Row row;
    row.impl = "own";
    row.bytes = router.bytes(op);
    gather_batches(row, options, router.operations(op), [&](std::int64_t batch) {
      return gated(gate, stream, [&] {
        for (std::int64_t i = 0; i < batch; ++i) router.run(op, stream);
      });
    });
    row.checked = router.right();
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  });
}

}  // namespace moesim
