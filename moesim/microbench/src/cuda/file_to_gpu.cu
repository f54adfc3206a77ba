// `file_to_gpu`: a file to the GPU past the page cache, through `depth` pinned buffers: a thread reads chunk after chunk
// while the last ones are copied. gds: libcufile's direct path, where it is installed and works.
//
// case: via=pinned|gds bytes=N chunk=N depth=N. Host timer, from the first read to the last copy's end.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "../shared/test_file.h"
#include "benches.cuh"

namespace moesim {
namespace {

constexpr std::int64_t kPage = 4096;

// Whether the GPU's buffer holds what the file has from `at` on.
bool holds(const DeviceBuffer& buffer, const TestFile& file, std::int64_t at) {
  std::vector<std::uint64_t> words(static_cast<std::size_t>(buffer.bytes() / 8));
  MOESIM_CUDA(cudaMemcpy(words.data(), buffer.at(), words.size() * 8, cudaMemcpyDeviceToHost));
  for (std::size_t i = 0; i < words.size(); i += 509)
    if (words[i] != file.word(at / 8 + static_cast<std::int64_t>(i))) return false;
  return true;
}

class Pipeline {
 public:
  Pipeline(const Case& the_case, const TestFile& file)
      : file_(file),
        descriptor_(file.open_direct()),
        bytes_(the_case.number("bytes") / kPage * kPage),
        chunk_(the_case.number("chunk")),
        depth_(the_case.number("depth")),
        device_(bytes_) {
    if (bytes_ > file.bytes()) throw Skip("the test file is too small");
    set_bytes(device_.at(), 0xFF, bytes_);
    for (std::int64_t i = 0; i < depth_; ++i) {
      buffers_.emplace_back(chunk_);
      free_again_.emplace_back(false);
    }
  }
  ~Pipeline() { close(descriptor_); }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  double once() {
    at_ = at_ + 2 * bytes_ > file_.bytes() ? 0 : at_ + bytes_;
    const double start = now_us();
    std::atomic<std::int64_t> read{0}, copied{0};
    std::atomic<bool> failed{false};
    std::thread reader([&] { read_all(read, copied, failed); });
    try {
      for (std::int64_t chunk = 0; chunk < chunks() && !failed; ++chunk) {
        while (read <= chunk && !failed) pause_cpu();
        if (!failed) copy(chunk, copied);
      }
      stream_.wait();
    } catch (...) {
      failed = true;
      reader.join();
      throw;
    }
    reader.join();
    if (failed) throw std::runtime_error("a read came short");
    return now_us() - start;
  }

  bool right() const { return holds(device_, file_, at_); }

 private:
  std::int64_t chunks() const { return (bytes_ + chunk_ - 1) / chunk_; }
  std::int64_t size(std::int64_t chunk) const { return std::min(chunk_, bytes_ - chunk * chunk_); }
  std::size_t slot(std::int64_t chunk) const { return static_cast<std::size_t>(chunk % depth_); }

  // The reader: a buffer is its own again once the copy from it has ended.
  void read_all(std::atomic<std::int64_t>& read, const std::atomic<std::int64_t>& copied, std::atomic<bool>& failed) const {
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
      while (copied < chunk - depth_ + 1 && !failed) pause_cpu();
      if (failed) return;
      if (chunk >= depth_ && cudaEventSynchronize(free_again_[slot(chunk)]) != cudaSuccess) failed = true;
      const auto got = pread(descriptor_, buffers_[slot(chunk)].at(), static_cast<std::size_t>(size(chunk)), at_ + chunk * chunk_);
      if (got != size(chunk)) failed = true;
      read = chunk + 1;
    }
  }
  void copy(std::int64_t chunk, std::atomic<std::int64_t>& copied) const {
    MOESIM_CUDA(cudaMemcpyAsync(device_.at(chunk * chunk_), buffers_[slot(chunk)].at(), size(chunk), cudaMemcpyHostToDevice, stream_));
    free_again_[slot(chunk)].record(stream_);
    copied = chunk + 1;
  }

