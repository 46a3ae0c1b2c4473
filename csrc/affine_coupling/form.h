// A coupling's form as its kernels read it: one struct, plain, for all instruction sets and for CUDA.
#pragma once

#include <cstdint>

namespace hk {

constexpr int64_t form_numbers = 8;  // length of CouplingForm.numbers of hybridkern/ops/affine_coupling/form.py
constexpr int scale_maps = 8;        // ScaleMap of math.h

// Form and direction, brought to the family that the kernels know: y = x*S + T, or (x + T)*S where `before`. The
// numbers come first: nvcc then needs a register less.
template <class T>
struct CouplingForm {
  T clamp, offset, eps, gain;
  T shift_gain;  // with the sign that direction and form give it
  int map;       // ScaleMap of math.h
  bool negate, before;
  int layout;

  bool has_scale() const { return map != 0; }
};

// Decodes what CouplingForm.spec of Python packed; to be called with what check_form (spec.h) let pass.
template <class T>
CouplingForm<T> decode_form(int64_t code, const double* numbers) {
  constexpr int sigmoid = 2, sigmoid_eps = 7;
  CouplingForm<T> form{};
  form.map = code & 15;
  form.clamp = static_cast<T>(numbers[0]), form.offset = static_cast<T>(numbers[1]);
  form.eps = static_cast<T>(numbers[2]), form.gain = static_cast<T>(numbers[3]);
  if (form.map == sigmoid && numbers[2] != 0) form.map = sigmoid_eps;
  const int shift = (code >> 4) & 15;
  form.layout = (code >> 8) & 15;
  const bool inverse = (code >> 13) & 1;
  form.negate = form.has_scale() && ((code >> 12) & 1) != inverse;
  form.before = form.has_scale() && (shift != 0) != inverse;
  form.shift_gain = static_cast<T>(((shift == 2) != inverse) ? -numbers[4] : numbers[4]);
  return form;
}

}  // namespace hk
