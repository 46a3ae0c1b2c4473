// The loops of rational_quadratic_spline: vectors of elements, each with all of its raw parameters.
#pragma once

#include "../cpu/kernels.h"
#include "elements.h"
#include "records.h"

namespace hk::HK_ISA {

template <class T, Scheme Scheme_, bool Inverse, bool Backward>
struct SplineBody {
  using V = typename VectorOf<T>::type;
  using I = IntOf<V>;
  static constexpr int64_t lanes = Lanes<V>::count;
  static constexpr IntOf<T> end = static_cast<IntOf<T>>(whole<T>), half = end / 2;
  const SplineBlock<T> block;  // copies: what is referred to would be read again after every store
  const SplineConstants<T> c;
  const T to_places, from_places;  // between the units of x and fixed point
  T *const raw, *const some;       // [numbers][lanes], [lanes][numbers]
  T* const exps;                   // [2 bins][lanes]
  T* const weights;                // likewise, of two vectors: the derivatives of the exponentials in the raw numbers
  IntOf<T>* const sizes;           // [2 bins][lanes]
  const T* rows = nullptr;
  int64_t stride = 0;

  SplineBody(const SplineBlock<T>& block_, const SplineConstants<T>& c_)
      : block(block_),
        c(c_),
        to_places(whole<T> / c_.range),
        from_places(c_.range / whole<T>),
        raw(block_.scratch),
        some(raw + c.numbers() * lanes),
        exps(some + c.numbers() * lanes),
        weights(exps + 2 * c.bins * lanes),
        sizes(reinterpret_cast<IntOf<T>*>(weights + 4 * c.bins * lanes)) {}

  HK_INLINE V row(int64_t p) const { return load<V>(rows + p * stride); }

  HK_INLINE void read(int64_t i, int64_t count) {
    rows = block.params + i, stride = block.stride;
    if (!block.records) return;
    const int64_t numbers = c.numbers();
    rows = block.params + i * numbers, stride = 1;
    if constexpr (lanes > 1) {
      if (count < lanes) {
        memcpy(some, rows, count * numbers * sizeof(T));
        std::fill(some + count * numbers, some + lanes * numbers, T(0));
        rows = some;
      }
      load_records(rows, numbers, raw);
      rows = raw, stride = lanes;
    }
  }

  HK_INLINE V largest(int64_t first) const {
    V top = row(first) * c.gain;
    for (int64_t j = 1; j < c.bins; ++j) {
      const V a = row(first + j) * c.gain;
      top = select(a <= top, top, a);  // a NaN wins
    }
    return top;
  }

  HK_INLINE Shares<V> shares(int side, T* weight) const {
    const int64_t first = side * c.bins;
    T* e = (Scheme_ == Scheme::nflows ? weight : exps) + first * lanes;
    IntOf<T>* fixed = sizes + first * lanes;
    V sum{};
    Top<V> top{};
    if constexpr (Scheme_ == Scheme::nflows) top = top_of(largest(first));
    for (int64_t j = 0; j < c.bins; ++j) {
      V value = row(first + j) * c.gain;
      if constexpr (Scheme_ == Scheme::nflows) {
        value = exponential_below(value, top);
      } else {
        const V shrink = 1 / (absolute(value) * (2 * c.inverse_clip) + 1);
        value = exponential_of_moderate(value * shrink);
        if constexpr (Backward) store<V>(weight + (first + j) * lanes, value * (shrink * shrink));
      }
      store<V>(e + j * lanes, value);
      sum += value;
    }
    const V per_sum = 1 / sum, scale = per_sum * (c.share[side] * whole<T>);
    I total{};
    for (int64_t j = 0; j < c.bins; ++j) {
      const I size = to_fixed(load<V>(e + j * lanes) * scale + c.floor[side] * whole<T>);
      memcpy(fixed + j * lanes, &size, sizeof(I));
      total += size;
    }
    return {fixed, total, per_sum, from_fixed(end - total) * (1 / whole<T>), c.share[side], c.floor[side]};
  }

