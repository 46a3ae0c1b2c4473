// The loops of rational_quadratic_spline: vectors of elements, each with all of its raw parameters.
#pragma once

#include "../cpu/kernels.h"
#include "math.h"
#include "records.h"

namespace hk::HK_ISA {

// How raw numbers become knots: SplineForm.scheme.
enum class Scheme : int { nflows, zuko };

// The widths or the heights of the bins: floor + share * softmax, as parts of the interval. Rounded, they add up to
// `total`, which is the whole interval less `lost` of it: the error that they have in common, which is put back.
template <class V>
struct Shares {
  const ScalarOf<V>* e;             // the exponentials, a vector a bin
  const IntOf<ScalarOf<V>>* sizes;  // in fixed point, a vector a bin
  IntOf<V> total;
  V per_sum, lost;
  ScalarOf<V> share, floor;

  HK_INLINE V part_of(IntOf<V> size) const {
    const V part = from_fixed(size) * (1 / whole<ScalarOf<V>>);
    return part + part * lost;
  }
  // From places on [0, total] to places on the whole interval, and back.
  HK_INLINE IntOf<V> spread(IntOf<V> place) const { return place + to_fixed(from_fixed(place) * lost); }
  HK_INLINE IntOf<V> narrowed(IntOf<V> place) const {
    const IntOf<V> inner = place - to_fixed(from_fixed(place) * lost);
    return select(inner > total, total, inner);
  }
};

// The bin of an element: `at` and `size` in the direction that is known, `other_at` and `other_size` in the other one.
template <class V>
struct Found {
  IntOf<V> at, size, other_at, other_size, k;
  V lower, upper;  // raw derivatives at its ends
};

template <class T, Scheme Scheme_, bool Inverse, bool Backward>
struct SplineBody {
  using V = typename VectorOf<T>::type;
  using I = IntOf<V>;
  static constexpr int64_t lanes = Lanes<V>::count;
  static constexpr IntOf<T> end = static_cast<IntOf<T>>(whole<T>), half = end / 2;
  const SplineBlock<T>& block;
  const SplineConstants<T>& c;
  const T to_places, from_places;             // between the units of x and fixed point
  T *const raw, *const exps, *const shrinks;  // [numbers][lanes], [2 bins][lanes] twice
  IntOf<T>* const sizes;                      // [2 bins][lanes]
  T* const some;                              // [lanes][numbers]
  const T* rows = nullptr;
  int64_t stride = 0;

  SplineBody(const SplineBlock<T>& block_, const SplineConstants<T>& c_)
      : block(block_),
        c(c_),
        to_places(whole<T> / c_.range),
        from_places(c_.range / whole<T>),
        raw(block_.scratch),
        exps(raw + c.numbers() * lanes),
        shrinks(exps + 2 * c.bins * lanes),
        sizes(reinterpret_cast<IntOf<T>*>(shrinks + 2 * c.bins * lanes)),
        some(shrinks + 4 * c.bins * lanes) {}

  HK_INLINE V row(int64_t p) const { return load<V>(rows + p * stride); }

