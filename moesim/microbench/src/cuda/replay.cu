// `replay`: a small decode loop with a real expert cache, real copies and real expert kernels, which follows recorded
// routing token by token and says what happened in each layer. The simulator has to predict it.
//
// case: slots=N prefetch=0|1 chunk=N hidden=N inter=N steps=N. One sample is the whole loop from a cold cache; labels and
// stalls are those of the last one. A thread of its own copies, one expert at a time (see decode_cache.h).
#include <atomic>
#include <cmath>
#include <fstream>
#include <mutex>
#include <thread>

#include "benches.cuh"
#include "decode_cache.h"
#include "ffn.cuh"
#include "index_maps.h"
#include "router.cuh"

namespace moesim {
namespace {

// The routing that the loop follows: ids[token][layer][rank].
struct Routing {
  explicit Routing(const std::string& path) {
    std::ifstream file(path);
    if (!(file >> layers >> experts >> k >> tokens)) throw Skip("the routing file can't be read (--routing)");
    ids.resize(static_cast<std::size_t>(tokens * layers * k));
    for (auto& id : ids)
      if (!(file >> id)) throw Skip("the routing file is cut short");
  }
  std::int64_t layers = 0, experts = 0, k = 0, tokens = 0;
  std::vector<int> ids;
};

// Weights of all experts in pinned host memory: gate, up and down of each in one piece.
class HostExperts {
 public:
  HostExperts(std::int64_t count, std::int64_t hidden, std::int64_t inter, std::uint64_t seed)
      : hidden_(hidden), inter_(inter), each_(6 * hidden * inter), data_(each_ * count) {
    Random random(seed);
    const float scale = 1.7f / std::sqrt(static_cast<float>(hidden));
    random.fill_bf16(data_.at<std::uint16_t>(), static_cast<std::size_t>(each_ / 2), scale);
    // The others are the first one, rotated: all different, at the speed of memcpy.
    for (std::int64_t expert = 1; expert < count; ++expert) {
      const std::int64_t turn = expert * 4096 % each_;
      memcpy(data_.at(expert * each_), data_.at(turn), static_cast<std::size_t>(each_ - turn));
      memcpy(data_.at((expert + 1) * each_ - turn), data_.at(), static_cast<std::size_t>(turn));
    }
  }
  std::int64_t each() const { return each_; }
  unsigned char* of(std::int64_t key) const { return data_.at(key * each_); }
  // In float64, for one token.
  std::vector<double> layer(std::int64_t key, const std::vector<double>& x) const {
    const auto* weights = reinterpret_cast<const std::uint16_t*>(of(key));
    const std::int64_t matrix = hidden_ * inter_;
    std::vector<double> middle, y;
    for (std::int64_t row = 0; row < inter_; ++row) {
      const double gate = dot(weights + row * hidden_, x), up = dot(weights + matrix + row * hidden_, x);
      middle.push_back(gate / (1 + std::exp(-gate)) * up);
    }
    for (std::int64_t row = 0; row < hidden_; ++row) y.push_back(dot(weights + 2 * matrix + row * inter_, middle));
    return y;
  }

 private:
  static double dot(const std::uint16_t* weights, const std::vector<double>& x) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(float_from_bf16(weights[i])) * x[i];
    return sum;
  }
  std::int64_t hidden_, inter_, each_;
  PinnedBuffer data_;
};

// The copies' thread: as long as it lives it starts what the cache has waiting, one expert at a time.
class Copier {
 public:
  Copier(DecodeCache& cache, std::mutex& mutex, const HostExperts& experts, const DeviceBuffer& slots, std::int64_t chunk)
      : cache_(cache), mutex_(mutex), experts_(experts), slots_(slots), chunk_(chunk > 0 ? chunk : experts.each()) {
    thread_ = std::thread([this, device = device_number()] { serve(device); });
  }
  ~Copier() {
    stop_ = true;
    thread_.join();
  }
  Copier(const Copier&) = delete;
  Copier& operator=(const Copier&) = delete;
  bool failed() const { return failed_; }
  std::int64_t copies() const { return copies_; }

