// masked_network: forward and backward. Contract: hybridkern/ops.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "../cpu/operand.h"
#include "layers_impl.h"

namespace hk {
namespace {

using masked::Layer;
using masked::Layers;

Tensor dense_of(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }
int64_t slices_of(int64_t rows) { return (rows + masked_slice - 1) / masked_slice; }
int64_t rows_at(int64_t slice, int64_t rows) { return std::min(masked_slice, rows - slice * masked_slice); }

// Rows of `width` numbers that lie `from_row` apart to others, `to_row` apart, and zeros behind them.
template <class T>
void copy_rows(const T* from, int64_t from_row, T* to, int64_t to_row, int64_t width, int64_t rows, bool pad) {
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(to + r * to_row, from + r * from_row, width * sizeof(T));
    if (pad) std::fill(to + r * to_row + width, to + (r + 1) * to_row, T{});
  }
}

// What lies behind the blocks of a row: nobody reads it, but the same call gives the same numbers.
template <class T>
void clear_rest(T* to, int64_t row, int64_t width, int64_t rows) {
  for (int64_t r = 0; width < row && r < rows; ++r) std::fill(to + r * row + width, to + (r + 1) * row, T{});
}

// Where each layer's results lie in `hidden`: by layers, rows of each together.
template <class T>
std::vector<int64_t> places_of(const Layers<T>& layers, int64_t rows) {
  std::vector<int64_t> places{0};
  for (const Layer<T>& layer : layers.all()) places.push_back(places.back() + layer.out_row * rows);
  return places;
}

template <class T>
struct Pass {
  const Layers<T>& layers;
  int activation;
  const T* x;
  int64_t rows;
  T* y;
  T* hidden;  // nullptr: not kept
};

template <class T>
void forward_slice(const Pass<T>& pass, const std::vector<int64_t>& places, int64_t slice) {
  const Layers<T>& layers = pass.layers;
  const int64_t count = layers.count(), total = layers.row_total(), begin = slice * masked_slice;
  // results of each layer where they are not kept, and its sums where a later layer adds them
  T* own = static_cast<T*>(network::scratch(2 * total * masked_slice * sizeof(T)));
  T* sums = own + total * masked_slice;
  std::vector<T*> plain(count);
  const T* left = pass.x + begin * layers[0].in;
  int64_t left_row = layers[0].in;
  for (int64_t i = 0; i < count; ++i) {
    const Layer<T>& layer = layers[i];
    const bool last = i == count - 1, kept = pass.hidden && !last;
    const bool direct = last && layer.skip < 0 && layer.out % masked_lanes == 0;
    T* out = direct ? pass.y + begin * layer.out : kept ? pass.hidden + places[i] + begin * layer.out_row : own;
    const int64_t out_row = direct ? layer.out : layer.out_row;
    if (layer.added) plain[i] = sums;
    MaskedProduct<T> product{.left = left,
                             .left_row = left_row,
                             .matrix = layer.matrix,
                             .matrix_row = layer.out_row,
                             .ranges = layer.seen,
                             .blocks = layer.out_blocks(),
                             .rows = rows_at(slice, pass.rows),
                             .activation = layer.activated ? pass.activation : 0,
                             .start = layer.start,
                             .skip = layer.skip < 0 ? nullptr : plain[layer.skip],
                             .plain = plain[i],
                             .out = out,
                             .out_row = out_row};
    kernels<T>().masked_forward(product);
    if (kept) clear_rest(out, out_row, layer.out_blocks() * masked_lanes, product.rows);
    if (last && !direct) copy_rows(out, out_row, pass.y + begin * layer.out, layer.out, layer.out, product.rows, false);
    left = out, left_row = out_row;
    own += layer.out_row * masked_slice, sums += layer.out_row * masked_slice;
  }
}

template <class T>
void forward_of(const MaskedLists& lists, int64_t activation, const Tensor& x, Tensor& y, Tensor* hidden) {
  const Layers<T> layers(lists, false);
  const Tensor dense = dense_of(x);
  const Pass<T> pass{
      layers,    static_cast<int>(activation),          static_cast<const T*>(dense.const_data_ptr()),
      x.size(0), static_cast<T*>(y.mutable_data_ptr()), hidden ? static_cast<T*>(hidden->mutable_data_ptr()) : nullptr};
  const std::vector<int64_t> places = places_of(layers, pass.rows);
  torch::stable::parallel_for(0, slices_of(pass.rows), 1, [&](int64_t begin, int64_t end) {
    for (int64_t slice = begin; slice < end; ++slice) forward_slice(pass, places, slice);
  });
}

std::tuple<Tensor, Tensor> masked_network_forward(const Tensor& x, const std::vector<Tensor>& weights,
                                                  const std::vector<Tensor>& biases, const std::vector<Tensor>& masks,
                                                  const std::vector<int64_t>& plan, int64_t activation, bool save) {
  const MaskedLists lists{weights, biases, masks, plan};
  check_masked_network(x, lists, activation);
  const int64_t sizes[] = {x.size(0), weights.back().size(0)}, kept = save ? x.size(0) * masked_kept(weights) : 0;
  Tensor y = empty_tensor(sizes, 2, x.scalar_type()), hidden = empty_tensor(&kept, 1, x.scalar_type());
  if (x.size(0) > 0)
    (is_double(x) ? forward_of<double> : forward_of<float>)(lists, activation, x, y, save ? &hidden : nullptr);
  return {y, hidden};
}

// What the backward pass works on. Rows go through it in groups, whose gradients and results the second-level cache
// holds: first the gradients of the layers' sums, divided by slices, then those of the weights, divided by units; so
// every sum has one order, whatever the number of threads.
template <class T>
class Backward {
 public:
  Backward(const MaskedLists& lists, int64_t activation, const Tensor& grad, const Tensor& x, const Tensor& hidden)
      : layers_(lists, true),
        activation_(static_cast<int>(activation)),
        rows_(x.size(0)),
        grad_(dense_of(grad)),
        x_(dense_of(x)),
        hidden_(static_cast<const T*>(hidden.const_data_ptr())),
        places_(places_of(layers_, rows_)) {
    constexpr int64_t cached = (1 << 20) / sizeof(T), most = 16;  // numbers; slices
    const int64_t a_slice = 2 * masked_slice * layers_.row_total();
    group_ = std::clamp<int64_t>(cached / a_slice, 1, most) * masked_slice;
    group_ = std::min(group_, slices_of(rows_) * masked_slice);
    int64_t numbers = group_ * layers_[0].in_row;
    for (const Layer<T>& layer : layers_.all()) {
      numbers += group_ * layer.out_row + layer.out_blocks() * masked_lanes * (layer.in_row + 1);
      for (int64_t b = 0; b < layer.out_blocks(); ++b) units_.push_back({&layer - layers_.all().data(), b});
    }
    inputs_ = static_cast<T*>(masked::reused<masked::Reused::gradients>(numbers * sizeof(T)));
    T* next = inputs_ + group_ * layers_[0].in_row;
    for (const Layer<T>& layer : layers_.all()) {
      grads_.push_back(next), next += group_ * layer.out_row;
      sums_.push_back(next), next += layer.out_blocks() * masked_lanes * layer.in_row;
      bias_sums_.push_back(next), next += layer.out_blocks() * masked_lanes;
      std::fill(sums_.back(), next, T{});
    }
  }