  HK_INLINE static I size(const Shares<V>& of, int64_t j) {
    I out;
    memcpy(&out, of.sizes + j * lanes, sizeof(I));
    return out;
  }

  // The raw derivative at knot j of the K + 1; 0 where it has none.
  HK_INLINE V raw_derivative(int64_t j) const {
    const int64_t at = c.ties_ends && j == c.bins ? 0 : j - c.fixed_ends;
    return at < 0 || at >= c.derivatives ? V{} : row(2 * c.bins + at);
  }

  HK_INLINE static void advance(Found<V>& f, I z, I edge, I size, I other_edge, I other_size, int64_t j, V lower,
                                V upper) {
    const auto beyond = z >= edge;
    f.at = select(beyond, edge, f.at);
    f.size = select(beyond, size, f.size);
    f.other_at = select(beyond, other_edge, f.other_at);
    f.other_size = select(beyond, other_size, f.other_size);
    f.k = select(beyond, I{} + static_cast<IntOf<T>>(j), f.k);
    f.lower = select(beyond, lower, f.lower);
    f.upper = select(beyond, upper, f.upper);
  }

  HK_INLINE Found<V> find(I z, const Shares<V>& known, const Shares<V>& other) const {
    Found<V> f{I{}, size(known, 0), I{}, size(other, 0), I{}, raw_derivative(0), raw_derivative(1)};
    I edge = f.size, other_edge = f.other_size;
    V lower = f.upper;
    for (int64_t j = 1; j < c.bins; ++j) {
      const I known_size = size(known, j), other_size = size(other, j);
      const V upper = raw_derivative(j + 1);
      advance(f, z, edge, known_size, other_edge, other_size, j, lower, upper);
      edge += known_size, other_edge += other_size, lower = upper;
    }
    // no bin is empty, also where a form without a smallest width rounds one to nothing
    f.size = select(f.size < 1, I{} + 1, f.size);
    f.other_size = select(f.other_size < 1, I{} + 1, f.other_size);
    return f;
  }

  HK_INLINE Knot<V> knot(V r, I k, int64_t fixed_at) const {
    Knot<V> found;
    if constexpr (Scheme_ == Scheme::nflows)
      found = softplus_knot(r, c.least, c.beta, c.inverse_beta);
    else
      found = clipped_knot(r, c.inverse_clip);
    if (c.fixed_ends) found.d = select(k == static_cast<IntOf<T>>(fixed_at), splat<V>(1), found.d);
    return found;
  }

  // By half the interval, and back into it.
  HK_INLINE V turned(V x) const {
    const V far = x - c.middle, turns = round_even(far * c.inverse_range - T(0.5));  // the floor, or one more
    const V p = turns * c.range, rest = (far - p) - product_error(turns, splat<V>(c.range), p);
    return select(rest < 0, rest + c.range, select(rest >= splat<V>(c.range), rest - c.range, rest)) + c.low;
  }

  HK_INLINE V place(I at, V part, V size) const {
    const V y = from_fixed(at - half) * from_places + (part * size * c.range + c.middle);
    return at_most(at_least(y, c.low), c.high);
  }

  HK_INLINE Prepared<V> prepare(int64_t i, int64_t count, T* weight) {
    read(i, count);
    const V given = get_some<V>(block.x + i, count);
    return {c.wraps && !Inverse ? turned(given) : given, shares(0, weight), shares(1, weight)};
  }

