// A coupling network, 3x3 convolution - ReLU - 1x1 - ReLU - 3x3, as plain arrays: what the operator hands to the
// kernels of one instruction set.
//
// Every layer is a product of matrices over pixels. Matrices lie in blocks of 32 x 32 numbers; a slice is some pixels
// (whole examples, or rows of one) whose matrices stay in the second-level cache. Work is divided by the shape alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hk::network {

constexpr int64_t side = 32, area = side * side;  // of a block

// An image tensor (B, C, H, W) of the working type, strides in elements.
struct Image {
  const void* data = nullptr;
  int64_t batch = 0, channel = 0, row = 0, column = 0;
};

// How the pixels are divided. hybridkern/ops/coupling_network.py repeats the sizes, for tensors without data.
struct Slices {
  int64_t batch, height, width;
  int64_t examples, rows;  // of a slice; several examples only where rows is the height
  int64_t bands;           // slices an example
  int64_t count;
  int64_t blocks;  // of 32 pixels in a slice, the last ones padded
  Slices(int64_t batch, int64_t height, int64_t width);
};

// Where a number of a 3x3 convolution's weight (out, in, 3, 3) lies, strides in elements.
struct Filter {
  int64_t out, in, row, column;
  int64_t tap(int64_t t) const { return t / 3 * row + t % 3 * column; }
};

struct Network {
  int64_t in, hidden, out;
  Slices slices;
  Image x;
  const void *w1, *b1, *w2, *b2, *w3, *b3;  // of the working type, w2 and biases contiguous
  Filter at1, at3;                          // w1 and w3
  void *hidden1, *hidden2;                  // [slice][block of pixels][block of channels]; nullptr: not kept
  void* params;                             // (B, H, W, out)
  Image grad;                               // of params
  void* grad_x;                             // (B, H, W, in); nullptr: not wanted
  void *grad_w1, *grad_b1, *grad_w2, *grad_b2, *grad_w3, *grad_b3;
  Filter grad_at1, grad_at3;
};

struct Kernels {
  const char* name;
  void (*forward)(const Network&);
  void (*backward)(const Network&);
};

// Products of float32, of float64, and of bfloat16 numbers.
const Kernels& baseline_kernels();
const Kernels& baseline_double_kernels();
const Kernels& baseline_bf16_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx2_bf16_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_widened_kernels();  // without bfloat16 instructions
const Kernels& avx512_bf16_kernels();
const Kernels& amx_kernels();
#endif

const Kernels& float_kernels();
const Kernels& bf16_kernels();

const char* bf16_products();                  // "amx", "avx512_bf16", or "widened": by the float32 instructions
bool choose_bf16_products(const char* name);  // false: this processor, or its chosen instruction set, has none

// What the kernels need of the platform; defined outside the files that are compiled for one instruction set.
void parallel(int64_t units, void (*body)(void*, int64_t, int64_t), void* context);
void* scratch(size_t bytes);  // of this thread, 64-byte aligned, until the next call
class Buffer {                // 64-byte aligned
 public:
  Buffer() = default;
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* allocate(size_t bytes);  // once
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

}  // namespace hk::network
