// A thread's configuration of the tile registers of AMX; included where the code for them is compiled, as HK_ISA.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace hk::HK_ISA {

// Eight tiles of 16 rows of 64 bytes, for as long as it lives; what stood there before is put back.
class TileSession {
 public:
  TileSession() {
    _tile_storeconfig(&before_);
    const Configuration whole;
    written(whole);
    _tile_loadconfig(&whole);
  }
  ~TileSession() {
    written(before_);
    if (before_.palette)
      _tile_loadconfig(&before_);
    else
      _tile_release();
  }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;

 private:
  struct alignas(64) Configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };

  // To compilers the instructions use the first eight bytes: without this others may not be written yet.
  static void written(const Configuration& all) { __asm__ volatile("" : : "r"(&all) : "memory"); }

  Configuration before_;
};

}  // namespace hk::HK_ISA
