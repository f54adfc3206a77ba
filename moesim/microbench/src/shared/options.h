// What the command line of either program says.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace moesim {

struct Options {
  std::string bench;
  std::uint64_t seed = 1;
  int samples = 20;              // wanted for each case
  double case_us = 2e6;          // after which a case is content with fewer
  std::string directory = ".";   // for the test file
  std::int64_t file_bytes = 64 << 20;
  std::string routing;           // the file that the decode loop follows
  bool realtime = false;         // run before other programs, where that is permitted
};

inline Options parse_options(int count, char** words) {
  if (count < 2) throw std::runtime_error("usage: BENCH [--seed N] [--samples N] [--case-ms N] [--dir D] ...");
  Options options;
  options.bench = words[1];
  for (int i = 2; i + 1 < count; i += 2) {
    const std::string name = words[i], value = words[i + 1];
    if (name == "--seed") options.seed = std::stoull(value);
    else if (name == "--samples") options.samples = std::stoi(value);
    else if (name == "--case-ms") options.case_us = std::stod(value) * 1e3;
    else if (name == "--dir") options.directory = value;
    else if (name == "--file-bytes") options.file_bytes = std::stoll(value);
    else if (name == "--routing") options.routing = value;
    else if (name == "--realtime") options.realtime = value == "1";
    else throw std::runtime_error("unknown option " + name);
  }
  return options;
}

}  // namespace moesim
