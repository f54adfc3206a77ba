// io_uring by its three system calls: a ring that reads, no library.
#pragma once

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "../shared/row.h"

namespace moesim {

class Ring {
 public:
  explicit Ring(unsigned depth) {
    io_uring_params params{};
    ring_ = static_cast<int>(syscall(__NR_io_uring_setup, depth, &params));
    if (ring_ < 0) throw Skip(std::string("no io_uring here: ") + strerror(errno));
    submission_bytes_ = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    completion_bytes_ = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
    entry_bytes_ = params.sq_entries * sizeof(io_uring_sqe);
    submission_ = map(submission_bytes_, IORING_OFF_SQ_RING);
    completion_ = map(completion_bytes_, IORING_OFF_CQ_RING);
    entries_ = static_cast<io_uring_sqe*>(map(entry_bytes_, IORING_OFF_SQES));
    sq_tail_ = in(submission_, params.sq_off.tail);
    sq_mask_ = *in(submission_, params.sq_off.ring_mask);
    sq_array_ = in(submission_, params.sq_off.array);
    cq_head_ = in(completion_, params.cq_off.head);
    cq_tail_ = in(completion_, params.cq_off.tail);
    cq_mask_ = *in(completion_, params.cq_off.ring_mask);
    cqes_ = reinterpret_cast<io_uring_cqe*>(static_cast<unsigned char*>(completion_) + params.cq_off.cqes);
  }
  ~Ring() {
    munmap(submission_, submission_bytes_);
    munmap(completion_, completion_bytes_);
    munmap(entries_, entry_bytes_);
    close(ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Queues a read; it starts with the next `enter`.
  void read(int file, void* into, unsigned bytes, std::int64_t offset, std::uint64_t tag) {
    const unsigned tail = *sq_tail_, slot = tail & sq_mask_;
    io_uring_sqe& entry = entries_[slot];
    memset(&entry, 0, sizeof entry);
    entry.opcode = IORING_OP_READ;
    entry.fd = file;
    entry.addr = reinterpret_cast<std::uint64_t>(into);
    entry.len = bytes;
    entry.off = static_cast<std::uint64_t>(offset);
    entry.user_data = tag;
    sq_array_[slot] = slot;
    __atomic_store_n(sq_tail_, tail + 1, __ATOMIC_RELEASE);
    ++queued_;
  }

  // Starts what is queued and waits until at least one read has ended.
  void enter() {
    while (queued_ > 0 || __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE) == *cq_head_) {
      const long started = syscall(__NR_io_uring_enter, ring_, queued_, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
      if (started < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY)
        throw std::runtime_error(std::string("io_uring_enter: ") + strerror(errno));
      if (started > 0) queued_ -= static_cast<unsigned>(started);
      if (started >= 0 && queued_ == 0) return;
    }
  }

  // The tag of a read that has ended, if there is one. Throws where it failed or came short.
  bool ended(std::uint64_t& tag, unsigned bytes) {
    const unsigned head = *cq_head_;
    if (head == __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE)) return false;
    const io_uring_cqe& entry = cqes_[head & cq_mask_];
    if (entry.res == -EINVAL) throw Skip("io_uring can't read here");
    if (entry.res != static_cast<int>(bytes)) throw std::runtime_error("a read came short");
    tag = entry.user_data;
    __atomic_store_n(cq_head_, head + 1, __ATOMIC_RELEASE);
    return true;
  }

 private:
  void* map(std::size_t bytes, std::uint64_t what) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_, static_cast<off_t>(what));
    if (at == MAP_FAILED) throw Skip(std::string("io_uring can't be mapped: ") + strerror(errno));
    return at;
  }
  static unsigned* in(void* ring, unsigned offset) {
    return reinterpret_cast<unsigned*>(static_cast<unsigned char*>(ring) + offset);
  }

  int ring_ = -1;
  unsigned queued_ = 0;
  std::size_t submission_bytes_ = 0, completion_bytes_ = 0, entry_bytes_ = 0;
  void *submission_ = nullptr, *completion_ = nullptr;
  io_uring_sqe* entries_ = nullptr;
  io_uring_cqe* cqes_ = nullptr;
  unsigned *sq_tail_ = nullptr, *sq_array_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
  unsigned sq_mask_ = 0, cq_mask_ = 0;
};

}  // namespace moesim
