// Several streams decoded side by side, and the places of a stream's symbols several at a time, by vectors of doubles.
//
// Every number that decides is an integer below 2^53 times a power of two, so doubles hold it exactly, whatever the
// instruction set and whether products and sums are fused: what is found is what hybridkern/codec/reference.py finds.
#pragma once

#include "coder.h"

namespace hk::codec {

// The tables as vectors read them.
struct WideTables {
  explicit WideTables(const Tables& of);

  Tables plain;
  // The function 2^30 sigma(i / 64) - 2^29 at an entry in the upper half, in the lower what it rises to the next one.
  uint64_t steps[24 * 64 + 1];
  double inverse[256], weight[256];  // inverse: 1 / scale
};

struct StreamKernels {
  int64_t most;  // streams at once
  // The next `size` values of `count` streams, one row of `values` each; `sound` is cleared where a stream has none.
  void (*decode)(Cursor* cursors, char* sound, int32_t* values, int64_t count, int64_t size, const Row* rows,
                 const WideTables& tables);
  // Where the masses of values start, and how large they are, or 0 where a value is outside of the window; of the first
  // symbols, whose number is returned.
  int64_t (*places)(const int32_t* values, int64_t size, const Row& row, const WideTables& tables, int32_t* starts,
                    int32_t* sizes);
};

#if defined(__x86_64__)
const StreamKernels& avx2_streams();
const StreamKernels& avx512_streams();
#endif

// Those of the chosen instruction set, or none.
const StreamKernels* stream_kernels();

// The next value of one stream, as StreamKernels::decode has it; false where there is none.
bool decode_one(Cursor& cursor, int32_t& value, const Row& row, int64_t d, const Tables& tables);
void refill(Cursor& cursor);

}  // namespace hk::codec