  void run(T* grad_x, const std::vector<T*>& weights, const std::vector<T*>& biases) {
    for (int64_t first = 0; first < rows_; first += group_) {
      const int64_t rows = std::min(group_, rows_ - first);
      torch::stable::parallel_for(0, slices_of(rows), 1, [&](int64_t begin, int64_t end) {
        for (int64_t slice = begin; slice < end; ++slice) gradients(first, slice, rows_at(slice, rows), grad_x);
      });
      torch::stable::parallel_for(0, static_cast<int64_t>(units_.size()), grain(rows), [&](int64_t begin, int64_t end) {
        for (int64_t u = begin; u < end; ++u) weight_gradients(units_[u], first, rows);
      });
    }
    for (const Unit& unit : units_) write(unit, weights[unit.layer], biases[unit.layer]);
  }

 private:
  struct Unit {
    int64_t layer, block;
  };

  int64_t grain(int64_t rows) const { return rows > masked_slice ? 1 : static_cast<int64_t>(units_.size()); }

  const T* results(int64_t layer, int64_t row) const { return hidden_ + places_[layer] + row * layers_[layer].out_row; }

  // Gradients of the sums of every layer, and of x, for a slice of the group.
  void gradients(int64_t first, int64_t slice, int64_t rows, T* grad_x) {
    const int64_t at = slice * masked_slice, row = first + at, count = layers_.count(), in = layers_[0].in;
    const Layer<T>& last = layers_[count - 1];
    copy_rows(static_cast<const T*>(grad_.const_data_ptr()) + row * last.out, last.out,
              grads_[count - 1] + at * last.out_row, last.out_row, last.out, rows, true);
    copy_rows(static_cast<const T*>(x_.const_data_ptr()) + row * in, in, inputs_ + at * layers_[0].in_row,
              layers_[0].in_row, in, rows, true);
    std::vector<const T*> more;
    for (int64_t i = count - 1; i > 0; --i) {
      more.clear();
      for (int64_t j = i; j < count; ++j)
        if (layers_[j].skip == i - 1) more.push_back(grads_[j] + at * layers_[j].out_row);
      product(i, at, rows, grads_[i - 1] + at * layers_[i].in_row, layers_[i].in_row,
              layers_[i - 1].activated ? results(i - 1, row) : nullptr, more);
    }
    if (!grad_x) return;
    const bool direct = in % masked_lanes == 0;
    more.clear();
    T* to =
        direct ? grad_x + row * in : static_cast<T*>(network::scratch(masked_slice * layers_[0].in_row * sizeof(T)));
    product(0, at, rows, to, direct ? in : layers_[0].in_row, nullptr, more);
    if (!direct) copy_rows(to, layers_[0].in_row, grad_x + row * in, in, in, rows, false);
  }

