// The loops of paired_conv1x1.
#pragma once

#include "../cpu/kernels.h"
#include "../cpu/vectors.h"

namespace hk::HK_ISA {

// P pixels from p on, one vector of outputs of each half.
template <int P, class T>
HK_INLINE void paired_pixels(const PairedBlock<T>& block, const T* weight, const T* bias, int64_t tile, int64_t p) {
  using V = typename VectorOf<T>::type;
  constexpr int64_t lanes = Lanes<V>::count;
  const int64_t c = block.channels;
  V sums[P][2];
  for (int k = 0; k < P; ++k) {
    sums[k][0] = load<V>(bias);
    sums[k][1] = load<V>(bias + lanes);
  }
  for (int half = 0; half < 2; ++half) {
    const T* x = (half ? block.second : block.first) + p * c;
    for (int64_t i = 0; i < c; ++i, weight += 2 * lanes) {
      const V to_first = load<V>(weight), to_second = load<V>(weight + lanes);
      for (int k = 0; k < P; ++k) {
        sums[k][0] += to_first * x[k * c + i];
        sums[k][1] += to_second * x[k * c + i];
      }
    }
  }
  for (int k = 0; k < P; ++k) {
    store<V>(block.out_first + (p + k) * c + tile * lanes, sums[k][0]);
    store<V>(block.out_second + (p + k) * c + tile * lanes, sums[k][1]);
  }
}

// The last vector of a pixel runs over into the next pixel, which is written later: tiles from the last to the first,
// pixels from the first to the last.
template <class T>
void paired_forward(const PairedBlock<T>& block) {
  constexpr int64_t lanes = Lanes<typename VectorOf<T>::type>::count;
  const int64_t c = block.channels;
  for (int64_t tile = (c - 1) / lanes; tile >= 0; --tile) {
    const T *weight = block.weight + tile * 4 * c * lanes, *bias = block.bias + tile * 2 * lanes;
    int64_t p = 0;
    for (; p + 4 <= block.n; p += 4) paired_pixels<4>(block, weight, bias, tile, p);
    for (; p < block.n; ++p) paired_pixels<1>(block, weight, bias, tile, p);
  }
}

// Sums over the pixels of input times gradient: N inputs, one vector of gradients of each half.
template <int N, class T>
HK_INLINE void paired_products(const PairedGradientBlock<T>& block, const T* x, int64_t tile, T* sums, int64_t stride) {
  using V = typename VectorOf<T>::type;
  const int64_t c = block.channels, offset = tile * Lanes<V>::count;
  V to[N][2]{};
  for (int64_t p = 0; p < block.n; ++p) {
    const V first = load<V>(block.grad_first + p * c + offset), second = load<V>(block.grad_second + p * c + offset);
    for (int k = 0; k < N; ++k) {
      to[k][0] += first * x[p * c + k];
      to[k][1] += second * x[p * c + k];
    }
  }
  for (int k = 0; k < N; ++k) {
    store<V>(sums + 2 * k * stride + offset, to[k][0]);
    store<V>(sums + (2 * k + 1) * stride + offset, to[k][1]);
  }
}

template <class T>
void paired_weight_gradient(const PairedGradientBlock<T>& block) {
  using V = typename VectorOf<T>::type;
  constexpr int64_t lanes = Lanes<V>::count;
  const int64_t c = block.channels, tiles = (c + lanes - 1) / lanes, stride = tiles * lanes;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    for (int half = 0; half < 2; ++half) {
      const T* x = half ? block.second : block.first;
      T* sums = block.sums + half * c * 2 * stride;
      int64_t i = 0;
      for (; i + 4 <= c; i += 4) paired_products<4>(block, x + i, tile, sums + 2 * i * stride, stride);
      for (; i < c; ++i) paired_products<1>(block, x + i, tile, sums + 2 * i * stride, stride);
    }
    V first{}, second{};
    for (int64_t p = 0; p < block.n; ++p) {
      first += load<V>(block.grad_first + p * c + tile * lanes);
      second += load<V>(block.grad_second + p * c + tile * lanes);
    }
    store<V>(block.sums + 4 * c * stride + tile * lanes, first);
    store<V>(block.sums + (4 * c + 1) * stride + tile * lanes, second);
  }
}

}  // namespace hk::HK_ISA
