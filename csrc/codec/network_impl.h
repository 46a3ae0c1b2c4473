// The loops of an integer network, for one instruction set: to be included once in each of its files, which give Dot.
#include "network.h"

namespace hk::codec::HK_ISA {

HK_INLINE int64_t shifted(int64_t value, int64_t factor, int64_t shift) {
  return (value * factor + (int64_t{1} << (shift - 1))) >> shift;
}

HK_INLINE int64_t clamped(int64_t value, int64_t least, int64_t most) {
  return value < least ? least : value > most ? most : value;
}

// Dot: `lanes` sums of 32 bits, to each of which a dot product of `group` activations with as many weights is added;
// with `finishes_lanes` a function of that name does the work of `finish`.
template <class Dot>
struct Runner {
  using Activation = typename Dot::Activation;
  using Weight = typename Dot::Weight;
  using Vector = typename Dot::Vector;
  static constexpr int64_t lanes = Dot::lanes, group = Dot::group, most_blocks = Dot::blocks, pixels = Dot::pixels;

  const Network& net;
  const Work& work;
  int32_t* y;
  int64_t row = net.width + 2, area = net.height * net.width;

  static int64_t blocks_of(const Layer& layer) { return (layer.out + lanes - 1) / lanes; }

  // Packed weights begin with a byte for each block of lanes, which of those that go together the first one has:
  // whether any of their weights is not 0. A layer that writes a part of the stream has zeros for the others.
  static size_t flag_bytes(const Layer& layer) { return (blocks_of(layer) + 63) / 64 * 64; }
  static const char* flags(const Layer& layer) { return static_cast<const char*>(layer.packed); }
  static const Weight* weights(const Layer& layer) {
    return reinterpret_cast<const Weight*>(flags(layer) + flag_bytes(layer));
  }
  static Weight* flag(const Layer& layer, void* packed) {
    char* const to = static_cast<char*>(packed);
    for (int64_t block = 0; block < blocks_of(layer); ++block) to[block] = 0;
    const int64_t each = layer.taps * layer.in;
    for (int64_t i = 0; i < layer.out * each; ++i)
      if (layer.weights[i]) to[i / each / lanes / most_blocks * most_blocks] = 1;
    return reinterpret_cast<Weight*>(to + flag_bytes(layer));
  }

  static size_t packed_bytes(const Layer& layer) {
    return flag_bytes(layer) + sizeof(Weight) * blocks_of(layer) * lanes * layer.taps * padded_channels(layer.in);
  }

  // [up to `most_blocks` blocks of lanes][tap][group of inputs][block][lane][input]
  static void pack(const Layer& layer, void* packed) {
    Weight* to = flag(layer, packed);
    for (int64_t first = 0; first < layer.out; first += most_blocks * lanes) {
      const int64_t left = blocks_of(layer) - first / lanes, blocks = left < most_blocks ? left : most_blocks;
      for (int64_t tap = 0; tap < layer.taps; ++tap)
        for (int64_t c = 0; c < padded_channels(layer.in); c += group)
          for (int64_t o = first; o < first + blocks * lanes; ++o)
            for (int64_t i = c; i < c + group; ++i)
              *to++ = o < layer.out && i < layer.in ? layer.weights[(o * layer.taps + tap) * layer.in + i] : 0;
    }
  }

  // A pixel, and where it lies between those of the border.
  struct Place {
    const int64_t width;
    int64_t pixel = 0, at = width + 3, column = 0;

    void next() {
      ++pixel, ++at;
      if (++column == width) column = 0, at += 2;
    }
  };

  // The border, and channels beyond those of the image, which weights of 0 meet.
  void clear(Activation* image, int64_t channels, int64_t value) const {
    const int64_t padded = padded_channels(channels), rows = net.height + 2;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < row; ++j) {
        Activation* at = image + (i * row + j) * padded;
        const bool inside = i > 0 && i + 1 < rows && j > 0 && j + 1 < row;
        for (int64_t c = inside ? channels : 0; c < padded; ++c) at[c] = static_cast<Activation>(value);
      }
  }

  void read(const int32_t* x, Activation* image) const {
    const int64_t padded = padded_channels(net.in);
    for (int64_t c = 0; c < net.in; ++c)
      for (Place place{net.width}; place.pixel < area; place.next()) {
        const int64_t from = static_cast<int64_t>(x[c * area + place.pixel]) - net.center;
        const int64_t value = shifted(from, net.factor, net.shift) + net.zero;
        image[place.at * padded + c] = static_cast<Activation>(clamped(value, 0, 255));
      }
  }