  void product(int64_t i, int64_t at, int64_t rows, T* out, int64_t out_row, const T* gate,
               const std::vector<const T*>& more) const {
    const Layer<T>& layer = layers_[i];
    kernels<T>().masked_backward({.left = grads_[i] + at * layer.out_row,
                                  .left_row = layer.out_row,
                                  .matrix = layer.matrix,
                                  .matrix_row = layer.in_row,
                                  .ranges = layer.feeds,
                                  .blocks = layer.in_blocks(),
                                  .rows = rows,
                                  .activation = activation_,
                                  .gate = gate,
                                  .more = more.data(),
                                  .more_count = static_cast<int64_t>(more.size()),
                                  .out = out,
                                  .out_row = out_row});
  }

  void weight_gradients(const Unit& unit, int64_t first, int64_t rows) const {
    const Layer<T>& layer = layers_[unit.layer];
    const int64_t column = unit.block * masked_lanes;
    kernels<T>().masked_gradient({.grads = grads_[unit.layer] + column,
                                  .grads_row = layer.out_row,
                                  .inputs = unit.layer ? results(unit.layer - 1, first) : inputs_,
                                  .inputs_row = layer.in_row,
                                  .rows = rows,
                                  .blocks = layer.seen[unit.block],
                                  .sums = sums_[unit.layer] + column * layer.in_row,
                                  .sums_row = layer.in_row,
                                  .bias_sums = bias_sums_[unit.layer] + column});
  }

  // From the order of the places to that of the units, times the mask.
  void write(const Unit& unit, T* weight, T* bias) {
    const Layer<T>& layer = layers_[unit.layer];
    row_.resize(layer.in);
    const int64_t begin = unit.block * masked_lanes, end = std::min(begin + masked_lanes, layer.out);
    for (int64_t o = begin; o < end; ++o) {
      const int64_t own = layer.order[o];
      const T *sums = sums_[unit.layer] + o * layer.in_row, *mask = layer.mask + own * layer.in;
      for (int64_t k = 0; k < layer.in; ++k) row_[layer.inputs[k]] = sums[k];
      for (int64_t k = 0; k < layer.in; ++k) weight[own * layer.in + k] = row_[k] * mask[k];
      bias[own] = bias_sums_[unit.layer][o];
    }
  }

  const Layers<T> layers_;
  int activation_;
  int64_t rows_, group_;
  Tensor grad_, x_;
  const T* hidden_;
  std::vector<int64_t> places_;
  std::vector<Unit> units_;
  T* inputs_;
  std::vector<T*> grads_, sums_, bias_sums_;
  std::vector<T> row_;
};

template <class T>
void backward_of(const MaskedLists& lists, int64_t activation, const Tensor& grad, const Tensor& x,
                 const Tensor& hidden, Tensor* grad_x, std::vector<Tensor>& weights, std::vector<Tensor>& biases) {
  std::vector<T*> to_weights, to_biases;
  for (Tensor& each : weights) to_weights.push_back(static_cast<T*>(each.mutable_data_ptr()));
  for (Tensor& each : biases) to_biases.push_back(static_cast<T*>(each.mutable_data_ptr()));
  Backward<T>(lists, activation, grad, x, hidden)
      .run(grad_x ? static_cast<T*>(grad_x->mutable_data_ptr()) : nullptr, to_weights, to_biases);
}

std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> masked_network_backward(
    const Tensor& grad, const Tensor& x, const Tensor& hidden, const std::vector<Tensor>& weights,
    const std::vector<Tensor>& biases, const std::vector<Tensor>& masks, const std::vector<int64_t>& plan,
    int64_t activation, bool wants_x) {
  const MaskedLists lists{weights, biases, masks, plan};
  check_masked_backward(grad, x, hidden, lists, activation);
  const int64_t sizes[] = {wants_x ? x.size(0) : 0, x.size(1)};
  Tensor grad_x = empty_tensor(sizes, 2, x.scalar_type());
  std::vector<Tensor> grad_weights, grad_biases;
  for (const Tensor& each : weights) grad_weights.push_back(empty_shaped_like(each));
  for (const Tensor& each : biases) grad_biases.push_back(empty_shaped_like(each));
  if (x.size(0) > 0) {
    (is_double(x) ? backward_of<double> : backward_of<float>)(lists, activation, grad, x, hidden,
                                                              wants_x ? &grad_x : nullptr, grad_weights, grad_biases);
  } else {
    for (std::vector<Tensor>* list : {&grad_weights, &grad_biases})
      for (Tensor& each : *list) torch::stable::zero_(each);
  }
  return {grad_x, grad_weights, grad_biases};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("masked_network_forward", TORCH_BOX(&hk::masked_network_forward));
  m.impl("masked_network_backward", TORCH_BOX(&hk::masked_network_backward));
}
