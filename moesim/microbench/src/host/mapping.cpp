// `mmap`: the time until every page of a mapped range has been touched, with the page cache cold or warm.
//
// case: state=cold|warm advice=normal|random|sequential|populate bytes=N.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "benches.h"
#include "memory.h"
#include "../shared/test_file.h"

namespace moesim {
namespace {

constexpr std::int64_t kPage = 4096;

int advice_of(const std::string& name) {
  if (name == "random") return MADV_RANDOM;
  if (name == "sequential") return MADV_SEQUENTIAL;
  return MADV_NORMAL;
}

class MappedFile {
 public:
  MappedFile(const Case& the_case, const TestFile& file)
      : file_(file),
        bytes_(the_case.number("bytes")),
        cold_(the_case.is("state", "cold")),
        populate_(the_case.is("advice", "populate")),
        advice_(advice_of(the_case.text("advice"))) {
    if (bytes_ > file.bytes()) throw Skip("the test file is too small");
    descriptor_ = file.open_cached();
  }
  ~MappedFile() { close(descriptor_); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  Timed once() {
    at_ = at_ + 2 * bytes_ > file_.bytes() ? 0 : at_ + bytes_;
    if (cold_) posix_fadvise(descriptor_, at_, bytes_, POSIX_FADV_DONTNEED);
    else warm();
    was_resident_ += resident() ? 1 : 0;
    ++times_;
    unsigned char* data = nullptr;
    std::uint64_t sum = 0;
    const Timed timed = timed_with_waits([&] {
      const double start = now_us();
      data = map(populate_ ? MAP_POPULATE : 0);
      madvise(data, static_cast<std::size_t>(bytes_), advice_);
      for (std::int64_t page = 0; page < bytes_; page += kPage) sum += *reinterpret_cast<std::uint64_t*>(data + page);
      return now_us() - start;
    });
    munmap(data, static_cast<std::size_t>(bytes_));
    right_ = right_ && sum == expected();
    return timed;
  }

  bool right() const { return right_; }
  // Share of the samples whose first page was in the page cache beforehand.
  double resident_share() const { return static_cast<double>(was_resident_) / static_cast<double>(times_); }

 private:
  unsigned char* map(int flags) const {
    void* data = mmap(nullptr, static_cast<std::size_t>(bytes_), PROT_READ, MAP_SHARED | flags, descriptor_, at_);
    if (data == MAP_FAILED) throw Skip("the test file can't be mapped");
    return static_cast<unsigned char*>(data);
  }
  void warm() const {
    std::vector<unsigned char> piece(1 << 20);
    for (std::int64_t at = at_; at < at_ + bytes_;) {
      const auto got = pread(descriptor_, piece.data(), piece.size(), at);
      if (got <= 0) throw std::runtime_error("the test file can't be read");
      at += got;
    }
  }
  bool resident() const {
    auto* data = map(0);
    unsigned char state = 0;
    mincore(data, kPage, &state);
    munmap(data, static_cast<std::size_t>(bytes_));
    return (state & 1) != 0;
  }
  std::uint64_t expected() const {
    std::uint64_t sum = 0;
    for (std::int64_t page = 0; page < bytes_; page += kPage) sum += file_.word((at_ + page) / 8);
    return sum;
  }

  const TestFile& file_;
  std::int64_t bytes_;
  bool cold_, populate_;
  int advice_, descriptor_ = -1;
  std::int64_t at_ = 0, was_resident_ = 0, times_ = 0;
  bool right_ = true;
};

}  // namespace

void run_mmap(const std::vector<Case>& cases, const Options& options) {
  const TestFile file(options);
  for_each_case(cases, [&](const Case& the_case) {
    MappedFile mapped(the_case, file);
    Row row;
    row.impl = "mmap";
    row.bytes = static_cast<double>(the_case.number("bytes"));
    gather(row, options, [&] { return mapped.once(); });
    row.checked = mapped.right();
    row.values.emplace_back("resident_before", mapped.resident_share());
    if (!row.checked) row.flags.push_back("wrong");
    if (the_case.is("state", "cold") && mapped.resident_share() > 0.05) row.flags.push_back("not_cold");
    return row;
  });
}

}  // namespace moesim
