// What the three affine_coupling operators are told about the form: checked, and where the parameters lie; for the CPU
// and the CUDA kernels.
#pragma once

#include <string>
#include <vector>
#include "../check.h"
#include "../layout.h"
#include "form.h"

namespace hk {

using FormNumbers = std::vector<double>;  // eight

// Refuses what CouplingForm.spec does not make: the kernels look the code up in their tables.
inline void check_form(int64_t code, const FormNumbers& numbers) {
  const int64_t map = code & 15, shift = (code >> 4) & 15, layout = (code >> 8) & 15;
  if (code < 0 || code >= 1 << 14 || map > 6 || shift > 2 || layout > 3)
    refuse("code", std::to_string(code), "CouplingForm.code(inverse)");
  if (numbers.size() != form_numbers)
    refuse("numbers", std::to_string(numbers.size()) + " numbers",
           "the " + std::to_string(form_numbers) + " of CouplingForm.spec(inverse)");
}

inline bool has_scale(int64_t code) { return (code & 15) != 0; }

// Scale and shift as operands of any tensor shaped like the parameters.
template <class T>
void split_params(const Tensor& params, const CouplingForm<T>& form, const RowOrder& order, Operand& scale,
                  Operand& shift) {
  const int64_t channels = order.extent.channels;
  if (!form.has_scale()) {
    shift = operand(params, order);
  } else if (form.layout >= 2) {  // by turns: shift first in layout 2, scale first in layout 3
    shift = operand(params, order, 1, form.layout == 2 ? 0 : 1, 2);
    scale = operand(params, order, 1, form.layout == 2 ? 1 : 0, 2);
  } else {
    scale = operand(params, order, 1, form.layout == 0 ? 0 : channels);
    shift = operand(params, order, 1, form.layout == 0 ? channels : 0);
  }
}

// Known of affine_coupling/math.h.
enum KnownKind : int { from_input, from_output, output_recover };

}  // namespace hk
