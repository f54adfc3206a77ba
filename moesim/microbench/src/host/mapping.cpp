// `mmap`: the time until every page of a mapped range has been touched, with the page cache cold or warm.
//
// case: state=cold|warm advice=normal|random|sequential|populate bytes=N. Cold: the whole file is dropped from the page
// cache before each sample (dropping a range would leave the large folios that reach into it), places lie apart, and the
// disk comes to rest, so that no sample meets what read-ahead brought for the last one. Warm: see TestFile::read_anew.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "benches.h"
#include "memory.h"
#include "../shared/test_file.h"

namespace moesim {
namespace {

constexpr std::int64_t kPage = 4096, kWarmPlaces = 8, kApart = 16 << 20;
constexpr useconds_t kRestUs = 5000;

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
        advice_(advice_of(the_case.text("advice"))),
        begin_(cold_ ? 0 : TestFile::kRamp),
        end_(cold_ ? file.bytes() : std::min(file.bytes(), begin_ + kWarmPlaces * bytes_)),
        at_(begin_) {
    if (begin_ + bytes_ > file.bytes()) throw Skip("the test file is too small");
    descriptor_ = file.open_cached();
    if (!cold_) file.read_anew(end_);
  }
  ~MappedFile() { close(descriptor_); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  Timed once() {
    at_ = next_place();
    if (cold_) come_to_rest();
    resident_pages_ += resident();
    pages_ += bytes_ / kPage;
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
  // Share of the pages that were in the page cache beforehand.
  double resident_share() const { return static_cast<double>(resident_pages_) / static_cast<double>(pages_); }

 private:
  unsigned char* map(int flags) const {
    void* data = mmap(nullptr, static_cast<std::size_t>(bytes_), PROT_READ, MAP_SHARED | flags, descriptor_, at_);
    if (data == MAP_FAILED) throw Skip("the test file can't be mapped");
    return static_cast<unsigned char*>(data);
  }
  std::int64_t next_place() const {
    const std::int64_t step = bytes_ + (cold_ ? kApart : 0);
    return at_ + step + bytes_ > end_ ? begin_ : at_ + step;
  }
  // A new descriptor, too: the kernel keeps with it what it learnt for read-ahead.
  void come_to_rest() {
    usleep(kRestUs);
    file_.forget();
    close(descriptor_);
    descriptor_ = file_.open_cached();
  }
  std::int64_t resident() const {
    auto* data = map(0);
    std::vector<unsigned char> states(static_cast<std::size_t>(bytes_ / kPage));
    mincore(data, static_cast<std::size_t>(bytes_), states.data());
    munmap(data, static_cast<std::size_t>(bytes_));
    return std::count_if(states.begin(), states.end(), [](unsigned char state) { return (state & 1) != 0; });
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
  std::int64_t begin_, end_, at_, resident_pages_ = 0, pages_ = 0;
  bool right_ = true;
};

}  // namespace

void run_mmap(const std::vector<Case>& cases, const Options& options) {
  const TestFile file(options, TestFile::kRamp);
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
    if (the_case.is("state", "warm") && mapped.resident_share() < 0.95) row.flags.push_back("not_warm");
    return row;
  });
}

}  // namespace moesim