 private:
  void serve(int device) {
    try {
      MOESIM_CUDA(cudaSetDevice(device));
      const Stream stream;
      const Event end(false);
      while (!stop_) {
        DecodeCache::Copy copy;
        bool found = false;
        {
          const std::lock_guard<std::mutex> lock(mutex_);
          found = cache_.start_next(copy);
        }
        if (!found) {
          pause_cpu();
          continue;
        }
        for (std::int64_t at = 0; at < experts_.each(); at += chunk_) {
          const std::int64_t size = std::min(chunk_, experts_.each() - at);
          MOESIM_CUDA(cudaMemcpyAsync(slots_.at(copy.slot * experts_.each() + at), experts_.of(copy.key) + at, size,
                                      cudaMemcpyHostToDevice, stream));
        }
        end.record(stream);
        end.spin();
        ++copies_;
        const std::lock_guard<std::mutex> lock(mutex_);
        cache_.end_copy(copy.key);
      }
    } catch (const std::exception&) {
      failed_ = true;
    }
  }

  DecodeCache& cache_;
  std::mutex& mutex_;
  const HostExperts& experts_;
  const DeviceBuffer& slots_;
  std::int64_t chunk_;
  std::atomic<bool> stop_{false}, failed_{false};
  std::atomic<std::int64_t> copies_{0};
  std::thread thread_;
};

// What happened in the last loop.
struct Timeline {
  std::vector<double> layer_us, stall_us;  // [visits]
  std::vector<int> labels;                 // [lookups]
  std::int64_t copies = 0;
};

class Loop {
 public:
  Loop(const Case& the_case, const Routing& routing, const HostExperts& experts, std::uint64_t seed)
      : routing_(routing),
        experts_(experts),
        hidden_(the_case.number("hidden")),
        inter_(the_case.number("inter")),
        steps_(std::min(the_case.number("steps"), routing.tokens)),
        slots_(the_case.number("slots")),
        chunk_(the_case.number("chunk")),
        prefetches_(the_case.number("prefetch") != 0),
        weights_(slots_ * experts.each()),
        scores_(4 * steps_ * routing.layers * routing.experts),
        ids_(4 * routing.k),
        gates_(4 * routing.k),
        x_(2 * hidden_),
        middle_(2 * inter_),
        y_(2 * hidden_ * routing.k),
        host_ids_(4 * routing.k) {
    if (slots_ < 2 * routing.k) throw Skip("too few slots");
    fill_bf16(x_.at(), hidden_, 1, seed);
    upload_scores();
    for (std::int64_t i = 0; i < 2 * routing.k + 2; ++i) marks_.emplace_back();
    MOESIM_CUDA(cudaDeviceSynchronize());
  }

  // The whole loop from a cold cache; microseconds.
  double run() {
    DecodeCache cache(static_cast<int>(routing_.layers * routing_.experts), static_cast<int>(slots_));
    std::mutex mutex;
    cache_ = &cache, mutex_ = &mutex;
    timeline_ = {};
    set_bytes(y_.at(), 0xFF, y_.bytes());
    Copier copier(cache, mutex, experts_, weights_, chunk_);
    const double start = now_us();
    for (std::int64_t token = 0; token < steps_; ++token)
      for (std::int64_t layer = 0; layer < routing_.layers; ++layer) visit(token, layer, copier);
    const double us = now_us() - start;
    timeline_.copies = copier.copies();
    return us;
  }

  const Timeline& timeline() const { return timeline_; }

