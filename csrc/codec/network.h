// A network of integers: 8-bit activations and weights, products summed in 32 bits, one fixed rounding a layer. What it
// gives is a function of integers, the same for every batch size, thread count and instruction set.
// Contract and reference: hybridkern/codec/integers.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../math/inline.h"

namespace hk::codec {

enum Mode : int64_t { to_table = 0, set_stream = 1, add_stream = 2, to_output = 3 };

// One convolution and what becomes of its sums.
struct Layer {
  int64_t in, out, taps;  // 9 or 1
  Mode mode;
  int64_t offset;                        // of the index into the table
  int64_t stream_factor, stream_shift;   // from the stream to that index
  int64_t pad;                           // what its input holds around the image
  const int8_t* weights;                 // [out][taps][in]
  const int32_t *bias, *factor, *shift;  // an output channel
  const uint8_t* table;                  // 256 entries
  bool is_clamp;                         // they are 0 to 255
  const void* packed;                    // as the kernels of one instruction set read them
};

struct Network {
  int64_t in, out, height, width;
  int64_t center, factor, shift, zero;  // of the input
  const Layer* layers;
  int64_t count;
  int64_t widest;  // the most channels of a layer's input
  int64_t stream;  // channels of the stream
};

// Memory of one thread.
struct Work {
  void* activations[2];
  int16_t* stream;
};

struct NetworkKernels {
  const char* name;
  int64_t activation_bytes;
  size_t (*packed_bytes)(const Layer&);
  void (*pack)(const Layer&, void* packed);
  void (*run)(const Network&, const int32_t* x, int32_t* y, const Work&);  // one example, (C, H, W)
};

const NetworkKernels& baseline_network();
#if defined(__x86_64__)
const NetworkKernels& avx2_network();
const NetworkKernels& avx512_network();
const NetworkKernels& vnni_network();
const NetworkKernels& amx_network();
#endif

const NetworkKernels& network_kernels();
const char* integer_products();                  // "amx", "vnni", or "widened": to 16 bits
bool choose_integer_products(const char* name);  // false: this processor, or its chosen instruction set, has none

// (pixels + border) of an image, each with channels rounded up so that any kernel's group divides them.
HK_INLINE int64_t padded_channels(int64_t channels) { return (channels + 3) / 4 * 4; }
HK_INLINE int64_t padded_pixels(const Network& net) { return (net.height + 2) * (net.width + 2); }

// Memory of activations. Tiles read up to 31 pixels and 63 bytes beyond the image.
HK_INLINE int64_t activation_bytes(const Network& net, int64_t of_each) {
  return (padded_pixels(net) + 31) * padded_channels(net.widest) * of_each + 63;
}

}  // namespace hk::codec
