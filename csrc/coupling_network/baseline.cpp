// Coupling networks on every processor of the architecture, and in double precision.
#include <cstdint>
#include <cstring>

#define HK_ISA baseline
#define HK_LANES 4
#include "network_impl.h"

namespace hk::network {

const Kernels& baseline_kernels() {
  static const Kernels table = HK_ISA::make_network_kernels<HK_ISA::Widening<float, float, 4, 2>>("baseline");
  return table;
}

const Kernels& baseline_bf16_kernels() {
  static const Kernels table = HK_ISA::make_network_kernels<HK_ISA::Widening<Bf16, float, 4, 2>>("baseline");
  return table;
}

const Kernels& baseline_double_kernels() {
  static const Kernels table = HK_ISA::make_network_kernels<HK_ISA::Widening<double, double, 4, 4>>("baseline");
  return table;
}

}  // namespace hk::network
