// CouplingForm.spec of Python in the autograd nodes.
#pragma once

#include <algorithm>

#include "../autograd/node.h"
#include "form.h"

namespace hk::nodes {

using FormNumbers = std::array<double, form_numbers>;

// The numbers as the dispatcher takes them. A flow calls with one form over and over: the last list is kept.
inline const c10::IValue& as_list(const double* numbers) {
  thread_local FormNumbers last;
  thread_local c10::IValue list;
  if (list.isNone() || !std::equal(last.begin(), last.end(), numbers)) {
    list = c10::IValue(at::ArrayRef<double>(numbers, form_numbers));  // may throw: these two belong together
    std::copy_n(numbers, form_numbers, last.begin());
  }
  return list;
}

// Calls an operator that gives as many tensors as `Out` holds. The dispatcher boxes the arguments of such a kernel in
// any case; done here, the list of numbers need not be made anew.
template <class Out>
Out call_boxed(const c10::OperatorHandle& op, std::initializer_list<c10::IValue> arguments) {
  torch::jit::Stack stack(arguments);
  op.callBoxed(stack);
  Out out;
  std::apply([&, i = 0](auto&... each) mutable { ((each = std::move(stack[i++]).toTensor()), ...); }, out);
  return out;
}

}  // namespace hk::nodes