  // The last visit's experts against float64.
  bool right() const {
    std::vector<std::uint16_t> bits(static_cast<std::size_t>(hidden_)), found(static_cast<std::size_t>(hidden_));
    MOESIM_CUDA(cudaMemcpy(bits.data(), x_.at(), bits.size() * 2, cudaMemcpyDeviceToHost));
    std::vector<double> x;
    for (const auto value : bits) x.push_back(float_from_bf16(value));
    for (std::size_t i = 0; i < last_.size(); ++i) {
      MOESIM_CUDA(cudaMemcpy(found.data(), y_.at(2 * static_cast<std::int64_t>(i) * hidden_), found.size() * 2, cudaMemcpyDeviceToHost));
      const auto expected = experts_.layer(last_[i], x);
      double difference = 0, reference = 0;
      for (std::size_t row = 0; row < expected.size(); ++row) {
        const double error = float_from_bf16(found[row]) - expected[row];
        difference += error * error;
        reference += expected[row] * expected[row];
      }
      if (!(difference <= kFfnTolerance * kFfnTolerance * reference)) return false;
    }
    return true;
  }

 private:
  // Scores whose largest k are the recorded experts, in their order.
  void upload_scores() {
    std::vector<float> scores(static_cast<std::size_t>(scores_.bytes() / 4), -1.0f);
    for (std::int64_t visit = 0; visit < steps_ * routing_.layers; ++visit)
      for (std::int64_t rank = 0; rank < routing_.k; ++rank) {
        const int expert = routing_.ids[static_cast<std::size_t>(visit * routing_.k + rank)];
        scores[static_cast<std::size_t>(visit * routing_.experts + expert)] = static_cast<float>(routing_.k - rank);
      }
    MOESIM_CUDA(cudaMemcpy(scores_.at(), scores.data(), scores.size() * 4, cudaMemcpyHostToDevice));
  }

  void visit(std::int64_t token, std::int64_t layer, const Copier& copier) {
    const double start = now_us();
    const std::int64_t number = token * routing_.layers + layer;
    route(number);
    const auto members = keys_of(layer);
    std::vector<int> ready;
    std::vector<Label> labels;
    {
      const std::lock_guard<std::mutex> lock(*mutex_);
      labels = cache_->ask(number, members, ready);
      propose(token, layer, number);
    }
    for (const auto label : labels) timeline_.labels.push_back(static_cast<int>(label));
    last_.clear();
    for (const int key : ready) compute(key);
    double stall_us = 0;
    for (std::size_t i = ready.size(); i < members.size(); ++i) {
      const bool waited = wait_and_compute(copier);
      if (waited) waits_.push_back(i);
    }
    marks_.back().record(compute_);
    marks_.back().spin();
    for (const auto i : waits_) stall_us += microseconds(i == 0 ? marks_[0] : marks_[2 * i], marks_[2 * i + 1]);
    waits_.clear();
    {
      const std::lock_guard<std::mutex> lock(*mutex_);
      cache_->end_visit(members);
    }
    timeline_.stall_us.push_back(stall_us);
    timeline_.layer_us.push_back(now_us() - start);
  }

  // The router on the GPU, and its ids on the host. Mark 0 is its end.
  void route(std::int64_t visit) {
    const float* scores = scores_.at<float>(4 * visit * routing_.experts);
    launch_topk(scores, 1, static_cast<int>(routing_.experts), static_cast<int>(routing_.k), false, ids_.at<std::int32_t>(),
                gates_.at<float>(), compute_);
    MOESIM_CUDA(cudaMemcpyAsync(host_ids_.at(), ids_.at(), ids_.bytes(), cudaMemcpyDeviceToHost, compute_));
    marks_[0].record(compute_);
    marks_[0].spin();
  }
  std::vector<int> keys_of(std::int64_t layer) const {
    std::vector<int> keys;
    for (std::int64_t rank = 0; rank < routing_.k; ++rank)
      keys.push_back(static_cast<int>(layer * routing_.experts) + host_ids_.at<std::int32_t>()[rank]);
    return keys;
  }
  void propose(std::int64_t token, std::int64_t layer, std::int64_t visit) {
    const std::int64_t at = prefetches_ ? proposals_at(token, layer, routing_.layers, routing_.k) : -1;
    for (std::int64_t rank = 0; at >= 0 && rank < routing_.k; ++rank)
      cache_->propose(static_cast<int>((layer + 1) * routing_.experts) + routing_.ids[static_cast<std::size_t>(at + rank)], visit + 1);
  }

