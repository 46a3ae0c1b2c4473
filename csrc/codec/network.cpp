// Choice of the kernels of integer networks.
#include "network.h"

#include <atomic>
#include <cstring>

#include "../cpu/kernels.h"
#include "../cpu/tiles.h"

namespace hk::codec {
namespace {

// nullptr: this processor, or its chosen instruction set, has no products of that name; without one, the best it has.
const NetworkKernels* best(const char* name) {
  const auto wanted = [name](const char* products) { return !name || !strcmp(name, products); };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const char* level = instruction_set();
  if (!strcmp(level, "avx512")) {
    const bool vnni = __builtin_cpu_supports("avx512vnni");
    if (wanted("amx") && vnni && has_tiles(TileProducts::int8)) return &amx_network();
    if (wanted("vnni") && vnni) return &vnni_network();
    return wanted("widened") ? &avx512_network() : nullptr;
  }
  if (!strcmp(level, "avx2")) return wanted("widened") ? &avx2_network() : nullptr;
#endif
  return wanted("widened") ? &baseline_network() : nullptr;
}

std::atomic<const char*> chosen{nullptr};

}  // namespace

const NetworkKernels& network_kernels() {
  const NetworkKernels* found = best(chosen.load(std::memory_order_relaxed));
  return found ? *found : *best(nullptr);
}

const char* integer_products() {
  const char* name = network_kernels().name;
  return strcmp(name, "amx") && strcmp(name, "vnni") ? "widened" : name;
}

bool choose_integer_products(const char* name) {
  for (const char* known : {"amx", "vnni", "widened"})
    if (!strcmp(name, known) && best(known)) {
      chosen.store(known, std::memory_order_relaxed);
      return true;
    }
  return false;
}

}  // namespace hk::codec