  // What becomes of the sums of `count` output channels of a pixel, from `first` on.
  HK_INLINE void finish(const Layer& layer, const Place& place, int64_t first, int64_t count, const int32_t* sums,
                        Activation* to) const {
    Activation* const target = layer.mode == to_output ? to : to + place.at * padded_channels(layer.out) + first;
    int16_t* const stream = work.stream + place.pixel * net.stream + first;
    if constexpr (Dot::finishes_lanes)
      if (layer.is_clamp && layer.mode != to_output) return finish_lanes(layer, first, count, sums, stream, target);
    int32_t values[most_blocks * lanes];
    for (int64_t c = 0; c < count; ++c) {
      const int64_t sum = static_cast<int64_t>(sums[c]) + layer.bias[first + c];
      values[c] = static_cast<int32_t>(
          clamped(shifted(sum, layer.factor[first + c], layer.shift[first + c]), -(1 << 30), 1 << 30));
    }
    if (layer.mode == to_output) {
      for (int64_t c = 0; c < count; ++c) y[(first + c) * area + place.pixel] = values[c];
      return;
    }
    if (layer.mode != to_table) {
      for (int64_t c = 0; c < count; ++c) {
        const int64_t before = layer.mode == add_stream ? stream[c] : 0;
        stream[c] = static_cast<int16_t>(clamped(before + values[c], -32768, 32767));
        // beyond 32 bits an index would come back with the other sign
        values[c] = static_cast<int32_t>(
            clamped(shifted(stream[c], layer.stream_factor, layer.stream_shift), -(1 << 30), 1 << 30));
      }
    }
    for (int64_t c = 0; c < count; ++c) {
      const int32_t index = values[c] + static_cast<int32_t>(layer.offset);
      target[c] = layer.table[index < 0 ? 0 : index > 255 ? 255 : index];
    }
  }

  template <int64_t Blocks>
  HK_INLINE void tile(const Layer& layer, const Activation* const (&from)[pixels], const Weight* weights,
                      int32_t* sums) const {
    Vector total[pixels][Blocks];
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t b = 0; b < Blocks; ++b) total[p][b] = Dot::zero();
    const int64_t channels = padded_channels(layer.in);
    for (int64_t tap = 0; tap < layer.taps; ++tap) {
      const int64_t shift = layer.taps == 1 ? 0 : ((tap / 3 - 1) * row + tap % 3 - 1) * channels;
      for (int64_t c = shift; c < shift + channels; c += group) {
        Vector w[Blocks];
        for (int64_t b = 0; b < Blocks; ++b) w[b] = Dot::load(weights + b * lanes * group);
        weights += Blocks * lanes * group;
        for (int64_t p = 0; p < pixels; ++p) {
          const Vector a = Dot::broadcast(from[p] + c);
          for (int64_t b = 0; b < Blocks; ++b) total[p][b] = Dot::add(total[p][b], a, w[b]);
        }
      }
    }
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t b = 0; b < Blocks; ++b) Dot::store(sums + (p * Blocks + b) * lanes, total[p][b]);
  }

  template <int64_t Blocks>
  void band(const Layer& layer, const Activation* from, Activation* to, int64_t first, const Weight* weights) const {
    alignas(64) int32_t sums[pixels * Blocks * lanes] = {};
    const bool empty = !flags(layer)[first / lanes];
    const int64_t left = layer.out - first, count = left < Blocks * lanes ? left : Blocks * lanes;
    Place reading{net.width}, writing{net.width};
    while (writing.pixel < area) {
      const Activation* places[pixels];
      for (int64_t p = 0; p < pixels; ++p) {
        places[p] = from + reading.at * padded_channels(layer.in);
        if (reading.pixel + 1 < area) reading.next();
      }
      if (!empty) tile<Blocks>(layer, places, weights, sums);
      for (int64_t p = 0; p < pixels && writing.pixel < area; ++p, writing.next())
        finish(layer, writing, first, count, sums + p * Blocks * lanes, to);
    }
  }

  void convolve(const Layer& layer, const Activation* from, Activation* to) const {
    const Weight* weights = Runner::weights(layer);
    const int64_t step = layer.taps * padded_channels(layer.in) * lanes;
    for (int64_t block = 0; block < blocks_of(layer); block += most_blocks) {
      const int64_t left = blocks_of(layer) - block, first = block * lanes;
      if (left >= 4 && most_blocks >= 4)
        band<4 <= most_blocks ? 4 : 1>(layer, from, to, first, weights);
      else if (left >= 3 && most_blocks >= 4)
        band<3 <= most_blocks ? 3 : 1>(layer, from, to, first, weights);
      else if (left >= 2 && most_blocks >= 2)
        band<2 <= most_blocks ? 2 : 1>(layer, from, to, first, weights);
      else
        band<1>(layer, from, to, first, weights);
      weights += step * (left < most_blocks ? left : most_blocks);
    }
  }

  // `self`: this, as what has its own `convolve`.
  template <class Self>
  void through(const int32_t* x, const Self& self) const {
    Activation *from = static_cast<Activation*>(work.activations[0]),
               *to = static_cast<Activation*>(work.activations[1]);
    read(x, from);
    for (int64_t i = 0; i < net.count; ++i) {
      clear(from, net.layers[i].in, net.layers[i].pad);
      self.convolve(net.layers[i], from, to);
      Activation* const read = from;
      from = to, to = read;
    }
  }

  static void run(const Network& net, const int32_t* x, int32_t* y, const Work& work) {
    const Runner runner{net, work, y};
    runner.through(x, runner);
  }
};

template <class Dot>
NetworkKernels make_network(const char* name) {
  using R = Runner<Dot>;
  return {name, sizeof(typename Dot::Activation), &R::packed_bytes, &R::pack, &R::run};
}

}  // namespace hk::codec::HK_ISA
