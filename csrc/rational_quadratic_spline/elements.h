// What the loops of rational_quadratic_spline know of a vector of elements, from one step to the next.
#pragma once

#include "math.h"

namespace hk::HK_ISA {

// How raw numbers become knots: SplineForm.scheme.
enum class Scheme : int { nflows, zuko };

// The widths or the heights of the bins: floor + share * softmax, as parts of the interval. Rounded, they add up to
// `total`, which is the whole interval less `lost` of it: the error that they have in common, which is put back.
template <class V>
struct Shares {
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

// By bins: what the exponential of one before that of the element, of its own and of one past it is multiplied by.
template <class V>
struct ShareGradients {
  V before, own, past;
};

// What all gradients of an element's raw parameters are made of: its bin, and those of the raw derivatives at its ends.
template <class V>
struct RawGradients {
  IntOf<V> k;
  ShareGradients<V> widths, heights;
  V lower, upper;
};

// An element in its bin, and the knots at the ends of that.
template <class V>
struct Located {
  Found<V> found;
  Knot<V> lower, upper;
  Bin<V> bin;
};

// An element and the widths and heights of all bins, before its own is looked for.
template <class V>
struct Prepared {
  V x;
  Shares<V> widths, heights;
};

}  // namespace hk::HK_ISA
