// Choice of the kernels of integer networks.
#include "network.h"

#include <atomic>
#include <cstring>

#include "../cpu/kernels.h"

namespace hk::codec {
namespace {

bool has_vnni() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return !strcmp(instruction_set(), "avx512") && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

std::atomic<bool> wants_vnni{true};

}  // namespace

const NetworkKernels& network_kernels() {
#if defined(__x86_64__)
  const char* level = instruction_set();
  if (wants_vnni.load(std::memory_order_relaxed) && has_vnni()) return vnni_network();
  if (!strcmp(level, "avx512")) return avx512_network();
  if (!strcmp(level, "avx2")) return avx2_network();
#endif
  return baseline_network();
}

const char* integer_products() { return strcmp(network_kernels().name, "vnni") ? "widened" : "vnni"; }

bool choose_integer_products(const char* name) {
  const bool vnni = !strcmp(name, "vnni");
  if (!vnni && strcmp(name, "widened")) return false;
  if (vnni && !has_vnni()) return false;
  wants_vnni.store(vnni, std::memory_order_relaxed);
  return true;
}

}  // namespace hk::codec
