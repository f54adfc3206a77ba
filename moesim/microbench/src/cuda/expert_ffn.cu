// `expert_ffn`: one expert's feed-forward layer, by tokens, shape and format. Weights rotate among experts that together
// exceed four times the L2, so each is read from GPU memory.
//
// case: impl=own|cublas format=bf16|fp8|int4|int4_separate hidden=N inter=N tokens=N. int4_separate unpacks the expert to
// bf16 and multiplies that; the others multiply as they unpack.
#include "benches.cuh"
#include "cublas.cuh"
#include "ffn.cuh"
#include "fragments.cuh"

namespace moesim {
namespace {

__global__ void activate(const std::uint16_t* gate, std::uint16_t* up, std::int64_t count) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < count; i += stride)
    up[i] = bf16_from_float(silu(float_from_bf16(gate[i])) * float_from_bf16(up[i]));
}

class Layer {
 public:
  Layer(const Case& the_case, const Experts& experts, const Cublas* cublas, std::uint64_t seed)
      : experts_(experts),
        cublas_(cublas),
        separate_(the_case.is("format", "int4_separate")),
        tokens_(the_case.number("tokens")),
        choice_(choice_for(tokens_)),
        groups_({tokens_}, choice_.tile_tokens),
        x_(2 * tokens_ * experts.hidden()),
        middle_(2 * tokens_ * experts.inter()),
        gate_(cublas != nullptr ? middle_.bytes() : 0),
        y_(x_.bytes()),
        unpacked_(separate_ ? 6 * experts.hidden() * experts.inter() : 0) {
    fill_bf16(x_.at(), tokens_ * experts.hidden(), 1, seed);
    MOESIM_CUDA(cudaMemset(middle_.at(), 0xFF, middle_.bytes()));
    MOESIM_CUDA(cudaMemset(y_.at(), 0xFF, y_.bytes()));
    MOESIM_CUDA(cudaDeviceSynchronize());
  }

  void run(cudaStream_t stream) {
    current_ = (current_ + 1) % experts_.count();
    if (cublas_ != nullptr) run_cublas(stream);
    else if (separate_) run_separate(stream);
    else run_own(stream);
  }
  int operations() const { return cublas_ != nullptr ? 4 : separate_ ? 5 : 2; }

  Row described() const {
    Row row;
    row.impl = cublas_ != nullptr ? "cublas" : choice_.name();
    const auto shape = static_cast<double>(experts_.hidden() * experts_.inter());
    row.flops = 6 * shape * static_cast<double>(tokens_);
    row.bytes = static_cast<double>(experts_.bytes_each() + x_.bytes() + y_.bytes()) + (separate_ ? 12 * shape : 0);
    row.values.emplace_back("token_step", cublas_ != nullptr ? 1 : choice_.tile_tokens);
    row.values.emplace_back("experts_rotated", static_cast<double>(experts_.count()));
    if (cublas_ != nullptr) row.values.emplace_back("cublas_version", cublas_->version());
    return row;
  }
  double error(std::uint64_t seed) const {
    const auto token = static_cast<std::int64_t>(mixed(seed) % static_cast<std::uint64_t>(tokens_));
    return ffn_error(experts_, current_, token, x_.at<std::uint16_t>(), y_.at<std::uint16_t>());
  }

 private:
  void run_own(cudaStream_t stream) {
    const auto groups = groups_.groups();
    const Format format = experts_.format();
    launch_gate_up(format, choice_, experts_.matrices(0, current_), experts_.matrices(1, current_), groups,
                   x_.at<std::uint16_t>(), middle_.at<std::uint16_t>(), stream);
    launch_down(format, choice_, experts_.matrices(2, current_), groups, middle_.at<std::uint16_t>(),
                y_.at<std::uint16_t>(), stream);
  }

  void run_separate(cudaStream_t stream) {
    Matrices plain[3];
    for (int which = 0; which < 3; ++which) {
      const Matrices packed = experts_.matrices(which, current_);
      auto* out = unpacked_.at<std::uint16_t>(2 * which * experts_.hidden() * experts_.inter());
      launch_unpack(experts_.format(), packed, out, stream);
      plain[which] = {reinterpret_cast<unsigned char*>(out), nullptr, 0, 0, packed.rows, packed.columns};
    }
    const auto groups = groups_.groups();
    launch_gate_up(Format::kBf16, choice_, plain[0], plain[1], groups, x_.at<std::uint16_t>(),
                   middle_.at<std::uint16_t>(), stream);
    launch_down(Format::kBf16, choice_, plain[2], groups, middle_.at<std::uint16_t>(), y_.at<std::uint16_t>(), stream);
  }

  void run_cublas(cudaStream_t stream) {
    const int m = static_cast<int>(tokens_), h = static_cast<int>(experts_.hidden()), i = static_cast<int>(experts_.inter());
    cublas_->multiply(x_.at(), experts_.matrices(0, current_).weights, gate_.at(), m, i, h, stream);
    cublas_->multiply(x_.at(), experts_.matrices(1, current_).weights, middle_.at(), m, i, h, stream);
    const std::int64_t count = tokens_ * experts_.inter();
    const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(2048, (count + 255) / 256));
    activate<<<blocks, 256, 0, stream>>>(gate_.at<std::uint16_t>(), middle_.at<std::uint16_t>(), count);
    MOESIM_LAUNCHED();
    cublas_->multiply(middle_.at(), experts_.matrices(2, current_).weights, y_.at(), m, h, i, stream);
  }

  const Experts& experts_;
  const Cublas* cublas_;
  bool separate_;
  std::int64_t tokens_;
  Choice choice_;
  TokenGroups groups_;
  DeviceBuffer x_, middle_, gate_, y_, unpacked_;
  std::int64_t current_ = 0;
};

// The experts of the last case, kept while the next one wants the same.
class Store {
 public:
  const Experts& take(const Case& the_case, std::uint64_t seed) {
    const Format format = format_named(the_case.text("format"));
    const std::int64_t hidden = the_case.number("hidden"), inter = the_case.number("inter");
    if (!kept_ || kept_->format() != format || kept_->hidden() != hidden || kept_->inter() != inter) {
      kept_.reset();
      const std::int64_t bytes = weight_bytes(format, 3 * hidden * inter);
      const std::int64_t count = std::max<std::int64_t>(2, 4 * l2_bytes() / bytes + 1);
      kept_ = std::make_unique<Experts>(format, hidden, inter, count, seed);
    }
    return *kept_;
  }

 private:
  std::unique_ptr<Experts> kept_;
};

}  // namespace

void run_expert_ffn(const Cases& cases, const Options& options) {
  Store store;
  std::unique_ptr<Cublas> cublas;
  const Stream stream;
  Gate gate;
  for_each_case(cases, [&](const Case& the_case) {
    const bool wants_cublas = the_case.is("impl", "cublas");
    if (wants_cublas && !cublas) cublas = std::make_unique<Cublas>();
    Layer layer(the_case, store.take(the_case, options.seed), wants_cublas ? cublas.get() : nullptr, options.seed);
    Row row = layer.described();
    layer.run(stream);  // whatever is set up at a first launch must not wait behind a gate
    stream.wait();
    gather_batches(row, options, layer.operations(), [&](std::int64_t batch) {
      return gated(gate, stream, [&] {
        for (std::int64_t i = 0; i < batch; ++i) layer.run(stream);
      });
    });
    const double error = layer.error(options.seed);
    row.values.emplace_back("relative_error", error);
    row.checked = error < kFfnTolerance;
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  });
}

}  // namespace moesim
