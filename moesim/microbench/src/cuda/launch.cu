// `launch`: what it costs to ask the GPU for something.
//
// case: op=submit|empty|launch_sync|event_record|event_query|stream_wait|graph_launch|graph_update nodes=N. submit,
// event_* and stream_wait are the host's time for one call, graph_update for new parameters of all nodes; empty is the
// GPU's time from one empty kernel to the next, graph_launch the GPU's for a whole graph, launch_sync the host's time
// until a kernel has ended.
#include "benches.cuh"

namespace moesim {
namespace {

__global__ void nothing(int* word) {
  if (word != nullptr) *word = 1;
}

constexpr int kCalls = 100;

// Microseconds of the host for one of kCalls calls, with a free queue.
template <typename Call>
Timed host_time(cudaStream_t stream, Call call) {
  MOESIM_CUDA(cudaStreamSynchronize(stream));
  const Timed timed = timed_with_waits([&] {
    const double start = now_us();
    for (int i = 0; i < kCalls; ++i) call();
    return now_us() - start;
  });
  MOESIM_CUDA(cudaStreamSynchronize(stream));
  return timed;
}

// A chain of empty kernels whose parameters can be set again.
class Chain {
 public:
  Chain(std::int64_t nodes, cudaStream_t stream) : word_(4) {
    MOESIM_CUDA(cudaGraphCreate(&graph_, 0));
    cudaGraphNode_t last = nullptr;
    for (std::int64_t i = 0; i < nodes; ++i) {
      const cudaKernelNodeParams parameters = with(nullptr);
      cudaGraphNode_t node = nullptr;
      MOESIM_CUDA(cudaGraphAddKernelNode(&node, graph_, last != nullptr ? &last : nullptr, last != nullptr ? 1 : 0, &parameters));
      nodes_.push_back(last = node);
    }
    MOESIM_CUDA(cudaGraphInstantiate(&exec_, graph_, 0));
    MOESIM_CUDA(cudaGraphUpload(exec_, stream));
    MOESIM_CUDA(cudaStreamSynchronize(stream));
  }
  ~Chain() {
    cudaGraphExecDestroy(exec_);
    cudaGraphDestroy(graph_);
  }
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;
  void launch(cudaStream_t stream) const { MOESIM_CUDA(cudaGraphLaunch(exec_, stream)); }
  void update() {
    turn_ = !turn_;
    const cudaKernelNodeParams parameters = with(turn_ ? word_.at<int>() : nullptr);
    for (const auto node : nodes_) MOESIM_CUDA(cudaGraphExecKernelNodeSetParams(exec_, node, &parameters));
  }
  // Whether the parameters that were set last are those that run.
  bool right(cudaStream_t stream) {
    turn_ = false;
    update();
    set_bytes(word_.at(), 0, 4);
    launch(stream);
    MOESIM_CUDA(cudaStreamSynchronize(stream));
    int word = 0;
    MOESIM_CUDA(cudaMemcpy(&word, word_.at(), 4, cudaMemcpyDeviceToHost));
    return word == 1;
  }

 private:
  cudaKernelNodeParams with(int* word) {
    argument_ = word;
    arguments_[0] = &argument_;
    cudaKernelNodeParams parameters{};
    parameters.func = reinterpret_cast<void*>(nothing);
    parameters.gridDim = dim3(1);
    parameters.blockDim = dim3(1);
    parameters.kernelParams = arguments_;
    return parameters;
  }

  DeviceBuffer word_;
  int* argument_ = nullptr;
  void* arguments_[1] = {};
  bool turn_ = false;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t exec_ = nullptr;
  std::vector<cudaGraphNode_t> nodes_;
};

class Launches {
 public:
  Launches() {
    event_.record(stream_);
    stream_.wait();
  }
  Row measure(const Case& the_case, const Options& options) {
    const auto op = the_case.text("op");
    const std::int64_t nodes = the_case.number("nodes");
    Row row;
    row.impl = "runtime";
    row.checked = true;
    Options more = options;
    more.samples = options.samples * 10;
    if (op == "graph_launch" || op == "graph_update") return measure_graph(row, op == "graph_launch", nodes, more);
    if (op == "empty") {
      row.batch = 200;
      gather(row, more, [&] {
        return gated(gate_, stream_, [&] {
          for (int i = 0; i < 200; ++i) launch();
        });
      });
    } else if (op == "launch_sync") {
      gather(row, more, [&] { return timed_with_waits([&] { return launch_and_wait(); }); });
    } else {
      row.batch = kCalls;
      gather(row, more, [&] { return host_time(stream_, [&] { call(op); }); });
    }
    return row;
  }

 private:
  void launch() const {
    nothing<<<1, 1, 0, stream_>>>(nullptr);
    MOESIM_LAUNCHED();
  }
  double launch_and_wait() const {
    const double start = now_us();
    launch();
    stream_.wait();
    return now_us() - start;
  }
  void call(const std::string& op) const {
    if (op == "submit") launch();
    else if (op == "event_record") event_.record(stream_);
    else if (op == "event_query") event_.done();
    else if (op == "stream_wait") MOESIM_CUDA(cudaStreamWaitEvent(stream_, event_));
    else throw std::runtime_error("unknown op " + op);
  }
  Row measure_graph(Row& row, bool launches, std::int64_t nodes, const Options& options) {
    Chain chain(nodes, stream_);
    gather(row, options, [&] {
      if (launches) return gated(gate_, stream_, [&] { chain.launch(stream_); });
      return timed_with_waits([&] {
        const double start = now_us();
        chain.update();
        return now_us() - start;
      });
    });
    row.checked = chain.right(stream_);
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  }

  Stream stream_;
  Event event_;
  Gate gate_;
};

}  // namespace

void run_launch(const Cases& cases, const Options& options) {
  Launches launches;
  for_each_case(cases, [&](const Case& the_case) { return launches.measure(the_case, options); });
}

}  // namespace moesim
