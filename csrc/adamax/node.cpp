// adamax_step under autograd: what it changes in place gets a new version, so that a backward pass that saved the old
// values raises. hybridkern/ops/adamax/operator.py does the same where these nodes were not built.
#include <torch/library.h>

#include "../autograd/node.h"

namespace hk::nodes::adamax {
namespace {

// The arguments of schema hybridkern::adamax_step that it changes: params, exp_avgs, exp_infs.
constexpr size_t changed[] = {0, 2, 3};

void with_new_versions(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const size_t first = stack->size() - op.schema().arguments().size();
  for (const size_t list : changed)
    for (const c10::IValue& value : (*stack)[first + list].toListRef())
      value.toTensor().unsafeGetTensorImpl()->bump_version();
  const at::AutoDispatchBelowADInplaceOrView below;
  op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
}

}  // namespace
}  // namespace hk::nodes::adamax

TORCH_LIBRARY_IMPL(hybridkern, ADInplaceOrView, m) {
  m.impl("adamax_step", torch::CppFunction::makeFromBoxedFunction<&hk::nodes::adamax::with_new_versions>());
}
