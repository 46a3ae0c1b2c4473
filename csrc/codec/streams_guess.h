// A guess at symbols, which masses then confirm or correct.
#pragma once

#include "streams_masses.h"

namespace hk::codec::HK_ISA {

// Several vectors, whose chains of operations do not wait for each other.
template <int V>
struct Vectors {
  Floats of[V];
  HK_INLINE Floats& operator[](int v) { return of[v]; }
  HK_INLINE const Floats& operator[](int v) const { return of[v]; }
};

// A guess at the bin of a place, in float32, of `V * group` symbols; what is found is decided by `bounds` alone.
template <int V>
struct Guess {
  static constexpr int most_steps = 2;

  Vectors<V> mean[most_components], inverse[most_components], weight[most_components];

  template <bool Single>
  HK_INLINE Vectors<V> at(const double* block, int64_t components, const Vectors<V>& place) {
    for (int v = 0; v < V; ++v) take<Single>(block + v * group, components, v);
    Vectors<V> below, above, logit, y;
    for (int v = 0; v < V; ++v) {
      below[v] = math::at_least(place[v] - 2047.5f, 0.5f);
      above[v] = math::at_least(static_cast<float>(places) - below[v], 0.5f);
      logit[v] = math::float_log(below[v] / above[v]);
      if (Single) y[v] = mean[0][v] + logit[v] / inverse[0][v];
      below[v] *= static_cast<float>(1 / places);
    }
    return Single ? y : solve(components, below, logit);
  }

 private:
  template <bool Single>
  HK_INLINE void take(const double* block, int64_t components, int v) {
    const Mixture sides[2] = {{block, V * group, components}, {block + half, V * group, components}};
    for (int64_t k = 0; k < components; ++k) {
      HalfFloats parts[3][2];
      for (int i = 0; i < 2; ++i) {
        parts[0][i] = to_floats(sides[i].mean(k) * (1.0 / 64) - sides[i].first() + 0.5);
        parts[1][i] = to_floats(sides[i].inverse(k));
        if (!Single) parts[2][i] = to_floats(sides[i].weight(k) * (1.0 / 65536));
      }
      mean[k][v] = joined(parts[0][0], parts[0][1]), inverse[k][v] = joined(parts[1][0], parts[1][1]);
      if (!Single) weight[k][v] = joined(parts[2][0], parts[2][1]);
    }
  }

  // Where the mixture's cumulative function is `below`: Newton's steps on its logit, within bounds. They begin where
  // the component that holds it would have it, were the others all below or all above.
  HK_INLINE Vectors<V> solve(int64_t components, const Vectors<V>& below, const Vectors<V>& logit) const {
    const Floats none = math::splat<Floats>(0.0f);
    Vectors<V> low, high, share, center, slope, y;
    for (int v = 0; v < V; ++v)
      low[v] = math::splat<Floats>(window), high[v] = share[v] = center[v] = none, slope[v] = none + 1.0f;
    for (int64_t k = 0; k < components; ++k)
      for (int v = 0; v < V; ++v) {
        const Floats own = mean[k][v] + logit[v] / inverse[k][v];
        low[v] = own < low[v] ? own : low[v], high[v] = own > high[v] ? own : high[v];
        Floats before = none;
        for (int64_t j = 0; j < k; ++j) before += mean[j][v] <= mean[k][v] ? weight[j][v] : none;
        for (int64_t j = k + 1; j < components; ++j) before += mean[j][v] < mean[k][v] ? weight[j][v] : none;
        const auto holds = (before <= below[v]) & (below[v] < before + weight[k][v]);
        share[v] = holds ? (below[v] - before) / weight[k][v] : share[v];
        center[v] = holds ? mean[k][v] : center[v], slope[v] = holds ? inverse[k][v] : slope[v];
      }
    for (int v = 0; v < V; ++v) {
      const Floats inside = math::at_most(math::at_least(share[v], 1e-3f), 1 - 1e-3f);
      const Floats start = center[v] + math::float_log(inside / (1.0f - inside)) / slope[v];
      low[v] -= 0.5f, high[v] += 0.5f;
      y[v] = start < low[v] ? low[v] : start > high[v] ? high[v] : start;
    }
    for (int i = 0; i < most_steps; ++i) {
      Vectors<V> under, over, density;
      for (int v = 0; v < V; ++v) under[v] = over[v] = density[v] = none;
      for (int64_t k = 0; k < components; ++k)
        for (int v = 0; v < V; ++v) {
          const Floats z = (y[v] - mean[k][v]) * inverse[k][v];
          // farther out nothing is left of a component, and subnormal numbers are slow
          const Floats e = math::float_exp_of_moderate(math::at_least(math::minus_absolute(z), -60.0f));
          const Floats part = 1.0f / (1.0f + e);
          const Floats large = weight[k][v] * part, small = e * large;
          const auto right = z > 0.0f;
          under[v] += right ? large : small, over[v] += right ? small : large;
          density[v] += inverse[k][v] * part * small;
        }
      for (int v = 0; v < V; ++v) {
        low[v] = under[v] < below[v] ? y[v] : low[v], high[v] = under[v] < below[v] ? high[v] : y[v];
        const Floats step = (math::float_log(under[v] / over[v]) - logit[v]) * under[v] * over[v] / density[v];
        const Floats next = y[v] - step;
        const auto inside = (next > low[v] - 0.01f) & (next < high[v] + 0.01f);
        y[v] = inside ? next : 0.5f * (low[v] + high[v]);
      }
    }
    return y;
  }
};

}  // namespace hk::codec::HK_ISA
