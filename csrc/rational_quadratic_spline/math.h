// The rational-quadratic spline: one element in its bin, forward, inverse and backward.
//
// Positions are parts of the interval [low, high], in fixed point: edges of bins are sums of widths, which are exact
// there, and so is the distance of an element from the edges of its bin. With the bin's width w and height h, the
// slope s = h/w, the derivatives d0 and d1 at its ends, t the place in the bin and u = 1 - t:
//
//   D = s (t^2 + u^2) + (d0 + d1) t u        y = y0 + h (s t^2 + d0 t u) / D
//   Q = d1 t^2 + 2 s t u + d0 u^2            dy/dx = s^2 Q / D^2
//
// and backward, with v = (y - y0)/h, q = d0 (1 - v) - d1 v and r = sqrt(q^2 + 4 s^2 v (1 - v)): t : u is 2 s v : q + r,
// or r - q : 2 s (1 - v) where q < 0. Every sum is one of positive numbers.
#pragma once

#include "../math/elementary.h"

namespace hk::HK_ISA {

// ---- fixed point -------------------------------------------------------------------------------------------------

// The whole interval; edges of bins and places of elements are integers from 0 to that.
template <class T>
constexpr T whole = sizeof(T) == 4 ? T(1073741824.0) : T(1152921504606846976.0);  // 2^30, 2^60

// Towards zero. What is no number becomes some integer; NaN is carried along beside it.
HK_INLINE int64_t to_fixed(double v) { return absolute(v) < 4e18 ? static_cast<int64_t>(v) : 0; }
HK_INLINE double from_fixed(int64_t v) { return static_cast<double>(v); }
HK_INLINE double square_root(double v) { return std::sqrt(v); }
#if HK_LANES > 1
HK_INLINE Ints to_fixed(Floats v) { return __builtin_convertvector(v, Ints); }
HK_INLINE Floats from_fixed(Ints v) { return __builtin_convertvector(v, Floats); }
#if HK_LANES == 16
HK_INLINE Floats square_root(Floats v) { return bits_as<Floats>(_mm512_sqrt_ps(bits_as<__m512>(v))); }
#elif HK_LANES == 8
HK_INLINE Floats square_root(Floats v) { return bits_as<Floats>(_mm256_sqrt_ps(bits_as<__m256>(v))); }
#else
HK_INLINE Floats square_root(Floats v) {
  for (int i = 0; i < HK_LANES; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}
#endif
#endif

// ---- exponentials of a softmax ------------------------------------------------------------------------------------

// What exponentials are taken relative to. A difference of two numbers would be rounded, so floats, unless they are
// large, are not subtracted: 2^n of the largest one is divided out.
template <class V>
struct Top {
  V base, n;
};

HK_INLINE Top<double> top_of(double largest) { return {largest, 0}; }
HK_INLINE double exponential_below(double a, const Top<double>& top) { return std::exp(a - top.base); }
#if HK_LANES > 1
constexpr float small_exponent = 1000;  // n*ln2 is formed exactly up to there
HK_INLINE Top<Floats> top_of(Floats largest) {
  const Floats base = select(absolute(largest) > small_exponent, largest, Floats{});
  return {base, exp_parts(largest - base).n};
}
HK_INLINE Floats exponential_below(Floats a, const Top<Floats>& top) {
  ExpParts<Floats> e = exp_parts(at_least(a - top.base, -1.2f * small_exponent));
  e.n = e.n - top.n;
#if HK_LANES != 16
  e.n = at_least(e.n, -200);
  e.shifted = e.n + shifter;
#endif
  return scale_by_power<Floats>(e.q + 1.0f, e);
}
#endif

// ---- derivatives at knots ----------------------------------------------------------------------------------------

template <class V>
struct Knot {
  V d, slope;  // the derivative of the spline there, and the derivative of that in its raw parameter
};

// least + log(1 + exp(beta r))/beta
template <class V>
HK_INLINE Knot<V> softplus_knot(V r, ScalarOf<V> least, ScalarOf<V> beta, ScalarOf<V> inverse_beta) {
  const V v = r * beta, q = exponential_of_negative(minus_absolute(v)), one_over = 1 / (q + 1);
  const V d = (at_least(v, 0) + log_one_plus(q)) * inverse_beta + least;
  return {d, select(v > 0, one_over, q * one_over)};
}

// exp(r/(1 + |r|/bound)); bound <= 70
template <class V>
HK_INLINE Knot<V> clipped_knot(V r, ScalarOf<V> inverse_bound) {
  const V shrink = 1 / (absolute(r) * inverse_bound + 1), d = exponential_of_moderate(r * shrink);
  return {d, d * shrink * shrink};
}

// ---- one element in its bin --------------------------------------------------------------------------------------

template <class V>
struct Bin {
  V width, height, s;  // of the bin as parts of the interval, and their ratio
  V d0, d1;
  V t, u;  // forward from x, inverse from y
};

template <class V>
struct BinTerms {
  V tt, uu, tu, inverse_d, ratio, q;  // ratio: s/D
};

template <class V>
HK_INLINE BinTerms<V> bin_terms(const Bin<V>& b) {
  const V tt = b.t * b.t, uu = b.u * b.u, tu = b.t * b.u;
  const V inverse_d = 1 / (b.s * (tt + uu) + (b.d0 + b.d1) * tu);
  return {tt, uu, tu, inverse_d, b.s * inverse_d, b.d1 * tt + 2 * b.s * tu + b.d0 * uu};
}

// (y - y0)/h
template <class V>
HK_INLINE V height_of(const Bin<V>& b, const BinTerms<V>& m) {
  return (b.s * m.tt + b.d0 * m.tu) * m.inverse_d;
}

// log dy/dx
template <class V>
HK_INLINE V log_slope_of(const BinTerms<V>& m) {
  return logarithm((m.ratio * m.q) * m.ratio);
}

// t and u from v = (y - y0)/h and its complement. Only the ratios of the slopes matter: taken to 1, none overflows.
template <class V>
HK_INLINE void solve(Bin<V>& b, V v, V rest) {
  const V unit = 1 / (b.d0 + b.d1 + b.s), double_s = 2 * b.s * unit;
  const V q = b.d0 * unit * rest - b.d1 * unit * v, sv = double_s * v, sr = double_s * rest;
  const V r = square_root(q * q + sv * sr);
  const auto turned = q < 0;
  const V first = select(turned, r - q, sv), second = select(turned, sr, q + r);
  const V scale = 1 / (first + second);
  b.t = first * scale;
  b.u = second * scale;
}

// Gradients of a loss in what describes a bin, all in parts of the interval: its place x0, width, place y0, height, and
// the derivatives at its ends; and in the element that came in.
template <class V>
struct BinGradients {
  V x0, width, y0, height, d0, d1, given;
};

// `grad` is the gradient of the loss in what came out, times the width of the interval, `grad_log` that of the
// logarithm of the derivative of the direction computed.
//
// The inverse is x0 + w t(v) with log-derivative -log dy/dx: its gradients are those of the forward formula under the
// gradients of y and log dy/dx that leave x where it is.
template <bool Inverse, class V>
HK_INLINE BinGradients<V> bin_gradients(const Bin<V>& b, const BinTerms<V>& m, V grad, V grad_log) {
  const V inverse_q = 1 / m.q, inverse_w = 1 / b.width, both = b.d0 + b.d1;
  const V side = b.u - b.t;
  const V log_t = 2 * ((b.d1 * b.t - b.d0 * b.u + b.s * side) * inverse_q - (both - 2 * b.s) * side * m.inverse_d);
  const V height_t = b.height * (m.ratio * m.q * m.inverse_d);  // h dv/dt
  V of_y, of_log, of_t;
  if constexpr (Inverse) {
    of_log = -grad_log;
    of_t = -grad * b.width;
    of_y = (of_t - of_log * log_t) / height_t;
  } else {
    of_log = grad_log;
    of_y = grad;
    of_t = of_y * height_t + of_log * log_t;
  }
  const V of_v = of_y * b.height, part = m.tu * m.inverse_d, part_v = of_v * part * m.inverse_d;
  const V of_s = part_v * (b.d1 * m.tt - b.d0 * m.uu) + of_log * (2 * m.tu) * (both * m.inverse_d / b.s + inverse_q);
  BinGradients<V> g;
  g.d0 = part_v * b.u * (b.s * b.u + b.d1 * b.t) + of_log * (m.uu * inverse_q - 2 * part);
  g.d1 = of_log * (m.tt * inverse_q - 2 * part) - part_v * b.t * (b.s * b.t + b.d0 * b.u);
  g.x0 = -of_t * inverse_w;
  g.width = -(of_t * b.t + of_s * b.s) * inverse_w;
  g.y0 = of_y;
  g.height = of_y * height_of(b, m) + of_s * inverse_w;
  g.given = Inverse ? -of_y : -g.x0;
  return g;
}

}  // namespace hk::HK_ISA
