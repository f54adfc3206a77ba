// The file that storage benchmarks read: random content, on disk and out of the page cache. Removed at the end.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "formats.h"
#include "options.h"
#include "row.h"

namespace moesim {

class TestFile {
 public:
  // While a file is read in order, the folios of the page cache grow: those of its first bytes are smaller than the rest.
  // What measures the page cache leaves them out.
  static constexpr std::int64_t kRamp = 48 << 20;

  // `extra` bytes more than the options say. Throws Skip where it can't be written.
  explicit TestFile(const Options& options, std::int64_t extra = 0)
      : path_(options.directory + "/moesim-bench-" + std::to_string(getpid()) + ".bin"),
        bytes_((options.file_bytes + extra) / kPiece * kPiece),
        seed_(options.seed) {
    const int file = open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file < 0) throw Skip(std::string("the test file can't be made: ") + strerror(errno));
    const bool written = write_all(file);
    close(file);
    if (!written) {
      unlink(path_.c_str());
      throw Skip("the test file can't be written: not enough room?");
    }
    forget();
    // A device may still be busy with what was written: a second's rest for each GB.
    usleep(static_cast<useconds_t>(std::min<std::int64_t>(bytes_ / 1000, 5'000'000)));
  }
  ~TestFile() { unlink(path_.c_str()); }
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;

  std::int64_t bytes() const { return bytes_; }
  // Through the page cache.
  int open_cached() const {
    const int file = open(path_.c_str(), O_RDONLY);
    if (file < 0) throw Skip(std::string("the test file can't be opened: ") + strerror(errno));
    return file;
  }
  // Past it; throws Skip where the file system can't.
  int open_direct() const {
    const int file = open(path_.c_str(), O_RDONLY | O_DIRECT);
    if (file < 0) throw Skip(std::string("the file system has no O_DIRECT: ") + strerror(errno));
    return file;
  }
  // Drops its pages from the page cache.
  void forget() const {
    const int file = open_cached();
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
  }
  // Drops it, then reads it in order up to `end`, so that the folios of the page cache are the same whatever ran before.
  void read_anew(std::int64_t end) const {
    forget();
    const int file = open_cached();
    std::vector<unsigned char> piece(1 << 20);
    for (std::int64_t at = 0; at < end;) {
      const auto got = pread(file, piece.data(), piece.size(), at);
      if (got <= 0) break;
      at += got;
    }
    close(file);
  }
  // Word `index` of the content, to check what was read.
  std::uint64_t word(std::int64_t index) const {
    return mixed(seed_ + static_cast<std::uint64_t>(index) * 0x9E3779B97F4A7C15ull);
  }

 private:
  static constexpr std::int64_t kPiece = 4 << 20;

  bool write_all(int file) const {
    std::vector<std::uint64_t> piece(kPiece / 8);
    for (std::int64_t at = 0; at < bytes_; at += kPiece) {
      for (std::int64_t i = 0; i < kPiece / 8; ++i) piece[static_cast<std::size_t>(i)] = word(at / 8 + i);
      if (pwrite(file, piece.data(), kPiece, at) != kPiece) return false;
    }
    return fsync(file) == 0;
  }

  std::string path_;
  std::int64_t bytes_;
  std::uint64_t seed_;
};

}  // namespace moesim
