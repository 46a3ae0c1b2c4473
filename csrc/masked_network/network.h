// A masked network, layers y = (W*M) x + b with an activation between, as plain arrays: what the operator hands to the
// loops of one instruction set.
//
// Units of hidden layers are put in the order of how much they see, so that what masks leave out are whole blocks,
// which are not computed.
#pragma once

#include <cstdint>

namespace hk {

constexpr int64_t masked_lanes = 16;                            // numbers of a block of units
constexpr int masked_activations = 4;                           // MaskedActivation of loops.h
constexpr int64_t masked_slice = 64, masked_most_layers = 250;  // rows that go through all layers together
constexpr int64_t masked_most_width = INT32_MAX;                // of a layer: places of units are 32-bit integers

// Numbers from row to row of a matrix of that many columns: whole blocks, and an odd number of them, since lines a
// power of two apart share a few sets of a cache.
constexpr int64_t masked_row(int64_t columns) {
  const int64_t blocks = (columns + masked_lanes - 1) / masked_lanes;
  return (blocks | 1) * masked_lanes;
}

// What a block of results depends on: [first, last).
struct MaskedRange {
  int64_t first, last;
};

// out(r) = left(r) * matrix, and what is done with it on the way out. Rows of `start`, `skip`, `plain`, `gate`, `more`
// and `out` are `out_row` apart.
template <class T>
struct MaskedProduct {
  const T* left;
  int64_t left_row;
  const T* matrix;  // [inputs][matrix_row]
  int64_t matrix_row;
  const MaskedRange* ranges;  // of each block
  int64_t blocks, rows;
  int activation;        // forward: applied to what is written; backward: whose derivative at `gate` multiplies
  const T* start;        // forward: the bias
  const T* skip;         // forward: added before the activation; nullptr: none
  T* plain;              // forward: gets the numbers before the activation; nullptr: not wanted
  const T* gate;         // backward: results of the activation
  const T* const* more;  // backward: added at last
  int64_t more_count;
  T* out;
  int64_t out_row;
};

// Of a block of a layer's units: the gradients of their weights and biases, summed over rows.
template <class T>
struct MaskedGradient {
  const T* grads;  // of the units, rows grads_row apart
  int64_t grads_row;
  const T* inputs;
  int64_t inputs_row;
  int64_t rows;
  MaskedRange blocks;  // of inputs that the units see
  T* sums;             // [unit][sums_row]; added to
  int64_t sums_row;
  T* bias_sums;  // [unit]; added to
};

}  // namespace hk
