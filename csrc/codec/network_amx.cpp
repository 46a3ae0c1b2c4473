// Integer networks on x86-64 processors with AMX and its products of 8-bit integers.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,amx-tile,amx-int8")

#define HK_ISA amx_int8
#include "../cpu/tile_session.h"
#include "finish_avx512.h"
#include "network_impl.h"

namespace hk::codec {
namespace amx_int8 {

struct Bytes {
  using Activation = uint8_t;
  using Weight = int8_t;
  using Vector = __m512i;
  static constexpr int64_t lanes = 16, group = 4, blocks = 2, pixels = 32;
  static constexpr bool finishes_lanes = true;
};

// Sums for 32 places by 32 output channels, in four tiles. Places are counted through the border of the image, so that
// those of a tile lie equally far apart; what comes of the border is dropped. Taps of one row of a kernel lie side by
// side in memory: a tile takes 64 bytes of them. What it reads beyond them meets weights of 0.
struct Tiles : Runner<Bytes> {
  static constexpr int64_t side = 16, depth = 64, tile_bytes = side * depth;

  static int64_t rows_of(const Layer& layer) { return layer.taps == 9 ? 3 : 1; }  // of its kernel, and taps in a row
  static int64_t row_bytes(const Layer& layer) { return rows_of(layer) * padded_channels(layer.in); }
  static int64_t depths(const Layer& layer) { return (row_bytes(layer) + depth - 1) / depth; }
  static size_t packed_bytes(const Layer& layer) {
    return flag_bytes(layer) + blocks_of(layer) * rows_of(layer) * depths(layer) * tile_bytes;
  }

  static int8_t weight(const Layer& layer, int64_t output, int64_t row, int64_t byte) {
    const int64_t channels = padded_channels(layer.in), channel = byte % channels;
    if (output >= layer.out || byte >= row_bytes(layer) || channel >= layer.in) return 0;
    return layer.weights[(output * layer.taps + row * rows_of(layer) + byte / channels) * layer.in + channel];
  }

  // [up to two blocks of outputs][row of taps][depth][block][four bytes][output][byte]
  static void pack(const Layer& layer, void* packed) {
    int8_t* to = flag(layer, packed);
    for (int64_t first = 0; first < blocks_of(layer); first += most_blocks)
      for (int64_t row = 0; row < rows_of(layer); ++row)
        for (int64_t k = 0; k < depths(layer); ++k)
          for (int64_t block = first; block < blocks_of(layer) && block < first + most_blocks; ++block)
            for (int64_t at = 0; at < tile_bytes; ++at) {
              const int64_t byte = k * depth + at / depth * group + at % group;
              *to++ = weight(layer, block * lanes + at % depth / group, row, byte);
            }
  }

  template <bool SecondPlaces, bool SecondBlock>
  HK_INLINE void tile(const Layer& layer, const uint8_t* from, const int8_t* weights, int32_t* sums) const {
    constexpr int64_t step = SecondBlock ? 2 * tile_bytes : tile_bytes, pitch = SecondBlock ? 2 * depth : depth;
    const int64_t channels = padded_channels(layer.in), whole = depths(layer);
    _tile_zero(0);
    if constexpr (SecondBlock) _tile_zero(1);
    if constexpr (SecondPlaces) _tile_zero(2);
    if constexpr (SecondPlaces && SecondBlock) _tile_zero(3);
    for (int64_t tap = 0; tap < rows_of(layer); ++tap) {
      const uint8_t* at = from + (layer.taps == 1 ? 0 : (tap - 1) * row - 1) * channels;
      for (int64_t k = 0; k < whole; ++k, at += depth, weights += step) {
        _tile_loadd(6, weights, depth);
        _tile_loadd(4, at, channels);
        _tile_dpbusd(0, 4, 6);
        if constexpr (SecondBlock) {
          _tile_loadd(7, weights + tile_bytes, depth);
          _tile_dpbusd(1, 4, 7);
        }
        if constexpr (SecondPlaces) {
          _tile_loadd(5, at + side * channels, channels);
          _tile_dpbusd(2, 5, 6);
        }
        if constexpr (SecondPlaces && SecondBlock) _tile_dpbusd(3, 5, 7);
      }
    }
    constexpr int64_t below = side * pitch / sizeof(int32_t);
    _tile_stored(0, sums, pitch);
    if constexpr (SecondBlock) _tile_stored(1, sums + lanes, pitch);
    if constexpr (SecondPlaces) _tile_stored(2, sums + below, pitch);
    if constexpr (SecondPlaces && SecondBlock) _tile_stored(3, sums + below + lanes, pitch);
  }

  template <bool SecondBlock>
  void band(const Layer& layer, const uint8_t* from, uint8_t* to, int64_t first, const int8_t* weights) const {
    constexpr int64_t width = SecondBlock ? 2 * lanes : lanes;
    alignas(64) int32_t sums[2 * side * width] = {};
    const bool empty = !flags(layer)[first / lanes];
    const int64_t left = layer.out - first, count = left < width ? left : width;
    const int64_t end = net.height * row + net.width + 1;
    Place writing{net.width};
    for (int64_t begin = row + 1; begin < end; begin += 2 * side) {
      const uint8_t* at = from + begin * padded_channels(layer.in);
      const int64_t places = end - begin < 2 * side ? end - begin : 2 * side;
      if (!empty && places > side) tile<true, SecondBlock>(layer, at, weights, sums);
      if (!empty && places <= side) tile<false, SecondBlock>(layer, at, weights, sums);
      for (; writing.at < begin + places; writing.next())
        finish(layer, writing, first, count, sums + (writing.at - begin) * width, to);
    }
  }

  void convolve(const Layer& layer, const uint8_t* from, uint8_t* to) const {
    const int8_t* weights = Runner::weights(layer);
    const int64_t step = rows_of(layer) * depths(layer) * tile_bytes;
    for (int64_t block = 0; block < blocks_of(layer); block += most_blocks, weights += most_blocks * step) {
      if (blocks_of(layer) - block > 1)
        band<true>(layer, from, to, block * lanes, weights);
      else
        band<false>(layer, from, to, block * lanes, weights);
    }
  }

  static void run(const Network& net, const int32_t* x, int32_t* y, const Work& work) {
    const hk::amx_int8::TileSession session;
    const Tiles tiles{{net, work, y}};
    tiles.through(x, tiles);
  }
};

}  // namespace amx_int8

const NetworkKernels& amx_network() {
  using amx_int8::Tiles;
  static const NetworkKernels table{"amx", sizeof(uint8_t), &Tiles::packed_bytes, &Tiles::pack, &Tiles::run};
  return table;
}

}  // namespace hk::codec

HK_TARGET_END
#endif