  HK_INLINE Located<V> locate(const Prepared<V>& p) const {
    const V centred = (p.x - c.middle) * to_places;
    const V inside = at_most(at_least(centred, -whole<T> / 2), whole<T> / 2);
    const Shares<V>&known = Inverse ? p.heights : p.widths, &other = Inverse ? p.widths : p.heights;
    const I z = known.narrowed(to_fixed(inside) + half);
    Located<V> l;
    l.found = find(z, known, other);
    const Found<V>& f = l.found;
    l.lower = knot(f.lower, f.k, 0), l.upper = knot(f.upper, f.k, c.bins - 1);
    const V size = known.part_of(f.size), other_size = other.part_of(f.other_size), per_size = 1 / from_fixed(f.size);
    // NaN in x, or in a width or height, is lost in fixed point
    const V lost = (inside - inside) + (known.per_sum - known.per_sum) + (other.per_sum - other.per_sum);
    l.bin.width = Inverse ? other_size : size;
    l.bin.height = Inverse ? size : other_size;
    l.bin.s = l.bin.height / l.bin.width;
    l.bin.d0 = l.lower.d, l.bin.d1 = l.upper.d;
    l.bin.t = from_fixed(z - f.at) * per_size + lost, l.bin.u = from_fixed(f.at + f.size - z) * per_size;
    if constexpr (Inverse) solve(l.bin, l.bin.t, l.bin.u);
    return l;
  }

  HK_INLINE void put_values(const Prepared<V>& p, int64_t i, int64_t count) const {
    const V x = p.x;
    const auto below = x<c.low, above = x> c.high;
    const Located<V> l = locate(p);
    const BinTerms<V> terms = bin_terms(l.bin);
    const Shares<V>& other = Inverse ? p.widths : p.heights;
    V y, log_slope = log_slope_of(terms);
    if constexpr (Inverse) {
      y = place(other.spread(l.found.other_at), l.bin.t, l.bin.width);
      log_slope = -log_slope;
    } else {
      y = place(other.spread(l.found.other_at), height_of(l.bin, terms), l.bin.height);
    }
    y = select(below, x, select(above, x, y));
    put_some<V>(block.y + i, c.wraps && Inverse ? turned(y) : y, count);
    put_some<V>(block.log_slope + i, select(below, V{}, select(above, V{}, log_slope)), count);
  }

  // Writes that of x.
  HK_INLINE RawGradients<V> gradients(const Prepared<V>& p, int64_t i, int64_t count) const {
    const auto below = p.x<c.low, above = p.x> c.high;
    const Located<V> l = locate(p);
    const Found<V>& f = l.found;
    const BinTerms<V> terms = bin_terms(l.bin);
    const V passed = block.grad_y ? get_some<V>(block.grad_y + i, count) : V{};
    const V grad_log = get_some<V>(block.grad_log_slope + i, count);
    const BinGradients<V> g =
        bin_gradients<Inverse>(l.bin, terms, select(below, V{}, select(above, V{}, passed)) * c.range,
                               select(below, V{}, select(above, V{}, grad_log)));
    const V own = g.given * c.inverse_range;
    put_some<V>(block.grad_x + i, select(below, passed, select(above, passed, own)), count);
    return {
        f.k,
        share_gradients(p.widths, Inverse ? f.other_at : f.at, Inverse ? f.other_size : f.size, f.k, g.x0, g.width),
        share_gradients(p.heights, Inverse ? f.at : f.other_at, Inverse ? f.size : f.other_size, f.k, g.y0, g.height),
        g.d0 * l.lower.slope, g.d1 * l.upper.slope};
  }

  // What turns exponentials into gradients of raw widths or heights, from the gradients of the place of the bin and of
  // its size.
  HK_INLINE ShareGradients<V> share_gradients(const Shares<V>& of, I at, I size, I k, V grad_at, V grad_size) const {
    const T per_share = 1 / of.share;
    const V before = (of.part_of(at) - from_fixed(k) * of.floor) * per_share;
    const V own = (of.part_of(size) - of.floor) * per_share;
    const V mean = grad_at * before + grad_size * own;
    const V scale = of.per_sum * (of.share * c.gain);
    return {(grad_at - mean) * scale, (grad_size - mean) * scale, -mean * scale};
  }

  // The gradient of raw width or height j, of which `weight` begins with the first.
  HK_INLINE V share_gradient(const ShareGradients<V>& of, const T* weight, I k, int64_t j) const {
    const IntOf<T> here = static_cast<IntOf<T>>(j);
    return load<V>(weight + j * lanes) * select(k > here, of.before, select(k == here, of.own, of.past));
  }

