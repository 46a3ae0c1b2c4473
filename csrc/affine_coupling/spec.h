// What the three affine_coupling operators are told about the form, decoded; for the CPU and the CUDA kernels.
#pragma once

#include <string>
#include "../check.h"
#include "../layout.h"

namespace hk {

// Decodes CouplingForm.code of hybridkern/_coupling_form.py and brings form and direction to the family that the
// kernels know: y = x*S + T, or (x + T)*S.
struct CouplingSpec {
  int map;  // ScaleMap of affine_coupling/math.h
  bool negate, before;
  int layout;
  double shift_sign;

  CouplingSpec(int64_t code, double eps) {
    constexpr int sigmoid = 2, sigmoid_eps = 6;
    map = code & 15;
    if (map == sigmoid && eps != 0) map = sigmoid_eps;
    const int shift = (code >> 4) & 15;
    layout = (code >> 8) & 15;
    const bool inverse = (code >> 13) & 1;
    negate = ((code >> 12) & 1) != inverse;
    before = (shift != 0) != inverse;
    shift_sign = ((shift == 2) != inverse) ? -1 : 1;
    if (map == 0) negate = false, before = false;
  }
  bool has_scale() const { return map != 0; }
};

// Refuses a code that CouplingForm does not make: the kernels look it up in their tables.
inline void check_code(int64_t code) {
  const int64_t map = code & 15, shift = (code >> 4) & 15, layout = (code >> 8) & 15;
  if (code < 0 || code >= 1 << 14 || map > 5 || shift > 2 || layout > 2)
    refuse("code", std::to_string(code), "CouplingForm.code(inverse)");
}

// Scale and shift as operands of any tensor shaped like the parameters.
inline void split_params(const Tensor& params, const CouplingSpec& spec, const RowOrder& order, Operand& scale,
                         Operand& shift) {
  const int64_t channels = order.extent.channels;
  if (!spec.has_scale()) {
    shift = operand(params, order);
  } else if (spec.layout == 2) {
    shift = operand(params, order, 1, 0, 2);
    scale = operand(params, order, 1, 1, 2);
  } else {
    scale = operand(params, order, 1, spec.layout == 0 ? 0 : channels);
    shift = operand(params, order, 1, spec.layout == 0 ? channels : 0);
  }
}

struct CouplingSettings {
  double clamp, offset, eps, gain, shift_gain;
};

// Known of affine_coupling/math.h.
enum KnownKind : int { from_input, from_output, output_recover };

}  // namespace hk
