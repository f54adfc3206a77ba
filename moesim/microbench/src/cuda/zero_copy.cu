// `zero_copy`: weights that stay in pinned host memory. gemv multiplies them from there, sm copies them by a kernel, ce
// by the copy engine.
//
// case: op=gemv|sm|ce bytes=N (of bf16 weights, rows of 2048).
#include "benches.cuh"
#include "ffn.cuh"
#include "hbm.cuh"

namespace moesim {
namespace {

constexpr std::int64_t kColumns = 2048;
constexpr std::int64_t kArena = 256ll << 20;

class HostWeights {
 public:
  HostWeights(std::int64_t largest, std::uint64_t seed)
      : data_(std::max(kArena, 2 * largest), cudaHostAllocMapped), x_(2 * kColumns), y_(largest / kColumns), target_(largest) {
    Random random(seed);
    random.fill_bf16(data_.at<std::uint16_t>(), static_cast<std::size_t>(data_.bytes() / 2), 0.02f);
    fill_bf16(x_.at(), kColumns, 1, seed);
    MOESIM_CUDA(cudaDeviceSynchronize());
    void* on_device = nullptr;
    MOESIM_CUDA(cudaHostGetDevicePointer(&on_device, data_.at(), 0));
    seen_ = static_cast<unsigned char*>(on_device);
  }

  Row measure(const Case& the_case, const Options& options) {
    const std::int64_t bytes = the_case.number("bytes") / (2 * kColumns) * 2 * kColumns;
    Row row;
    row.impl = the_case.text("op");
    row.bytes = static_cast<double>(bytes);
    row.flops = row.impl == "gemv" ? static_cast<double>(bytes) : 0;
    gather_batches(row, options, 1, [&](std::int64_t batch) {
      return gated(gate_, stream_, [&] {
        for (std::int64_t i = 0; i < batch; ++i) run(row.impl, bytes);
      });
    });
    row.checked = right(row.impl, bytes);
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  }

 private:
  void run(const std::string& op, std::int64_t bytes) {
    at_ = at_ + 2 * bytes > data_.bytes() ? 0 : at_ + bytes;
    if (op == "sm") launch_copy(target_.at(), seen_ + at_, bytes, stream_);
    else if (op == "ce") MOESIM_CUDA(cudaMemcpyAsync(target_.at(), data_.at(at_), bytes, cudaMemcpyHostToDevice, stream_));
    else launch_down(Format::kBf16, choice_for(1), weights(bytes), group_.groups(), x_.at<std::uint16_t>(),
                     y_.at<std::uint16_t>(), stream_);
  }
  Matrices weights(std::int64_t bytes) const {
    return {seen_ + at_, nullptr, 0, 0, static_cast<int>(bytes / 2 / kColumns), static_cast<int>(kColumns)};
  }
  bool right(const std::string& op, std::int64_t bytes) {
    set_bytes(target_.at(), 0xFF, target_.bytes());
    set_bytes(y_.at(), 0xFF, y_.bytes());
    run(op, bytes);
    stream_.wait();
    if (op != "gemv") return device_checksum(target_.at(), bytes) == checksum(data_.at(at_), static_cast<std::size_t>(bytes));
    std::vector<std::uint16_t> x(kColumns), y(static_cast<std::size_t>(bytes / 2 / kColumns));
    MOESIM_CUDA(cudaMemcpy(x.data(), x_.at(), x.size() * 2, cudaMemcpyDeviceToHost));
    MOESIM_CUDA(cudaMemcpy(y.data(), y_.at(), y.size() * 2, cudaMemcpyDeviceToHost));
    double difference = 0, reference = 0;
    for (std::size_t row = 0; row < y.size(); row += 61) {
      double expected = 0;
      const auto* weight = data_.at<std::uint16_t>(at_) + row * kColumns;
      for (std::int64_t k = 0; k < kColumns; ++k)
        expected += static_cast<double>(float_from_bf16(weight[k])) * float_from_bf16(x[static_cast<std::size_t>(k)]);
      const double found = float_from_bf16(y[row]);
      difference += (found - expected) * (found - expected);
      reference += expected * expected;
    }
    return difference <= kFfnTolerance * kFfnTolerance * reference;
  }

  PinnedBuffer data_;
  DeviceBuffer x_, y_, target_;
  TokenGroups group_{{1}, 1};
  unsigned char* seen_ = nullptr;
  std::int64_t at_ = 0;
  Stream stream_;
  Gate gate_;
};

}  // namespace

void run_zero_copy(const Cases& cases, const Options& options) {
  std::int64_t largest = 0;
  for (const auto& the_case : cases) largest = std::max(largest, the_case.number("bytes"));
  HostWeights weights(largest, options.seed);
  for_each_case(cases, [&](const Case& the_case) { return weights.measure(the_case, options); });
}

}  // namespace moesim
