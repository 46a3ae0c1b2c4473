// Checks of a step of adamax: everything that is written lies where the kernel takes it to lie, and once only.
#include <algorithm>
#include <limits>
#include <string>

#include "../check.h"
#include "lists.h"

namespace hk {
namespace {

std::string at(const char* list, size_t i) { return std::string(list) + "[" + std::to_string(i) + "]"; }

std::string strides_of(const Argument& value) {
  Shape strides{value.dims, {}};
  std::copy_n(value.strides, value.dims, strides.sizes);
  return "strides " + text_of(strides);
}

int64_t elements_of(const Argument& value) {
  int64_t count = 1;
  for (int64_t d = 0; d < value.dims; ++d) count *= value.sizes[d];
  return count;
}

bool is_contiguous(const Argument& value) {
  int64_t step = 1;
  for (int64_t d = value.dims - 1; d >= 0; step *= value.sizes[d--])
    if (value.sizes[d] != 1 && value.strides[d] != step) return false;
  return true;
}

// Whether the elements fill one stretch of memory, each place once.
bool is_dense(const Argument& value) {
  if (is_contiguous(value)) return true;
  int64_t order[most_dims], dims = 0, step = 1;
  for (int64_t d = 0; d < value.dims; ++d)
    if (value.sizes[d] != 1) order[dims++] = d;
  std::sort(order, order + dims, [&](int64_t a, int64_t b) { return value.strides[a] < value.strides[b]; });
  for (int64_t k = 0; k < dims; step *= value.sizes[order[k++]])
    if (value.strides[order[k]] != step) return false;
  return true;
}

// Whether elements of one place in both tensors lie equally far from their first ones; shapes are the same.
bool lie_alike(const Argument& value, const Argument& param) {
  for (int64_t d = 0; d < param.dims; ++d)
    if (value.strides[d] != param.strides[d] && param.sizes[d] != 1) return false;
  return true;
}

// Of the shape, type, device and order in memory of its parameter.
void check_beside(const char* list, size_t i, const Argument& value, const Argument& param, int64_t elements) {
  const auto wrong = [&](const std::string& got, const std::string& expected) {
    refuse(at(list, i), got, expected + ", that of " + at("params", i));
  };
  if (value.type != param.type) wrong("dtype " + text_of(value.type), text_of(param.type));
  if (value.device != param.device || value.device_index != param.device_index) wrong("another device", "the device");
  if (!value.has_shape_of(param)) wrong("shape " + text_of(value.shape()), text_of(param.shape()));
  if (elements > 0 && !lie_alike(value, param)) wrong(strides_of(value), strides_of(param));
}

// The memory of one tensor of a call.
struct Stretch {
  const char *begin, *end;
  uint32_t list, place;
};

// No memory may be in two places where one of them is written: blocks run in any order.
void check_apart(std::vector<Stretch>& stretches, const char* const (&names)[4]) {
  constexpr uint32_t grads = 1;
  std::sort(stretches.begin(), stretches.end(), [](const Stretch& a, const Stretch& b) { return a.begin < b.begin; });
  const Stretch *read = nullptr, *written = nullptr;  // of those seen, the ones that reach furthest
  for (const Stretch& next : stretches) {
    const Stretch* met = written && written->end > next.begin ? written : nullptr;
    if (!met && next.list != grads && read && read->end > next.begin) met = read;
    if (met) {
      const Stretch &low = met->list < next.list ? *met : next, &high = met->list < next.list ? next : *met;
      refuse(at(names[high.list], high.place), "memory of " + at(names[low.list], low.place), "a tensor of its own");
    }
    const Stretch*& furthest = next.list == grads ? read : written;
    if (!furthest || furthest->end < next.end) furthest = &next;
  }
}

void check_lists(const AdamaxLists& lists) {
  constexpr const char* names[4] = {"params", "grads", "exp_avgs", "exp_infs"};
  const std::vector<Tensor>* const all[4] = {&lists.params, &lists.grads, &lists.exp_avgs, &lists.exp_infs};
  const size_t count = lists.params.size();
  for (int list = 1; list < 4; ++list)
    if (all[list]->size() != count)
      refuse(names[list], std::to_string(all[list]->size()) + " tensors",
             std::to_string(count) + ", one for each of params");
  std::vector<Stretch> stretches;
  stretches.reserve(4 * count);
  for (size_t i = 0; i < count; ++i) {
    const Argument param("params", lists.params[i]);
    if (param.type != lists.params[0].scalar_type() ||
        (param.type != ScalarType::Float && param.type != ScalarType::Double))
      refuse(at("params", i), "dtype " + text_of(param.type),
             i == 0 ? "float32 or float64" : text_of(lists.params[0].scalar_type()) + ", that of params[0]");
    const int64_t elements = elements_of(param), bytes = elements * (param.type == ScalarType::Double ? 8 : 4);
    if (elements > 0 && !is_dense(param)) refuse(at("params", i), strides_of(param), "strides without gaps");
    for (uint32_t list = 0; list < 4; ++list) {
      const Tensor& tensor = (*all[list])[i];
      if (list > 0) check_beside(names[list], i, Argument(names[list], tensor), param, elements);
      const char* data = static_cast<const char*>(tensor.const_data_ptr());
      if (bytes > 0) stretches.push_back({data, data + bytes, list, static_cast<uint32_t>(i)});
    }
  }
  check_apart(stretches, names);
}

void check_settings(const AdamaxSettings& s) {
  constexpr double most = std::numeric_limits<double>::max(), below_one = 1 - 1e-16;
  check_range("rate", s.rate, -most, most);
  check_range("beta1", s.beta1, 0, below_one);
  check_range("beta2", s.beta2, 0, below_one);
  check_range("eps", s.eps, 0, most);
  check_range("weight_decay", s.weight_decay, -most, most);
}

}  // namespace

void check_adamax(const AdamaxLists& lists, const AdamaxSettings& settings) {
  check_settings(settings);
  check_lists(lists);
}

}  // namespace hk
