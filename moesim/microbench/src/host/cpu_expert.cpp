// `cpu_expert`: one expert's feed-forward layer on the CPU, by tokens and threads.
//
// case: impl=avx512_bf16|avx2|amx_bf16|amx_int8|avx512_bf16_int4|avx2_int4 hidden=N inter=N tokens=N threads=N.
// Weights rotate among experts that together exceed four times the last-level cache, so each is read from DRAM.
#include <algorithm>
#include <cmath>

#include "benches.h"
#include "expert.h"
#include "pool.h"

namespace moesim {
namespace {

constexpr double kTolerance = 0.03;  // of the outputs' root mean square: bf16 holds 8 bits, int8 activations 7

// Experts of one shape and format that together exceed four times the last-level cache.
struct Experts {
  std::string format;
  std::int64_t hidden = 0, inter = 0;
  std::vector<Expert> all;

  // Makes them anew where the case needs others than the last one did.
  void prepare(const std::string& wanted, std::int64_t wanted_hidden, std::int64_t wanted_inter, Random& random) {
    if (format == wanted && hidden == wanted_hidden && inter == wanted_inter) return;
    all.clear();
    format = wanted, hidden = wanted_hidden, inter = wanted_inter;
    const std::int64_t bytes = Expert::bytes(format, hidden, inter);
    const std::int64_t copies = std::max<std::int64_t>(2, 4 * last_level_cache() / bytes + 1);
    if (copies * bytes > available_memory() / 2) {
      format.clear();
      throw Skip("not enough memory for the experts");
    }
    for (std::int64_t i = 0; i < copies; ++i) all.emplace_back(format, hidden, inter, random);
  }
};

class Layer {
 public:
  Layer(const Case& the_case, Experts& experts, Random& random)
      : product_(make_product(the_case.text("impl"))),
        hidden_(the_case.number("hidden")),
        inter_(the_case.number("inter")),
        tokens_(the_case.number("tokens")),
        random_(random),
        experts_(experts.all) {
    experts.prepare(product_->format(), hidden_, inter_, random);
    x_ = Buffer(2 * tokens_ * hidden_, random_);
    random_.fill_bf16(x_.at<std::uint16_t>(), static_cast<std::size_t>(tokens_ * hidden_), 1);
    middle_ = Buffer(2 * tokens_ * inter_, random_);
    gate_ = Buffer(4 * tokens_ * inter_, random_);
    up_ = Buffer(4 * tokens_ * inter_, random_);
    out_ = Buffer(4 * tokens_ * hidden_, random_);
    packed_ = Buffer(std::max(product_->packed_bytes(tokens_, hidden_), product_->packed_bytes(tokens_, inter_)), random_);
  }

  Row measure(const Options& options, Pool& pool) {
    Row row;
    const auto weights = static_cast<double>(3 * hidden_ * inter_);
    row.bytes = static_cast<double>(Expert::bytes(product_->format(), hidden_, inter_)) +
                static_cast<double>(2 * tokens_ * hidden_ + 4 * tokens_ * hidden_);
    row.flops = 2 * weights * static_cast<double>(tokens_);
    pool.run([this](int) { product_->begin_thread(); });
    gather(row, options, [&] {
      current_ = (current_ + 1) % experts_.size();
      return pool.run([&](int thread) { forward(experts_[current_], pool, thread); });
    });
    pool.run([this](int) { product_->end_thread(); });
    row.values.emplace_back("experts_rotated", static_cast<double>(experts_.size()));
    const double error = error_of_a_token();
    row.values.emplace_back("relative_error", error);
    row.checked = error < kTolerance;
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  }

 private:
  void forward(const Expert& expert, Pool& pool, int thread) {
    pack(x_.at<std::uint16_t>(), hidden_, pool, thread);
    const Part rows = part_of(inter_, thread, pool.threads(), product_->row_step());
    product_->multiply(expert.gate(), rows.begin, rows.end, packed_.at(), tokens_, gate_.at<float>(), inter_);
    product_->multiply(expert.up(), rows.begin, rows.end, packed_.at(), tokens_, up_.at<float>(), inter_);
    activate(rows);
    pool.meet();
    pack(middle_.at<std::uint16_t>(), inter_, pool, thread);
    const Part outputs = part_of(hidden_, thread, pool.threads(), product_->row_step());
    product_->multiply(expert.down(), outputs.begin, outputs.end, packed_.at(), tokens_, out_.at<float>(), hidden_);
  }

  void pack(const std::uint16_t* x, std::int64_t columns, Pool& pool, int thread) {
    const Part part = part_of(tokens_, thread, pool.threads(), product_->token_step());
    if (part.begin < part.end) product_->pack(x, tokens_, columns, part.begin, part.end, packed_.at());
    pool.meet();
  }

  void activate(Part rows) {
    for (std::int64_t token = 0; token < tokens_; ++token)
      for (std::int64_t i = token * inter_ + rows.begin; i < token * inter_ + rows.end; ++i) {
        const float gate = gate_.at<float>()[i];
        middle_.at<std::uint16_t>()[i] = bf16_from_float(gate / (1 + std::exp(-gate)) * up_.at<float>()[i]);
      }
  }

  // Against float64, for one token, at every 61st output.
  double error_of_a_token() {
    const Expert& expert = experts_[current_];
    const auto token = static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>(tokens_));
    std::vector<double> middle(static_cast<std::size_t>(inter_));
    std::vector<double> x(static_cast<std::size_t>(hidden_));
    for (std::int64_t k = 0; k < hidden_; ++k)
      x[static_cast<std::size_t>(k)] = float_from_bf16(x_.at<std::uint16_t>()[token * hidden_ + k]);
    for (std::int64_t row = 0; row < inter_; ++row) {
      const double gate = dot(expert.gate(), row, x), up = dot(expert.up(), row, x);
      middle[static_cast<std::size_t>(row)] = gate / (1 + std::exp(-gate)) * up;
    }
    double difference = 0, reference = 0;
    for (std::int64_t row = 0; row < hidden_; row += 61) {
      const double expected = dot(expert.down(), row, middle);
      const double found = out_.at<float>()[token * hidden_ + row];
      difference += (found - expected) * (found - expected);
      reference += expected * expected;
    }
    return std::sqrt(difference / std::max(reference, 1e-300));
  }

  double dot(const Matrix& matrix, std::int64_t row, const std::vector<double>& x) const {
    double sum = 0;
    for (std::int64_t k = 0; k < matrix.columns; ++k)
      sum += weight_as_double(product_->format(), matrix, row, k) * x[static_cast<std::size_t>(k)];
    return sum;
  }

  std::unique_ptr<Product> product_;
  std::int64_t hidden_, inter_, tokens_;
  Random& random_;
  const std::vector<Expert>& experts_;
  std::size_t current_ = 0;
  Buffer x_, middle_, gate_, up_, out_, packed_;
};

}  // namespace

void run_cpu_expert(const std::vector<Case>& cases, const Options& options) {
  Random random(options.seed);
  Experts experts;
  for_each_case(cases, [&](const Case& the_case) {
    Pool pool(static_cast<int>(the_case.number("threads")));
    Layer layer(the_case, experts, random);
    Row row = layer.measure(options, pool);
    row.impl = the_case.text("impl");
    return row;
  });
}

}  // namespace moesim
