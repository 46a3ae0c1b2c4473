// Asks the processor and the operating system for the tile registers of AMX.
#include "tiles.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace hk {

bool has_tiles(TileProducts products) {
#if defined(__x86_64__) && defined(__linux__)
  static const unsigned int features = [] {  // once: a virtual machine asks its host
    unsigned int a = 7, b = 0, c = 0, d = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return d;
  }();
  constexpr unsigned int amx_bf16 = 1u << 22, amx_tile = 1u << 24, amx_int8 = 1u << 25;
  const unsigned int wanted = amx_tile | (products == TileProducts::bf16 ? amx_bf16 : amx_int8);
  if ((features & wanted) != wanted) return false;
  constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return granted;
#else
  static_cast<void>(products);
  return false;
#endif
}

}  // namespace hk
