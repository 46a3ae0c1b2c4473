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

// Appends the stream of `size` values, the first of them to be decoded first, from a state below 2^32.
void encode(const int32_t* values, int64_t size, uint64_t seed, const Row& row, const Tables& tables,
            std::vector<uint8_t>& stream);

// Where a decoder is in its stream.
struct Cursor {
  uint64_t state;
  const uint8_t *next, *end;
};

Cursor begin(const uint8_t* stream, int64_t size);

// The next `size` values; false where the stream has none.
bool decode(Cursor& cursor, int32_t* values, int64_t size, const Row& row, const Tables& tables);

}  // namespace hk::codec
