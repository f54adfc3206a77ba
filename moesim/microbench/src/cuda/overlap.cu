// `overlap`: copies while kernels run, and kernels while copies run; alone, in pairs, and copies both ways with a kernel.
//
// case: time=copy|kernel kernel=none|hbm|gemm|tiny copy=none|h2d|d2h|both bytes=N. hbm streams GPU memory, gemm keeps
// the matrix units busy from the L2, tiny is a graph of many kernels of a few blocks. time=copy, copy=both times h2d.
#include <map>

#include "benches.cuh"
#include "ffn.cuh"
#include "hbm.cuh"

namespace moesim {
namespace {

constexpr int kTimed = 4;            // operations that are timed
constexpr int kMostBackground = 250;  // of one kind; all of them stay below what a gate holds
constexpr int kMostGraphs = 60;       // one takes more of the queue than a kernel does

class Kernels {
 public:
  explicit Kernels(std::uint64_t seed)
      : data_(512ll << 20),
        totals_(4),
        experts_(Format::kBf16, 1024, 1024, 1, seed),
        choice_(choice_for(kTokens)),
        groups_({kTokens}, choice_.tile_tokens),
        x_(2 * kTokens * 1024),
        y_(x_.bytes()) {
    fill_random(data_.at(), data_.bytes(), seed);
    fill_bf16(x_.at(), kTokens * 1024, 1, seed);
    MOESIM_CUDA(cudaDeviceSynchronize());
    const Stream stream;
    tiny_ = std::make_unique<Graph>(stream, [&] {
      for (int i = 0; i < kTiny; ++i) launch_read(data_.at(), 64 << 10, totals_.at<std::uint32_t>(), stream);
    });
    for (const char* kind : {"hbm", "gemm", "tiny"}) {
      clear();
      launch(kind, stream);
      stream.wait();
      alone_[kind] = result(kind);
    }
  }
  void clear() const {
    set_bytes(y_.at(), 0xFF, y_.bytes());
    set_bytes(totals_.at(), 0, 4);
  }
  // Whether `launches` since `clear`, beside whatever ran, came to what they come to alone.
  bool right(const std::string& kind, int launches) const {
    if (kind == "none" || launches == 0) return true;
    const std::uint64_t once = alone_.at(kind);
    return result(kind) == (kind == "gemm" ? once : static_cast<std::uint32_t>(once * static_cast<std::uint64_t>(launches)));
  }
  void launch(const std::string& kind, cudaStream_t stream) const {
    if (kind == "hbm") launch_read(data_.at(), data_.bytes(), totals_.at<std::uint32_t>(), stream);
    else if (kind == "tiny") tiny_->launch(stream);
    else if (kind == "gemm")
      launch_down(Format::kBf16, choice_, experts_.matrices(2), groups_.groups(), x_.at<std::uint16_t>(),
                  y_.at<std::uint16_t>(), stream);
  }

 private:
  static constexpr std::int64_t kTokens = 16384;
  static constexpr int kTiny = 400;
  // gemm: the checksum of its output, the same each time; others: the sum of all words read, modulo 2^32.
  std::uint64_t result(const std::string& kind) const {
    if (kind == "gemm") return device_checksum(y_.at(), y_.bytes());
    std::uint32_t total = 0;
    MOESIM_CUDA(cudaMemcpy(&total, totals_.at(), 4, cudaMemcpyDeviceToHost));
    return total;
  }
  DeviceBuffer data_, totals_;
  Experts experts_;
  Choice choice_;
  TokenGroups groups_;
  DeviceBuffer x_, y_;
  std::unique_ptr<Graph> tiny_;
  std::map<std::string, std::uint64_t> alone_;
};

// Copies one way, over and over between the same two buffers.
class Copier {
 public:
  Copier(bool up, std::int64_t bytes, std::uint64_t seed) : up_(up), bytes_(bytes), host_(bytes), device_(bytes) {
    Random(seed).fill(host_.at(), static_cast<std::size_t>(bytes));
    fill_random(device_.at(), bytes, seed);
    MOESIM_CUDA(cudaDeviceSynchronize());
  }
  void copy(cudaStream_t stream) const {
    if (up_) MOESIM_CUDA(cudaMemcpyAsync(device_.at(), host_.at(), bytes_, cudaMemcpyHostToDevice, stream));
    else MOESIM_CUDA(cudaMemcpyAsync(host_.at(), device_.at(), bytes_, cudaMemcpyDeviceToHost, stream));
  }
  bool right() const {
    return device_checksum(device_.at(), bytes_) == checksum(host_.at(), static_cast<std::size_t>(bytes_));
  }

