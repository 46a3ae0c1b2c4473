// Coupling networks in bfloat16 on x86-64 processors with AMX.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16,amx-tile,amx-bf16")

#define HK_ISA amx
#define HK_LANES 16
#include "../cpu/tile_session.h"
#include "network_impl.h"
#include "pairs.h"

namespace hk::HK_ISA {

// Four tiles of sums, two of each operand: 32 x 32 numbers at a time.
struct Tiles : Pairs {
  using Session = TileSession;
  using Columns = TransposedColumns<Tiles>;

  static void product(const E* a, const E* b, int64_t depth, T* c, bool accumulate, int64_t = side) {
    constexpr int64_t half = area / 2, pitch = side * sizeof(T);
    if (accumulate) {
      _tile_loadd(0, c, pitch);
      _tile_loadd(1, c + 16, pitch);
      _tile_loadd(2, c + half, pitch);
      _tile_loadd(3, c + half + 16, pitch);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    for (int64_t k = 0; k < depth; ++k, a += area, b += area) {
      _tile_loadd(6, b, 64);
      _tile_loadd(4, a, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + half, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, a + half, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, pitch);
    _tile_stored(1, c + 16, pitch);
    _tile_stored(2, c + half, pitch);
    _tile_stored(3, c + half + 16, pitch);
  }
};

}  // namespace hk::HK_ISA

namespace hk::network {

const Kernels& amx_kernels() {
  static const Kernels table = HK_ISA::make_network_kernels<HK_ISA::Tiles>("amx");
  return table;
}

}  // namespace hk::network

HK_TARGET_END
#endif
