// The coder as plain arrays. Format: hybridkern/codec/reference.py.
#pragma once

#include <cstdint>
#include <vector>

namespace hk::codec {

constexpr int64_t most_components = 32;

// hybridkern/codec/tables.py
struct Tables {
  const int32_t* tail;
  const int64_t* inverse;
  const int32_t* weight;
};

// Parameters of the symbols of one stream: component k of symbol d lies at [k * stride + d].
struct Row {
  const int32_t *logits, *means, *scales;
  int64_t components, stride;
};

struct WideTables;

// Appends the stream of `size` values, the first of them to be decoded first, from a state below 2^32.
void encode(const int32_t* values, int64_t size, uint64_t seed, const Row& row, const WideTables& tables,
            std::vector<uint8_t>& stream);

// Where a decoder is in its stream.
struct Cursor {
  uint64_t state;
  const uint8_t *next, *end;
};

Cursor begin(const uint8_t* stream, int64_t size);

// How many streams are best decoded at once.
int64_t streams_at_once();

// The next `size` values of `count` streams, at most so many, one row of `values` each, which holds zeros; `sound` is
// cleared where a stream has none, and what is not sound is left alone.
void decode(Cursor* cursors, char* sound, int32_t* values, int64_t count, int64_t size, const Row* rows,
            const WideTables& tables);

}  // namespace hk::codec
