// moesim-bench BENCH [options] < cases: measures cases of one benchmark on the first GPU, prints a JSON line for each.
// `moesim-bench info` describes the GPUs. Without a driver or a GPU: one line {"error": ...} and exit status 2.
#include <cstdio>
#include <cstdlib>
#include <map>

#include "benches.cuh"

namespace moesim {
namespace {

std::string described(int index) {
  cudaDeviceProp device{};
  MOESIM_CUDA(cudaGetDeviceProperties(&device, index));
  int driver = 0, runtime = 0;
  MOESIM_CUDA(cudaDriverGetVersion(&driver));
  MOESIM_CUDA(cudaRuntimeGetVersion(&runtime));
  const auto number = [](const char* name, double value) { return "," + quoted(name) + ":" + number_text(value); };
  std::string out = "{\"index\":" + std::to_string(index) + ",\"name\":" + quoted(device.name);
  out += ",\"cc\":" + quoted(std::to_string(device.major) + "." + std::to_string(device.minor));
  out += ",\"memory_bytes\":" + std::to_string(device.totalGlobalMem);
  out += number("sm_count", device.multiProcessorCount) + number("l2_bytes", device.l2CacheSize);
  out += number("cuda_runtime", runtime) + number("async_engines", device.asyncEngineCount);
  out += std::string(",\"ecc\":") + (device.ECCEnabled ? "true" : "false");
  out += std::string(",\"unified\":") + (device.integrated ? "true" : "false");
  return out + ",\"driver\":" + quoted("CUDA " + std::to_string(driver)) + "}";
}

void print_devices() {
  int count = 0;
  MOESIM_CUDA(cudaGetDeviceCount(&count));
  std::string out = "{\"gpus\":[";
  for (int index = 0; index < count; ++index) out += (index ? "," : "") + described(index);
  std::puts((out + "]}").c_str());
}

using Bench = void (*)(const Cases&, const Options&);
const std::map<std::string, Bench> kBenches = {
    {"copy", run_copy},
    {"copy_host_kind", run_copy_host_kind},
    {"copy_bidir", run_copy_bidir},
    {"copy_queue", run_copy_queue},
    {"overlap", run_overlap},
    {"zero_copy", run_zero_copy},
    {"launch", run_launch},
    {"router_roundtrip", run_router_roundtrip},
    {"expert_ffn", run_expert_ffn},
    {"grouped", run_grouped},
    {"hbm", run_hbm},
    {"d2d", run_d2d},
    {"router_permute", run_router_permute},
    {"dequant", run_dequant},
    {"alloc", run_alloc},
    {"file_to_gpu", run_file_to_gpu},
    {"replay", run_replay},
};

int run(int count, char** words) {
  const Options options = parse_options(count, words);
  // Loading a kernel at its first launch can wait for the device, and so for a gate that is closed: load all at once.
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  MOESIM_CUDA(cudaSetDeviceFlags(cudaDeviceScheduleSpin | cudaDeviceMapHost));
  MOESIM_CUDA(cudaFree(nullptr));
  if (options.bench == "info") return print_devices(), 0;
  const auto bench = kBenches.find(options.bench);
  if (bench == kBenches.end()) throw std::runtime_error("unknown benchmark " + options.bench);
  bench->second(read_cases(), options);
  return 0;
}

}  // namespace
}  // namespace moesim

int main(int count, char** words) {
  try {
    return moesim::run(count, words);
  } catch (const std::exception& error) {
    std::puts(("{\"error\":" + moesim::quoted(error.what()) + "}").c_str());
    return 2;
  }
}
