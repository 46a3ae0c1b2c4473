// adamax: one step over a list of parameters, all blocks of all of them in one parallel loop. Contract: hybridkern/ops.
#include <algorithm>
#include <vector>

#include "../cpu/operand.h"
#include "lists.h"

namespace hk {
namespace {

template <class T>
struct Parameter {
  T *param, *exp_avg, *exp_inf;
  const T* grad;
  int64_t size, first_block;
};

// The tensors are dense and of one order (check_adamax), so they are arrays here.
template <class T>
std::vector<Parameter<T>> arrays_of(const AdamaxLists& lists, int64_t& blocks) {
  std::vector<Parameter<T>> out;
  blocks = 0;
  for (size_t i = 0; i < lists.params.size(); ++i) {
    Tensor param = lists.params[i], average = lists.exp_avgs[i], largest = lists.exp_infs[i];
    out.push_back({static_cast<T*>(param.mutable_data_ptr()), static_cast<T*>(average.mutable_data_ptr()),
                   static_cast<T*>(largest.mutable_data_ptr()), static_cast<const T*>(lists.grads[i].const_data_ptr()),
                   param.numel(), blocks});
    blocks += blocks_of(param.numel());
  }
  return out;
}

template <class T>
void step(const AdamaxLists& lists, const AdamaxSettings& s) {
  int64_t blocks;
  const std::vector<Parameter<T>> parameters = arrays_of<T>(lists, blocks);
  const AdamaxConstants<T> constants{static_cast<T>(s.rate), static_cast<T>(1 - s.beta1), static_cast<T>(s.beta2),
                                     static_cast<T>(s.eps), static_cast<T>(s.weight_decay)};
  const auto kernel = kernels<T>().adamax_step;
  torch::stable::parallel_for(0, blocks, grain_of(block_size), [&](int64_t begin, int64_t end) {
    auto p = std::upper_bound(parameters.begin(), parameters.end(), begin,
                              [](int64_t block, const Parameter<T>& q) { return block < q.first_block; }) -
             1;
    for (int64_t block = begin; block < end; ++block) {
      while (block >= p->first_block + blocks_of(p->size)) ++p;
      const int64_t i = (block - p->first_block) * block_size;
      const AdamaxBlock<T> part{p->param + i, p->exp_avg + i, p->exp_inf + i, p->grad + i,
                                std::min(block_size, p->size - i)};
      kernel(part, constants);
    }
  });
}

void adamax_step(const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                 const std::vector<Tensor>& exp_avgs, const std::vector<Tensor>& exp_infs, double rate, double beta1,
                 double beta2, double eps, double weight_decay) {
  const AdamaxLists lists{params, grads, exp_avgs, exp_infs};
  const AdamaxSettings settings{rate, beta1, beta2, eps, weight_decay};
  check_adamax(lists, settings);
  if (params.empty()) return;
  if (is_double(params[0]))
    step<double>(lists, settings);
  else
    step<float>(lists, settings);
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) { m.impl("adamax_step", TORCH_BOX(&hk::adamax_step)); }