  // Launches an expert; marks 2i + 1 and 2i + 2 are its start and end.
  void compute(int key) {
    const auto place = last_.size();
    const std::int64_t matrix = 2 * hidden_ * inter_;
    int slot = 0;
    {
      const std::lock_guard<std::mutex> lock(*mutex_);
      slot = cache_->slot(key);
    }
    const unsigned char* weights = weights_.at(slot * experts_.each());
    const auto h = static_cast<int>(hidden_), i = static_cast<int>(inter_);
    const Matrices gate = {weights, nullptr, 0, 0, i, h}, up = {weights + matrix, nullptr, 0, 0, i, h};
    const Matrices down = {weights + 2 * matrix, nullptr, 0, 0, h, i};
    const Choice choice = choice_for(1);
    marks_[2 * place + 1].record(compute_);
    launch_gate_up(Format::kBf16, choice, gate, up, group_.groups(), x_.at<std::uint16_t>(), middle_.at<std::uint16_t>(), compute_);
    launch_down(Format::kBf16, choice, down, group_.groups(), middle_.at<std::uint16_t>(),
                y_.at<std::uint16_t>(2 * static_cast<std::int64_t>(place) * hidden_), compute_);
    marks_[2 * place + 2].record(compute_);
    last_.push_back(key);
  }
  // The next expert to arrive; whether the loop had to wait for it.
  bool wait_and_compute(const Copier& copier) {
    for (bool waited = false;; waited = true) {
      int key = -1;
      bool there = false;
      {
        const std::lock_guard<std::mutex> lock(*mutex_);
        there = cache_->take_arrival(key);
      }
      if (there) {
        compute(key);
        return waited;
      }
      if (copier.failed()) throw std::runtime_error("a copy failed");
      pause_cpu();
    }
  }

  const Routing& routing_;
  const HostExperts& experts_;
  std::int64_t hidden_, inter_, steps_, slots_, chunk_;
  bool prefetches_;
  DeviceBuffer weights_, scores_, ids_, gates_, x_, middle_, y_;
  PinnedBuffer host_ids_;
  TokenGroups group_{{1}, 1};
  std::vector<Event> marks_;
  std::vector<std::size_t> waits_;
  std::vector<int> last_;
  Stream compute_;
  DecodeCache* cache_ = nullptr;
  std::mutex* mutex_ = nullptr;
  Timeline timeline_;
};

template <typename T>
std::string list_json(const std::vector<T>& values) {
  std::string out = "[";
  for (std::size_t i = 0; i < values.size(); ++i) out += (i ? "," : "") + number_text(static_cast<double>(values[i]));
  return out + "]";
}

}  // namespace

void run_replay(const Cases& cases, const Options& options) {
  if (cases.empty()) return;
  const Routing routing(options.routing);
  const std::int64_t hidden = cases[0].number("hidden"), inter = cases[0].number("inter");
  const HostExperts experts(routing.layers * routing.experts, hidden, inter, options.seed);
  for_each_case(cases, [&](const Case& the_case) {
    if (the_case.number("hidden") != hidden || the_case.number("inter") != inter) throw Skip("one shape for all cases");
    Loop loop(the_case, routing, experts, options.seed);
    Row row;
    row.impl = "loop";
    Options fewer = options;
    fewer.samples = std::min(options.samples, 7);
    gather(row, fewer, [&] { return timed_with_waits([&] { return loop.run(); }); });
    const Timeline& timeline = loop.timeline();
    row.bytes = static_cast<double>(timeline.copies * experts.each());
    row.checked = loop.right();
    if (!row.checked) row.flags.push_back("wrong");
    row.documents.emplace_back("timeline", "{\"layer_us\":" + list_json(timeline.layer_us) + ",\"stall_us\":" +
                                               list_json(timeline.stall_us) + ",\"labels\":" + list_json(timeline.labels) + "}");
    return row;
  });
}

}  // namespace moesim
