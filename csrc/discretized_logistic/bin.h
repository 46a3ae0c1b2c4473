// The bin of the discretized logistic in the working precision.
#pragma once

#include "../cpu/kernels.h"

namespace hk {

template <class T>
BinConstants<T> bin_constants(double width) {
  const T half = static_cast<T>(width / 2);
  return {static_cast<T>(width), half, static_cast<T>(width / 2 - static_cast<double>(half))};
}

}  // namespace hk