 private:
  bool up_;
  std::int64_t bytes_;
  PinnedBuffer host_;
  DeviceBuffer device_;
};

class Overlap {
 public:
  Overlap(const Case& the_case, const Kernels& kernels, std::uint64_t seed)
      : kernels_(kernels),
        kernel_(the_case.text("kernel")),
        copy_(the_case.text("copy")),
        times_copy_(the_case.is("time", "copy")),
        bytes_(the_case.number("bytes")),
        up_(true, the_case.number("bytes"), seed),
        down_(false, the_case.number("bytes"), seed + 1) {}

  Row measure(const Options& options) {
    Row row;
    row.impl = times_copy_ ? "ce" : "own";
    row.batch = kTimed;
    row.bytes = times_copy_ ? static_cast<double>(bytes_) : 0;
    plan_background();
    bool covered = true;
    gather(row, options, [&] {
      const Timed timed = once();
      covered = covered && !background_ended_first_;
      return timed;
    });
    if (!covered) row.flags.push_back("not_covered");
    kernels_.clear();
    once();
    row.checked = copies_right() && kernels_.right(kernel_, times_copy_ ? num_kernels_ : kTimed + 1);
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  }

 private:
  bool copies_right() const { return (!goes("h2d") || up_.right()) && (!goes("d2h") || down_.right()); }
  bool goes(const char* way) const { return copy_ == way || copy_ == "both"; }

  // What is timed, once.
  void timed_one(cudaStream_t stream) const {
    if (!times_copy_) kernels_.launch(kernel_, stream);
    else (copy_ == "d2h" ? down_ : up_).copy(stream);
  }
  // How many companions of each kind last longer than what is timed, slowed down as it may be.
  void plan_background() {
    const double timed_us = alone([&] { timed_one(stream_); });
    const auto count = [&](double each_us) {
      const double most = kernel_ == "tiny" ? kMostGraphs : kMostBackground;
      return static_cast<int>(std::clamp(3.0 * (kTimed + 1) * timed_us / each_us + 4, 4.0, most));
    };
    if (times_copy_ && kernel_ != "none") num_kernels_ = count(alone([&] { kernels_.launch(kernel_, stream_); }));
    if (background_up()) num_up_ = count(alone([&] { up_.copy(stream_); }));
    if (background_down()) num_down_ = count(alone([&] { down_.copy(stream_); }));
  }
  bool background_up() const { return !times_copy_ && goes("h2d"); }
  bool background_down() const { return goes("d2h") && (!times_copy_ || copy_ == "both"); }

  template <typename Work>
  double alone(Work work) {
    work();
    stream_.wait();
    return std::max(1.0, gated(gate_, stream_, work).us);
  }

  Timed once() {
    const Timed timed = gated(
        gate_, stream_,
        [&] {
          opened_.record(stream_);
          start(kernel_stream_, num_kernels_, kernels_end_, [&] { kernels_.launch(kernel_, kernel_stream_); });
          start(up_stream_, num_up_, up_end_, [&] { up_.copy(up_stream_); });
          start(down_stream_, num_down_, down_end_, [&] { down_.copy(down_stream_); });
          timed_one(stream_);
        },
        [&] {
          for (int i = 0; i < kTimed; ++i) timed_one(stream_);
        });
    background_ended_first_ = (num_kernels_ > 0 && kernels_end_.done()) || (num_up_ > 0 && up_end_.done()) ||
                              (num_down_ > 0 && down_end_.done());
    MOESIM_CUDA(cudaDeviceSynchronize());
    return timed;
  }
  template <typename Work>
  void start(cudaStream_t stream, int count, const Event& end, Work work) {
    if (count == 0) return;
    MOESIM_CUDA(cudaStreamWaitEvent(stream, opened_));
    for (int i = 0; i < count; ++i) work();
    end.record(stream);
  }

  const Kernels& kernels_;
  std::string kernel_, copy_;
  bool times_copy_;
  std::int64_t bytes_;
  Copier up_, down_;
  int num_kernels_ = 0, num_up_ = 0, num_down_ = 0;
  bool background_ended_first_ = false;
  Stream stream_, kernel_stream_, up_stream_, down_stream_;
  Event opened_{false}, kernels_end_{false}, up_end_{false}, down_end_{false};
  Gate gate_;
};

}  // namespace

void run_overlap(const Cases& cases, const Options& options) {
  const Kernels kernels(options.seed);
  for_each_case(cases, [&](const Case& the_case) {
    Overlap overlap(the_case, kernels, options.seed);
    return overlap.measure(options);
  });
}

}  // namespace moesim