  // The gradient of raw derivative n.
  HK_INLINE V derivative_gradient(int64_t n, const RawGradients<V>& g) const {
    const IntOf<T> knot = static_cast<IntOf<T>>(n + c.fixed_ends);
    const IntOf<T> ends = c.ties_ends && n == 0 ? static_cast<IntOf<T>>(c.bins - 1) : knot - 1;
    return select(g.k == knot, g.lower, V{}) + select(g.k == ends, g.upper, V{});
  }

  HK_INLINE void write(const RawGradients<V>& g, const T* weight, int64_t i, int64_t count) const {
    if constexpr (lanes > 1) {
      if (block.records) return write_records(g, weight, i, count);
    }
    T* to = block.grad_params + (block.records ? i * c.numbers() : i);
    const int64_t step = block.records ? 1 : block.stride;
    for (int64_t j = 0; j < c.bins; ++j) store<V>(to + j * step, share_gradient(g.widths, weight, g.k, j));
    to += c.bins * step, weight += c.bins * lanes;
    for (int64_t j = 0; j < c.bins; ++j) store<V>(to + j * step, share_gradient(g.heights, weight, g.k, j));
    to += c.bins * step;
    for (int64_t n = 0; n < c.derivatives; ++n) store<V>(to + n * step, derivative_gradient(n, g));
  }

  HK_INLINE void write_records(const RawGradients<V>& g, const T* weight, int64_t i, int64_t count) const {
    const int64_t numbers = c.numbers();
    T* to = block.grad_params + i * numbers;
    store_records(numbers, count < lanes ? some : to, [&](int64_t p) __attribute__((always_inline)) {
      if (p < c.bins) return share_gradient(g.widths, weight, g.k, p);
      if (p < 2 * c.bins) return share_gradient(g.heights, weight + c.bins * lanes, g.k, p - c.bins);
      return derivative_gradient(p - 2 * c.bins, g);
    });
    if (count < lanes) memcpy(to, some, count * numbers * sizeof(T));
  }

  // A vector's chain of dependent operations leaves the processor waiting, so the next one is prepared between that and
  // what waits for it. A single number calls the C library, which does the waiting anyway.
  HK_INLINE void run() {
    constexpr bool early = Backward && lanes > 1;
    T *weight = weights, *next = weights + 2 * c.bins * lanes;
    Prepared<V> p;
    for (int64_t i = 0; i < block.n; i += lanes) {
      const int64_t count = std::min(lanes, block.n - i), after = i + lanes;
      if (!early || i == 0) p = prepare(i, count, weight);
      if constexpr (!Backward) {
        put_values(p, i, count);
      } else {
        const RawGradients<V> g = gradients(p, i, count);
        if (early && after < block.n) p = prepare(after, std::min(lanes, block.n - after), next);
        write(g, weight, i, count);
        if (early) std::swap(weight, next);
      }
    }
  }
};

// Backward with the libraries' own number of bins is unrolled.
template <class T, Scheme Scheme_, bool Inverse, bool Backward>
void spline(const SplineBlock<T>& block, const SplineConstants<T>& c) {
  using Body = SplineBody<T, Scheme_, Inverse, Backward>;
  if constexpr (Backward && Body::lanes > 1) {
    if (c.bins == 8 && c.derivatives == 7) {
      SplineConstants<T> known = c;
      known.bins = 8, known.derivatives = 7, known.fixed_ends = 1, known.ties_ends = 0;
      return Body(block, known).run();
    }
  }
  Body(block, c).run();
}

template <class T, Scheme Scheme_>
void fill_splines(Kernels<T>& table) {
  auto& of = table.spline[static_cast<int>(Scheme_)];
  of[0][0] = spline<T, Scheme_, false, false>;
  of[0][1] = spline<T, Scheme_, false, true>;
  of[1][0] = spline<T, Scheme_, true, false>;
  of[1][1] = spline<T, Scheme_, true, true>;
}

}  // namespace hk::HK_ISA
