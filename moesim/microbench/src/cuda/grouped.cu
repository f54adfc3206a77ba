// `grouped`: several distinct experts, each with its own tokens: one launch for all, one launch each, or a graph of those.
//
// case: mode=one|many|graph spread=NAME groups=N counts=N,N,... hidden=N inter=N. Each operation takes other experts, so
// that together they exceed four times the L2.
#include "benches.cuh"
#include "ffn.cuh"

namespace moesim {
namespace {

class Batch {
 public:
  Batch(const Case& the_case, const Experts& experts, std::uint64_t seed)
      : experts_(experts), counts_(the_case.numbers("counts")), rounds_(experts.count() / size()) {
    std::int64_t tokens = 0, most = 0;
    for (const auto count : counts_) tokens += count, most = std::max(most, count);
    choice_ = choice_for((tokens + size() - 1) / size());
    all_ = std::make_unique<TokenGroups>(counts_, choice_.tile_tokens);
    for (const auto count : counts_) each_.emplace_back(std::vector<std::int64_t>{count}, choice_.tile_tokens);
    x_ = DeviceBuffer(2 * tokens * experts.hidden());
    y_ = DeviceBuffer(x_.bytes());
    middle_ = DeviceBuffer(2 * tokens * experts.inter());
    fill_bf16(x_.at(), tokens * experts.hidden(), 1, seed);
    MOESIM_CUDA(cudaMemset(y_.at(), 0xFF, y_.bytes()));
    MOESIM_CUDA(cudaDeviceSynchronize());
  }

  std::int64_t size() const { return static_cast<std::int64_t>(counts_.size()); }
  void turn() { round_ = (round_ + 1) % rounds_; }

  void run_one(cudaStream_t stream) const {
    launch(all_->groups(), first(), x_.at<std::uint16_t>(), middle_.at<std::uint16_t>(), y_.at<std::uint16_t>(), stream);
  }
  void run_many(cudaStream_t stream) const {
    std::int64_t token = 0;
    for (std::size_t e = 0; e < counts_.size(); ++e) {
      launch(each_[e].groups(), first() + static_cast<std::int64_t>(e), x_.at<std::uint16_t>(2 * token * experts_.hidden()),
             middle_.at<std::uint16_t>(2 * token * experts_.inter()),
             y_.at<std::uint16_t>(2 * token * experts_.hidden()), stream);
      token += counts_[e];
    }
  }

  void describe(Row& row) const {
    double tokens = 0;
    for (const auto count : counts_) tokens += static_cast<double>(count);
    row.impl = choice_.name();
    row.flops = 6.0 * static_cast<double>(experts_.hidden() * experts_.inter()) * tokens;
    row.bytes = static_cast<double>(experts_.bytes_each() * size() + x_.bytes() + y_.bytes());
    row.values.emplace_back("token_step", choice_.tile_tokens);
  }
  // Of the first and the last token.
  double error() const {
    const std::int64_t last = x_.bytes() / 2 / experts_.hidden() - 1;
    const auto *x = x_.at<std::uint16_t>(), *y = y_.at<std::uint16_t>();
    return std::max(ffn_error(experts_, first(), 0, x, y), ffn_error(experts_, first() + size() - 1, last, x, y));
  }

 private:
  std::int64_t first() const { return round_ * size(); }
  void launch(const Groups& groups, std::int64_t expert, const std::uint16_t* x, std::uint16_t* middle, std::uint16_t* y,
              cudaStream_t stream) const {
    const Format format = experts_.format();
    launch_gate_up(format, choice_, experts_.matrices(0, expert), experts_.matrices(1, expert), groups, x, middle, stream);
    launch_down(format, choice_, experts_.matrices(2, expert), groups, middle, y, stream);
  }

  const Experts& experts_;
  std::vector<std::int64_t> counts_;
  std::int64_t rounds_, round_ = 0;
  Choice choice_{};
  std::unique_ptr<TokenGroups> all_;
  std::vector<TokenGroups> each_;
  DeviceBuffer x_, middle_, y_;
};

Timed once(Batch& batch, const std::string& mode, Gate& gate, cudaStream_t stream) {
  batch.turn();
  if (mode == "one") return gated(gate, stream, [&] { batch.run_one(stream); });
  if (mode == "many") return gated(gate, stream, [&] { batch.run_many(stream); });
  const Graph graph(stream, [&] { batch.run_many(stream); });
  return gated(gate, stream, [&] { graph.launch(stream); });
}

}  // namespace

void run_grouped(const Cases& cases, const Options& options) {
  std::unique_ptr<Experts> experts;
  const Stream stream;
  Gate gate;
  for_each_case(cases, [&](const Case& the_case) {
    const std::int64_t hidden = the_case.number("hidden"), inter = the_case.number("inter");
    const auto groups = static_cast<std::int64_t>(the_case.numbers("counts").size());
    const std::int64_t cold = 4 * l2_bytes() / (6 * hidden * inter) + 1;
    const std::int64_t wanted = (std::max(cold, 2 * groups) + groups - 1) / groups * groups;
    if (!experts || experts->hidden() != hidden || experts->inter() != inter || experts->count() < wanted) {
      experts.reset();
      experts = std::make_unique<Experts>(Format::kBf16, hidden, inter, std::max<std::int64_t>(wanted, 256), options.seed);
    }
    Batch batch(the_case, *experts, options.seed);
    Row row;
    batch.describe(row);
    batch.run_one(stream);  // whatever is set up at a first launch must not wait behind a gate
    stream.wait();
    gather(row, options, [&] { return once(batch, the_case.text("mode"), gate, stream); });
    const double error = batch.error();
    row.values.emplace_back("relative_error", error);
    row.checked = error < kFfnTolerance;
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  });
}

}  // namespace moesim
