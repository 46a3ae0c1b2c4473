// rounding_coupling_mirrored: one coupling of two halves with the reversal that follows it. Contract: hybridkern/ops.
//
// Small vectors are what this is for: there the cost of a step is that of the calls, so one call does it all.
#include <cmath>
#include <tuple>

#include "../check.h"
#include "../cpu/operand.h"

namespace hk {
namespace {

template <class T>
struct Rows {
  T* data;
  int64_t stride;
  T* row(int64_t b) const { return data + b * stride; }
};

template <class T>
Rows<const T> rows_of(const Tensor& tensor) {
  return {static_cast<const T*>(tensor.const_data_ptr()), tensor.stride(0)};
}

template <class T>
Rows<T> writable_rows(Tensor& tensor) {
  return {static_cast<T*>(tensor.mutable_data_ptr()), tensor.stride(0)};
}

template <class T>
T round_half_even(T x) {
  constexpr T whole = sizeof(T) == 4 ? T(8388608) : T(4503599627370496);
  const T t = std::fabs(x);
  return std::copysign(t < whole ? (t + whole) - whole : t, x);
}

// z = (reversed y, reversed a) with y = b + round(beta*t), or b + beta*round(t) off the lattice.
template <class T>
void forward(const Tensor& a, const Tensor& b, const Tensor& t, T beta, bool lattice, Tensor& z) {
  const Rows<const T> as = rows_of<T>(a), bs = rows_of<T>(b), ts = rows_of<T>(t);
  const Rows<T> zs = writable_rows<T>(z);
  const int64_t half = a.size(1);
  const T inner = lattice ? beta : T(1), outer = lattice ? T(1) : beta;
  torch::stable::parallel_for(0, a.size(0), grain_of(2 * half), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T *pa = as.row(r), *pb = bs.row(r), *pt = ts.row(r);
      T* pz = zs.row(r);
      for (int64_t i = 0; i < half; ++i) pz[half - 1 - i] = pb[i] + outer * round_half_even(inner * pt[i]);
      for (int64_t i = 0; i < half; ++i) pz[2 * half - 1 - i] = pa[i];
    }
  });
}

// The gradients of the two halves of z give those of a, b, t and, as the returned sum, of beta.
template <class T>
double backward(const Tensor& first, const Tensor& second, const Tensor& t, T beta, bool lattice, Tensor& grad_a,
                Tensor& grad_b, Tensor& grad_t) {
  const Rows<const T> fs = rows_of<T>(first), ss = rows_of<T>(second), ts = rows_of<T>(t);
  const Rows<T> gas = writable_rows<T>(grad_a), gbs = writable_rows<T>(grad_b), gts = writable_rows<T>(grad_t);
  const int64_t rows = t.size(0), half = t.size(1);
  RowSums sums(rows, 1);
  torch::stable::parallel_for(0, rows, grain_of(4 * half), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T *pf = fs.row(r), *ps = ss.row(r), *pt = ts.row(r);
      T *pa = gas.row(r), *pb = gbs.row(r), *pg = gts.row(r);
      T lanes[8] = {};
      for (int64_t i = 0; i < half; ++i) {
        const T g = pf[half - 1 - i];
        pb[i] = g;
        pg[i] = beta * g;
        pa[i] = ps[half - 1 - i];
        lanes[i % 8] += g * (lattice ? pt[i] : round_half_even(pt[i]));
      }
      double sum = 0;
      for (const T lane : lanes) sum += lane;
      sums.at(r, 0) = sum;
    }
  });
  double total = 0;
  for (int64_t r = 0; r < rows; ++r) total += sums.total(r);
  return total;
}

void check_factor(const Tensor& beta, int64_t index, const Argument& main) {
  const Argument factors("beta", beta);
  check_same_type(factors, main);
  if (factors.dims != 1) refuse("beta", "shape " + text_of(factors.shape()), "one dimension");
  if (index < 0 || index >= factors.sizes[0])
    refuse("index", std::to_string(index), "one of the " + std::to_string(factors.sizes[0]) + " places of beta");
}

// Rows without gaps, at any distance.
Tensor with_whole_rows(const Tensor& matrix) {
  return matrix.stride(1) == 1 || matrix.size(1) <= 1 ? matrix : torch::stable::contiguous(matrix);
}

template <class T>
T element(const Tensor& values, int64_t index) {
  return static_cast<const T*>(values.const_data_ptr())[index * values.stride(0)];
}

Tensor empty_matrix(const Tensor& like, int64_t columns) {
  const int64_t sizes[2] = {like.size(0), columns};
  return empty_tensor(sizes, 2, like.scalar_type());
}

Tensor rounding_coupling_mirrored_forward(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta,
                                          int64_t index, bool lattice) {
  const Argument main = working_argument("a", a, 2);
  check_like("b", b, main);
  check_like("t", t, main);
  check_factor(beta, index, main);
  Tensor z = empty_matrix(a, 2 * a.size(1));
  const Tensor ar = with_whole_rows(a), br = with_whole_rows(b), tr = with_whole_rows(t);
  if (is_double(a))
    forward<double>(ar, br, tr, element<double>(beta, index), lattice, z);
  else
    forward<float>(ar, br, tr, element<float>(beta, index), lattice, z);
  return z;
}

template <class T>
void write_at(Tensor& values, int64_t index, double value) {
  T* p = static_cast<T*>(values.mutable_data_ptr());
  for (int64_t i = 0; i < values.size(0); ++i) p[i] = i == index ? static_cast<T>(value) : T(0);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rounding_coupling_mirrored_backward(const Tensor& first,
                                                                               const Tensor& second, const Tensor& t,
                                                                               const Tensor& beta, int64_t index,
                                                                               bool lattice) {
  const Argument main = working_argument("t", t, 2);
  check_like("first", first, main);
  check_like("second", second, main);
  check_factor(beta, index, main);
  const int64_t half = t.size(1);
  const Tensor fr = with_whole_rows(first), sr = with_whole_rows(second), tr = with_whole_rows(t);
  Tensor grad_a = empty_matrix(t, half), grad_b = empty_matrix(t, half), grad_t = empty_matrix(t, half);
  Tensor grad_beta = empty_shaped_like(beta);
  if (is_double(t))
    write_at<double>(grad_beta, index,
                     backward<double>(fr, sr, tr, element<double>(beta, index), lattice, grad_a, grad_b, grad_t));
  else
    write_at<float>(grad_beta, index,
                    backward<float>(fr, sr, tr, element<float>(beta, index), lattice, grad_a, grad_b, grad_t));
  return {grad_a, grad_b, grad_t, grad_beta};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("rounding_coupling_mirrored_forward", TORCH_BOX(&hk::rounding_coupling_mirrored_forward));
  m.impl("rounding_coupling_mirrored_backward", TORCH_BOX(&hk::rounding_coupling_mirrored_backward));
}
