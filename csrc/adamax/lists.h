// What a step of adamax is called with.
#pragma once

#include <vector>

#include "../layout.h"

namespace hk {

struct AdamaxSettings {
  double rate, beta1, beta2, eps, weight_decay;
};

struct AdamaxLists {
  const std::vector<Tensor>&params, &grads, &exp_avgs, &exp_infs;
};

// Refuses lists that the step could not take as arrays, and numbers out of range.
void check_adamax(const AdamaxLists& lists, const AdamaxSettings& settings);

}  // namespace hk