  template <bool Whole>
  HK_INLINE void read(int64_t i, int64_t count) {
    rows = block.params + i, stride = block.stride;
    if (!block.records) return;
    const int64_t numbers = c.numbers();
    rows = block.params + i * numbers, stride = 1;
    if constexpr (lanes > 1) {
      if constexpr (!Whole) {
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

  HK_INLINE Shares<V> shares(int side) const {
    const int64_t first = side * c.bins;
    T* e = exps + first * lanes;
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
        value = exponential(value * shrink);
        if constexpr (Backward) store<V>(shrinks + (first + j) * lanes, shrink);
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
    return {e, fixed, total, per_sum, from_fixed(end - total) * (1 / whole<T>), c.share[side], c.floor[side]};
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

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    read<Whole>(i, count);
    const V given = get<Whole, V>(block.x + i, count);
    const V x = c.wraps && !Inverse ? turned(given) : given;
    const V centred = (x - c.middle) * to_places;
    const V inside = at_most(at_least(centred, -whole<T> / 2), whole<T> / 2);
    const auto below = x<c.low, above = x> c.high;
    const Shares<V> widths = shares(0), heights = shares(1);
    const Shares<V>&known = Inverse ? heights : widths, &other = Inverse ? widths : heights;
    const I z = known.narrowed(to_fixed(inside) + half);
    const Found<V> f = find(z, known, other);
    const Knot<V> lower = knot(f.lower, f.k, 0), upper = knot(f.upper, f.k, c.bins - 1);

    const V size = known.part_of(f.size), other_size = other.part_of(f.other_size), per_size = 1 / from_fixed(f.size);
    // NaN in x, or in a width or height, is lost in fixed point
    const V lost = (inside - inside) + (widths.per_sum - widths.per_sum) + (heights.per_sum - heights.per_sum);
    const V first = from_fixed(z - f.at) * per_size + lost, second = from_fixed(f.at + f.size - z) * per_size;
    Bin<V> bin;
    bin.width = Inverse ? other_size : size;
    bin.height = Inverse ? size : other_size;
    bin.s = bin.height / bin.width;
    bin.d0 = lower.d, bin.d1 = upper.d;
    bin.t = first, bin.u = second;
    if constexpr (Inverse) solve(bin, first, second);
    const BinTerms<V> terms = bin_terms(bin);
    if constexpr (Backward) {
      V grad = block.grad_y ? get<Whole, V>(block.grad_y + i, count) : V{};
      V grad_log = get<Whole, V>(block.grad_log_slope + i, count);
      const V passed = grad;
      grad = select(below, V{}, select(above, V{}, grad)) * c.range;
      grad_log = select(below, V{}, select(above, V{}, grad_log));
      const BinGradients<V> g = bin_gradients<Inverse>(bin, terms, grad, grad_log);
      const V own = g.given * c.inverse_range;
      put<Whole, V>(block.grad_x + i, select(below, passed, select(above, passed, own)), count);
      write<Whole>(i, count, f, widths, heights, g, g.d0 * lower.slope, g.d1 * upper.slope);
    } else {
      V y;
      if constexpr (Inverse)
        y = place(other.spread(f.other_at), bin.t, bin.width);
      else
        y = place(other.spread(f.other_at), height_of(bin, terms), bin.height);
      V log_slope = log_slope_of(terms);
      if constexpr (Inverse) log_slope = -log_slope;
      y = select(below, x, select(above, x, y));
      put<Whole, V>(block.y + i, c.wraps && Inverse ? turned(y) : y, count);
      put<Whole, V>(block.log_slope + i, select(below, V{}, select(above, V{}, log_slope)), count);
    }
  }

  // Gradients of raw widths or heights, from that of the place of the bin, `at`, and that of its size.
  HK_INLINE void write_shares(int side, const Shares<V>& of, I at, I size, I k, V grad_at, V grad_size, T* to,
                              int64_t step) const {
    const T per_share = 1 / of.share;
    const V before = (of.part_of(at) - from_fixed(k) * of.floor) * per_share;
    const V own = (of.part_of(size) - of.floor) * per_share;
    const V mean = grad_at * before + grad_size * own;
    const V scale = of.per_sum * (of.share * c.gain);
    const V past = -mean * scale, at_bin = (grad_size - mean) * scale, ahead = (grad_at - mean) * scale;
    for (int64_t j = 0; j < c.bins; ++j) {
      const IntOf<T> here = static_cast<IntOf<T>>(j);
      V value = load<V>(of.e + j * lanes) * select(k > here, ahead, select(k == here, at_bin, past));
      if constexpr (Scheme_ == Scheme::zuko) {
        const V shrink = load<V>(shrinks + (side * c.bins + j) * lanes);
        value = value * (shrink * shrink);
      }
      store<V>(to + (side * c.bins + j) * step, value);
    }
  }

  template <bool Whole>
  HK_INLINE void write(int64_t i, int64_t count, const Found<V>& f, const Shares<V>& widths, const Shares<V>& heights,
                       const BinGradients<V>& g, V grad_lower, V grad_upper) const {
    const int64_t numbers = c.numbers();
    const bool turn_records = block.records && lanes > 1;
    T* to = turn_records ? raw : block.records ? block.grad_params + i * numbers : block.grad_params + i;
    const int64_t step = turn_records ? lanes : block.records ? 1 : block.stride;
    write_shares(0, widths, Inverse ? f.other_at : f.at, Inverse ? f.other_size : f.size, f.k, g.x0, g.width, to, step);
    write_shares(1, heights, Inverse ? f.at : f.other_at, Inverse ? f.size : f.other_size, f.k, g.y0, g.height, to,
                 step);
    for (int64_t n = 0; n < c.derivatives; ++n) {
      const IntOf<T> knot = static_cast<IntOf<T>>(n + c.fixed_ends);
      const IntOf<T> ends = c.ties_ends && n == 0 ? static_cast<IntOf<T>>(c.bins - 1) : knot - 1;
      const V value = select(f.k == knot, grad_lower, V{}) + select(f.k == ends, grad_upper, V{});
      store<V>(to + (2 * c.bins + n) * step, value);
    }
    if constexpr (lanes > 1) {
      if (!turn_records) return;
      T* target = block.grad_params + i * numbers;
      store_records(raw, numbers, Whole ? target : some);
      if constexpr (!Whole) memcpy(target, some, count * numbers * sizeof(T));
    }
  }
};

template <class T, Scheme Scheme_, bool Inverse, bool Backward>
void spline(const SplineBlock<T>& block, const SplineConstants<T>& c) {
  SplineBody<T, Scheme_, Inverse, Backward> body(block, c);
  for_vectors<typename VectorOf<T>::type>(block.n, body);
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
