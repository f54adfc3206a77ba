// One case of a benchmark: the words "key=value" of one line of standard input.
#pragma once

#include <cstdint>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace moesim {

class Case {
 public:
  explicit Case(const std::string& line) {
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      const auto equals = word.find('=');
      if (equals == std::string::npos) throw std::runtime_error("not key=value: " + word);
      order_.push_back(word.substr(0, equals));
      values_[order_.back()] = word.substr(equals + 1);
    }
  }

  const std::string& text(const std::string& key) const {
    const auto found = values_.find(key);
    if (found == values_.end()) throw std::runtime_error("the case lacks " + key);
    return found->second;
  }

  std::int64_t number(const std::string& key) const { return std::stoll(text(key)); }
  std::int64_t number(const std::string& key, std::int64_t otherwise) const {
    return values_.count(key) ? number(key) : otherwise;
  }
  bool is(const std::string& key, const char* value) const { return text(key) == value; }

  // A list of whole numbers, as "3,1,0,5".
  std::vector<std::int64_t> numbers(const std::string& key) const {
    std::vector<std::int64_t> list;
    std::istringstream parts(text(key));
    for (std::string part; std::getline(parts, part, ',');) list.push_back(std::stoll(part));
    return list;
  }

  const std::vector<std::string>& keys() const { return order_; }

 private:
  std::map<std::string, std::string> values_;
  std::vector<std::string> order_;
};

// Every case on standard input.
inline std::vector<Case> read_cases() {
  std::vector<Case> cases;
  for (std::string line; std::getline(std::cin, line);)
    if (!line.empty()) cases.emplace_back(line);
  return cases;
}

// A case that this machine can't run; the message becomes the reason of a "skipped" row.
struct Skip : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace moesim
