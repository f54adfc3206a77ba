// `dram`: reading, writing and copying memory, in order and in expert-sized blocks at random places, by threads.
//
// case: op=read|write|copy|blocks threads=N bytes=N [block=N]. One operation moves `bytes`, shared by the threads; each
// continues where the last one ended, over a set above four times the last-level cache.
#include <algorithm>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "benches.h"
#include "memory.h"
#include "pool.h"

namespace moesim {
namespace {

constexpr std::int64_t kLine = 64;
constexpr std::int64_t kSet = 256ll << 20;

std::uint64_t sum_plain(const std::uint64_t* words, std::int64_t count) {
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += words[i];
  return sum;
}

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") != 0; }

__attribute__((target("avx2"))) std::uint64_t sum_avx2(const std::uint64_t* words, std::int64_t count) {
  __m256i sums[4] = {};
  const auto* vectors = reinterpret_cast<const __m256i*>(words);
  for (std::int64_t i = 0; i < count / 4; i += 4)
    for (int j = 0; j < 4; ++j) sums[j] = _mm256_add_epi64(sums[j], _mm256_loadu_si256(vectors + i + j));
  alignas(32) std::uint64_t parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), sums[0] + sums[1] + sums[2] + sums[3]);
  return parts[0] + parts[1] + parts[2] + parts[3];
}
#else
bool has_avx2() { return false; }
std::uint64_t sum_avx2(const std::uint64_t* words, std::int64_t count) { return sum_plain(words, count); }
#endif

std::uint64_t sum_words(const unsigned char* data, std::int64_t bytes) {
  static const bool wide_enough = has_avx2();
  const auto* words = reinterpret_cast<const std::uint64_t*>(data);
  const std::int64_t wide = wide_enough ? bytes / 128 * 16 : 0;
  return (wide ? sum_avx2(words, wide) : 0) + sum_plain(words + wide, bytes / 8 - wide);
}

class Dram {
 public:
  Dram(const Options& options, std::int64_t bytes)
      : random_(options.seed),
        source_(std::max({kSet, 4 * last_level_cache(), 2 * bytes}), random_),
        target_(std::max({kSet, 4 * last_level_cache(), 2 * bytes}), random_) {}

  Row measure(const Case& the_case, const Options& options) {
    const auto op = the_case.text("op");
    const auto bytes = the_case.number("bytes");
    Pool pool(static_cast<int>(the_case.number("threads")));
    sums_.assign(static_cast<std::size_t>(pool.threads()) * 8, 0);
    Row row;
    row.impl = has_avx2() ? "avx2" : "plain";
    row.bytes = static_cast<double>(op == "copy" ? 2 * bytes : bytes);
    std::int64_t at = 0;
    gather(row, options, [&] {
      at = op == "blocks" ? static_cast<std::int64_t>(random_.next() % static_cast<std::uint64_t>(room(bytes))) * kLine
                          : at + bytes;
      if (at + bytes > source_.bytes()) at = 0;
      return pool.run([&](int thread) { work(op, at, bytes, thread, pool.threads()); });
    });
    row.checked = check(op, at, bytes);
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  }

 private:
  std::int64_t room(std::int64_t bytes) const { return (source_.bytes() - bytes) / kLine; }

  void work(const std::string& op, std::int64_t at, std::int64_t bytes, int thread, int threads) {
    const Part part = part_of(bytes, thread, threads, kLine);
    const std::int64_t begin = at + part.begin, size = part.end - part.begin;
    if (op == "write") {
      memset(target_.at(begin), 0x5A, static_cast<std::size_t>(size));
    } else if (op == "copy") {
      memcpy(target_.at(begin), source_.at(begin), static_cast<std::size_t>(size));
    } else {
      sums_[static_cast<std::size_t>(thread) * 8] = sum_words(source_.at(begin), size);
    }
  }

  // The last operation's result against a plain loop.
  bool check(const std::string& op, std::int64_t at, std::int64_t bytes) {
    if (op == "copy") return memcmp(target_.at(at), source_.at(at), static_cast<std::size_t>(bytes)) == 0;
    if (op == "write") {
      const auto* first = target_.at(at);
      return std::all_of(first, first + bytes, [](unsigned char byte) { return byte == 0x5A; });
    }
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < sums_.size(); i += 8) sum += sums_[i];
    return sum == sum_plain(source_.at<std::uint64_t>(at), bytes / 8);
  }

  Random random_;
  Buffer source_, target_;
  std::vector<std::uint64_t> sums_;  // one cache line for each thread
};

}  // namespace

void run_dram(const std::vector<Case>& cases, const Options& options) {
  std::int64_t largest = 0;
  for (const auto& the_case : cases) largest = std::max(largest, the_case.number("bytes"));
  Dram dram(options, largest);
  for_each_case(cases, [&](const Case& the_case) { return dram.measure(the_case, options); });
}

}  // namespace moesim
