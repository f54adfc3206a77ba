// Rows of results: one JSON object a line, flushed at once, so that a killed run still leaves what it measured.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "case.h"

namespace moesim {

inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + '"';
}

inline std::string number_text(double value) {
  if (!std::isfinite(value)) return "null";
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

inline bool is_whole(const std::string& text) {
  const std::size_t start = text.rfind('-', 0) == 0 ? 1 : 0;
  return text.size() > start && text.size() < 18 && text.find_first_not_of("0123456789", start) == std::string::npos;
}

inline std::string case_json(const Case& the_case) {
  std::string out = "{";
  for (const auto& key : the_case.keys()) {
    const auto& value = the_case.text(key);
    out += (out.size() > 1 ? "," : "") + quoted(key) + ":" + (is_whole(value) ? value : quoted(value));
  }
  return out + "}";
}

// What one case came to.
struct Row {
  std::string impl;
  std::vector<double> samples_us;  // time of one operation, each
  int warmup = 0;
  std::int64_t batch = 1;  // operations behind one sample
  double bytes = 0;        // that one operation moves
  double flops = 0;        // that one operation computes
  double cpu_share = -1;   // of the time in which its threads wanted to run; -1: unknown
  bool checked = false;    // the result was compared with a reference and agreed
  std::vector<std::string> flags;
  std::vector<std::pair<std::string, double>> values;  // whatever else was measured, by name with its unit
  std::vector<std::pair<std::string, std::string>> documents;  // JSON that stands for itself, as a timeline

  void print(const Case& the_case) const {
    std::string out = "{\"case\":" + case_json(the_case) + ",\"impl\":" + quoted(impl);
    out += ",\"warmup\":" + std::to_string(warmup) + ",\"batch\":" + std::to_string(batch);
    out += ",\"bytes\":" + number_text(bytes) + ",\"flops\":" + number_text(flops);
    out += ",\"cpu_share\":" + (cpu_share < 0 ? std::string("null") : number_text(cpu_share));
    out += std::string(",\"checked\":") + (checked ? "true" : "false") + ",\"flags\":[";
    for (std::size_t i = 0; i < flags.size(); ++i) out += (i ? "," : "") + quoted(flags[i]);
    out += "],\"values\":{";
    for (std::size_t i = 0; i < values.size(); ++i)
      out += (i ? "," : "") + quoted(values[i].first) + ":" + number_text(values[i].second);
    out += "}";
    for (const auto& [name, json] : documents) out += "," + quoted(name) + ":" + json;
    out += ",\"samples_us\":[";
    for (std::size_t i = 0; i < samples_us.size(); ++i) out += (i ? "," : "") + number_text(samples_us[i]);
    std::puts((out + "]}").c_str());
    std::fflush(stdout);
  }
};

inline void print_skip(const Case& the_case, const std::string& reason) {
  std::puts(("{\"case\":" + case_json(the_case) + ",\"skipped\":" + quoted(reason) + "}").c_str());
  std::fflush(stdout);
}

// Measures every case; one that can't be run becomes a skipped row, and the next goes on.
template <typename Measure>
void for_each_case(const std::vector<Case>& cases, Measure measure) {
  for (const auto& the_case : cases) {
    try {
      measure(the_case).print(the_case);
    } catch (const Skip& skip) {
      print_skip(the_case, skip.what());
    }
  }
}

}  // namespace moesim
