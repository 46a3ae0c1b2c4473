// What masked_network asks of its arguments, on CPUs; each name is that of the schema.
#pragma once

#include <string>
#include <vector>

#include "../check.h"
#include "network.h"

namespace hk {

struct MaskedLists {
  const std::vector<Tensor>&weights, &biases, &masks;
  const std::vector<int64_t>& plan;  // of each layer: 2 (the layer whose sums are added, from 1; 0: none) + activated
};

inline int64_t masked_skip(int64_t code) { return code / 2 - 1; }
inline bool is_activated(int64_t code) { return code % 2 != 0; }

inline void check_masked_count(const char* name, size_t got, size_t expected) {
  if (got != expected)
    refuse(name, std::to_string(got) + (got == 1 ? " tensor" : " tensors"),
           std::to_string(expected) + ", one for each of weights");
}

inline std::string masked_name(const char* name, size_t i) { return std::string(name) + '[' + std::to_string(i) + ']'; }

inline void check_masked_plan(const MaskedLists& lists, int64_t activation) {
  const size_t layers = lists.weights.size();
  if (lists.plan.size() != layers)
    refuse("plan", std::to_string(lists.plan.size()) + " numbers",
           std::to_string(layers) + ", one for each of weights");
  if (is_activated(lists.plan.back())) refuse("plan", "an activation of the last layer", "one of hidden layers alone");
  if (activation < 0 || activation >= masked_activations)
    refuse("activation", std::to_string(activation), "a place in ACTIVATIONS");
  for (size_t i = 0; i < layers; ++i) {
    const int64_t code = lists.plan[i], skip = masked_skip(code);
    if (code < 0 || skip >= static_cast<int64_t>(i))
      refuse(masked_name("plan", i), std::to_string(code), "an earlier layer to add, or none");
    if (skip >= 0 && lists.weights[skip].size(0) != lists.weights[i].size(0))
      refuse(masked_name("plan", i), "a layer of " + std::to_string(lists.weights[skip].size(0)) + " units to add",
             "one of " + std::to_string(lists.weights[i].size(0)));
  }
}

// Returns x.
inline Argument check_masked_network(const Tensor& x, const MaskedLists& lists, int64_t activation) {
  const Argument main = working_argument("x", x, 2);
  if (main.sizes[1] < 1) refuse("x", "shape " + text_of(main.shape()), "(B, D) with a number at least");
  const size_t layers = lists.weights.size();
  if (layers < 1 || layers > masked_most_layers)
    refuse("weights", std::to_string(layers) + " tensors", "1 to " + std::to_string(masked_most_layers));
  check_masked_count("biases", lists.biases.size(), layers);
  check_masked_count("masks", lists.masks.size(), layers);
  int64_t inputs = main.sizes[1];
  for (size_t i = 0; i < layers; ++i) {
    const std::string names[] = {masked_name("weights", i), masked_name("biases", i), masked_name("masks", i)};
    const Argument weight(names[0].c_str(), lists.weights[i]);
    check_device(weight, main);
    if (weight.dims != 2 || weight.sizes[0] < 1)
      refuse(weight.name, "shape " + text_of(weight.shape()), "(units, " + std::to_string(inputs) + ")");
    const int64_t units = weight.sizes[0];
    if (units > masked_most_width || inputs > masked_most_width)
      refuse(weight.name, "shape " + text_of(weight.shape()), std::to_string(masked_most_width) + " at most a side");
    check_exactly(weight.name, lists.weights[i], main, {2, {units, inputs}});
    check_exactly(names[1].c_str(), lists.biases[i], main, {1, {units}});
    check_exactly(names[2].c_str(), lists.masks[i], main, {2, {units, inputs}});
    inputs = units;
  }
  check_masked_plan(lists, activation);
  return main;
}

// Numbers that forward keeps for each example: the results of all layers but the last.
inline int64_t masked_kept(const std::vector<Tensor>& weights) {
  int64_t kept = 0;
  for (size_t i = 0; i + 1 < weights.size(); ++i) kept += masked_row(weights[i].size(0));
  return kept;
}

inline void check_masked_backward(const Tensor& grad, const Tensor& x, const Tensor& hidden, const MaskedLists& lists,
                                  int64_t activation) {
  const Argument main = check_masked_network(x, lists, activation);
  check_exactly("grad", grad, main, {2, {main.sizes[0], lists.weights.back().size(0)}});
  check_exactly("hidden", hidden, main, {1, {main.sizes[0] * masked_kept(lists.weights)}});
  if (!hidden.is_contiguous()) refuse("hidden", "strides with gaps", "a contiguous tensor");
}

}  // namespace hk
