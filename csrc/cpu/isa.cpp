// Chooses the instruction set once, at the first use.
#include <atomic>
#include <cstring>

#include "kernels.h"

namespace hk {
namespace {

const Kernels<float>* supported(const char* name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && (!name || !strcmp(name, "avx512"))) return &avx512_kernels();
  if (avx2 && (!name || !strcmp(name, "avx2"))) return &avx2_kernels();
#endif
  if (!name || !strcmp(name, "baseline")) return &baseline_kernels();
  return nullptr;
}

std::atomic<const Kernels<float>*> chosen{nullptr};

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  const Kernels<float>* table = chosen.load(std::memory_order_acquire);
  if (!table) {
    table = supported(nullptr);
    chosen.store(table, std::memory_order_release);
  }
  return *table;
}

template <>
const Kernels<double>& kernels<double>() {
  return double_kernels();
}

const char* instruction_set() { return kernels<float>().name; }

bool choose_instruction_set(const char* name) {
  const Kernels<float>* table = supported(name);
  if (table) chosen.store(table, std::memory_order_release);
  return table != nullptr;
}

}  // namespace hk
