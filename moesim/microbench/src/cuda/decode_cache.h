// The expert cache of the decode loop, and the queue of copies into it: bookkeeping only, no CUDA, so that tests run it
// against the simulator's engine.
//
// Rules (as moesim.engine.offload): LRU over all layers; recency is refreshed at a visit's end, in the order in which
// experts were used; lookups are labelled when the router has spoken, against what is there then; one copy at a time,
// demands before prefetches, chosen when the last has ended; a victim leaves when the copy starts, never a member of the
// running visit; prefetches for a visit whose router has spoken, and that have not started, are off.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <vector>

namespace moesim {

enum class Label : std::int8_t { kHit = 0, kLate = 1, kMiss = 2 };

class DecodeCache {
 public:
  // An expert on its way: `slot` is where its copy goes.
  struct Copy {
    int key = -1, slot = -1;
  };

  DecodeCache(int keys, int slots) : entries_(static_cast<std::size_t>(keys)) {
    for (int slot = slots; slot > 0; --slot) free_.push_back(slot - 1);
  }

  // A visit's router has spoken: labels its experts and asks for those that are missing. `ready` are those to compute now.
  std::vector<Label> ask(std::int64_t visit, const std::vector<int>& members, std::vector<int>& ready) {
    std::vector<Label> labels;
    std::vector<int> missing;
    for (const int key : members) {
      Entry& entry = at(key);
      const auto transfer = transfers_.find(key);
      if (entry.slot < 0) {
        labels.push_back(Label::kMiss);
        missing.push_back(key);
      } else if (transfer != transfers_.end()) {
        labels.push_back(Label::kLate);
        transfer->second.awaited = true;
      } else {
        labels.push_back(Label::kHit);
        ready.push_back(key);
      }
      ++entry.locked;
    }
    for (const int key : missing) transfers_[key] = {visit, ++sequence_, true, true, false};
    for (auto it = transfers_.begin(); it != transfers_.end();) {
      const bool stale = !it->second.demand && !it->second.started && it->second.visit <= visit;
      it = stale ? transfers_.erase(it) : std::next(it);
    }
    return labels;
  }

  // A prefetch for a later visit; nothing where the expert is there or on its way.
  void propose(int key, std::int64_t visit) {
    const auto transfer = transfers_.find(key);
    if (transfer != transfers_.end()) transfer->second.visit = std::max(transfer->second.visit, visit);
    else if (at(key).slot < 0) transfers_[key] = {visit, ++sequence_, false, false, false};
  }

  // The next copy to start, with room made for it; false where nothing waits, or a demand finds no room yet.
  bool start_next(Copy& copy) {
    for (;;) {
      const auto next = first_waiting();
      if (next == transfers_.end()) return false;
      const int key = next->first;
      const bool demand = next->second.demand;
      if (free_.empty() && !evict()) {
        if (demand) return false;
        transfers_.erase(next);  // a prefetch that nobody makes room for
        continue;
      }
      Entry& entry = at(key);
      entry.slot = free_.back();
      free_.pop_back();
      entry.kept = !demand;
      if (!demand) entry.stamp = ++clock_, ++entry.locked;
      next->second.started = true;
      copy = {key, entry.slot};
      return true;
    }
  }

  // A copy has ended.
  void end_copy(int key) {
    const auto transfer = transfers_.find(key);
    if (!transfer->second.demand) --at(key).locked;
    if (transfer->second.awaited) arrivals_.push_back(key);
    transfers_.erase(transfer);
  }

  // The next expert that the running visit waited for; false where none has come yet.
  bool take_arrival(int& key) {
    if (arrivals_.empty()) return false;
    key = arrivals_.front();
    arrivals_.pop_front();
    return true;
  }

  // The visit's experts have been computed.
  void end_visit(const std::vector<int>& members) {
    for (const int key : members) {
      Entry& entry = at(key);
      entry.stamp = ++clock_;
      entry.kept = true;
      --entry.locked;
    }
  }

  int slot(int key) const { return entries_[static_cast<std::size_t>(key)].slot; }

 private:
  struct Entry {
    int slot = -1, locked = 0;
    std::int64_t stamp = 0;
    bool kept = false;
  };
  struct Transfer {
    std::int64_t visit, sequence;
    bool demand, awaited, started;
  };
  using Transfers = std::map<int, Transfer>;

  Entry& at(int key) { return entries_[static_cast<std::size_t>(key)]; }

  Transfers::iterator first_waiting() {
    auto best = transfers_.end();
    for (auto it = transfers_.begin(); it != transfers_.end(); ++it) {
      if (it->second.started) continue;
      const bool first = best == transfers_.end() || (it->second.demand != best->second.demand
                                                          ? it->second.demand
                                                          : it->second.sequence < best->second.sequence);
      if (first) best = it;
    }
    return best;
  }

  // The least recently used expert that may leave, does.
  bool evict() {
    int victim = -1;
    for (int key = 0; key < static_cast<int>(entries_.size()); ++key) {
      const Entry& entry = at(key);
      if (entry.kept && entry.locked == 0 && (victim < 0 || entry.stamp < at(victim).stamp)) victim = key;
    }
    if (victim < 0) return false;
    free_.push_back(at(victim).slot);
    at(victim) = Entry{};
    return true;
  }

  std::vector<Entry> entries_;
  std::vector<int> free_;
  Transfers transfers_;
  std::deque<int> arrivals_;
  std::int64_t clock_ = 0, sequence_ = 0;
};

}  // namespace moesim
