// Kernels for every processor of the architecture (SSE2 on x86-64, NEON on aarch64), and those in double precision.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#define HK_ISA baseline
#define HK_LANES 4
#include "kernels_impl.h"

namespace hk {

const Kernels<float>& baseline_kernels() {
  static const Kernels<float> table = HK_ISA::make_kernels<float>("baseline");
  return table;
}

const Kernels<double>& double_kernels() {
  static const Kernels<double> table = HK_ISA::make_kernels<double>("baseline");
  return table;
}

}  // namespace hk
