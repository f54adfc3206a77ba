// `stage`: from the page cache into a buffer that could be pinned: the copy that a pageable transfer makes first.
//
// case: via=memcpy|pread threads=N bytes=N. memcpy copies from a mapping that has been touched, pread through the kernel.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "benches.h"
#include "memory.h"
#include "pool.h"
#include "../shared/test_file.h"

namespace moesim {
namespace {

constexpr std::int64_t kPage = 4096;

class Stage {
 public:
  Stage(const TestFile& file, const Options& options) : random_(options.seed), file_(file), target_(file.bytes(), random_) {
    file.read_anew(file.bytes());
    descriptor_ = file.open_cached();
    mapped_ = static_cast<unsigned char*>(
        mmap(nullptr, static_cast<std::size_t>(file.bytes()), PROT_READ, MAP_SHARED | MAP_POPULATE, descriptor_, 0));
    if (mapped_ == MAP_FAILED) throw Skip("the test file can't be mapped");
    for (std::int64_t page = 0; page < file.bytes(); page += kPage) touched_ += mapped_[page];
  }
  ~Stage() {
    munmap(mapped_, static_cast<std::size_t>(file_.bytes()));
    close(descriptor_);
  }
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  Row measure(const Case& the_case, const Options& options) {
    const std::int64_t bytes = the_case.number("bytes");
    const bool by_pread = the_case.is("via", "pread");
    if (TestFile::kRamp + bytes > file_.bytes()) throw Skip("the test file is too small");
    Pool pool(static_cast<int>(the_case.number("threads")));
    Row row;
    row.impl = the_case.text("via");
    row.bytes = static_cast<double>(bytes);
    std::int64_t at = TestFile::kRamp;
    std::atomic<bool> whole{true};
    gather(row, options, [&] {
      at = at + 2 * bytes > file_.bytes() ? TestFile::kRamp : at + bytes;
      return pool.run([&](int thread) {
        const Part part = part_of(bytes, thread, pool.threads(), kPage);
        const auto size = static_cast<std::size_t>(part.end - part.begin);
        if (!by_pread) memcpy(target_.at(at + part.begin), mapped_ + at + part.begin, size);
        else if (!read_whole(at + part.begin, size)) whole = false;
      });
    });
    row.checked = whole && memcmp(target_.at(at), mapped_ + at, static_cast<std::size_t>(bytes)) == 0;
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  }

 private:
  bool read_whole(std::int64_t at, std::size_t size) {
    for (std::size_t done = 0; done < size;) {
      const auto got = pread(descriptor_, target_.at(at) + done, size - done, at + static_cast<std::int64_t>(done));
      if (got <= 0) return false;
      done += static_cast<std::size_t>(got);
    }
    return true;
  }

  Random random_;
  const TestFile& file_;
  Buffer target_;
  unsigned char* mapped_ = nullptr;
  int descriptor_ = -1;
  std::uint64_t touched_ = 0;
};

}  // namespace

void run_stage(const std::vector<Case>& cases, const Options& options) {
  const TestFile file(options, TestFile::kRamp);
  Stage stage(file, options);
  for_each_case(cases, [&](const Case& the_case) { return stage.measure(the_case, options); });
}

}  // namespace moesim