  const TestFile& file_;
  int descriptor_;
  std::int64_t bytes_, chunk_, depth_, at_ = 0;
  DeviceBuffer device_;
  std::vector<PinnedBuffer> buffers_;
  std::vector<Event> free_again_;
  Stream stream_;
};

// libcufile by its calls, hand-declared from its documentation. Its way through the host's memory, which it takes where
// the direct one does not work, is switched off: that would be measured under the wrong name.
class DirectStorage {
 public:
  DirectStorage(const TestFile& file, std::int64_t bytes) : file_(file), device_(bytes) {
    set_bytes(device_.at(), 0xFF, bytes);
    setenv("CUFILE_ALLOW_COMPAT_MODE", "false", 1);
    library_ = dlopen("libcufile.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) library_ = dlopen("libcufile.so", RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) throw Skip("no libcufile found");
    if (const Error error = function<Error (*)()>("cuFileDriverOpen")(); error.code != 0)
      throw Skip("cuFileDriverOpen failed with " + std::to_string(error.code));
    descriptor_ = file.open_direct();
    Descriptor wanted{};
    wanted.type = 1;  // a Linux file descriptor
    wanted.handle.file = descriptor_;
    if (const Error error = function<Error (*)(void**, Descriptor*)>("cuFileHandleRegister")(&handle_, &wanted); error.code != 0) {
      close(descriptor_);
      throw Skip("cuFileHandleRegister failed with " + std::to_string(error.code));
    }
    read_ = function<Read>("cuFileRead");
  }
  ~DirectStorage() {
    function<void (*)(void*)>("cuFileHandleDeregister")(handle_);
    close(descriptor_);
  }
  DirectStorage(const DirectStorage&) = delete;
  DirectStorage& operator=(const DirectStorage&) = delete;

  double once(std::int64_t chunk) {
    at_ = at_ + 2 * device_.bytes() > file_.bytes() ? 0 : at_ + device_.bytes();
    const double start = now_us();
    for (std::int64_t done = 0; done < device_.bytes(); done += chunk) {
      const std::int64_t size = std::min(chunk, device_.bytes() - done);
      if (read_(handle_, device_.at(), static_cast<std::size_t>(size), at_ + done, done) != size)
        throw Skip("cuFileRead came short");
    }
    return now_us() - start;
  }
  bool right() const { return holds(device_, file_, at_); }

 private:
  struct Error {
    int code, cuda;
  };
  struct Descriptor {
    int type;
    union {
      int file;
      void* handle;
    } handle;
    const void* operations;
  };
  using Read = ssize_t (*)(void*, void*, std::size_t, off_t, off_t);
  template <typename Function>
  Function function(const char* name) const {
    void* address = dlsym(library_, name);
    if (address == nullptr) throw Skip(std::string("libcufile has no ") + name);
    return reinterpret_cast<Function>(address);
  }

  const TestFile& file_;
  DeviceBuffer device_;
  void *library_ = nullptr, *handle_ = nullptr;
  int descriptor_ = -1;
  std::int64_t at_ = 0;
  Read read_ = nullptr;
};

}  // namespace

void run_file_to_gpu(const Cases& cases, const Options& options) {
  const TestFile file(options);
  for_each_case(cases, [&](const Case& the_case) {
    Row row;
    row.impl = the_case.text("via");
    row.bytes = static_cast<double>(the_case.number("bytes"));
    Options fewer = options;
    fewer.samples = std::min(options.samples, 10);
    if (row.impl == "gds") {
      DirectStorage direct(file, the_case.number("bytes"));
      gather(row, fewer, [&] { return timed_with_waits([&] { return direct.once(the_case.number("chunk")); }); });
      row.checked = direct.right();
    } else {
      Pipeline pipeline(the_case, file);
      gather(row, fewer, [&] { return timed_with_waits([&] { return pipeline.once(); }); });
      row.checked = pipeline.right();
    }
    if (!row.checked) row.flags.push_back("wrong");
    return row;
  });
}

}  // namespace moesim
