// rANS with masses evaluated as they are needed: hybridkern/codec/reference.py says the same in Python.
#include "coder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "../cpu/kernels.h"
#include "masses.h"
#include "streams.h"

namespace hk::codec {
namespace {

constexpr int length_bits = 6, chunk = 16, longest = 32;
constexpr uint64_t lower = uint64_t{1} << 31;

class Encoder {
 public:
  explicit Encoder(uint64_t seed) : state_(seed) {}

  void push(uint64_t start, uint64_t size) {
    if (state_ >= size << (63 - mass_bits)) {
      words_.push_back(static_cast<uint32_t>(state_));
      state_ >>= 32;
    }
    const uint64_t quotient = state_ / size;
    state_ = (quotient << mass_bits) + (state_ - quotient * size) + start;
  }

  void push_bits(uint64_t value, int bits) { push(value << (mass_bits - bits), uint64_t{1} << (mass_bits - bits)); }

  void push_symbol(int64_t value, const Symbol& symbol) {
    const int64_t b = value - symbol.first();
    if (b >= 0 && b < window) {
      const int64_t start = symbol.start(b);
      push(start, symbol.start(b + 1) - start);
      return;
    }
    const uint64_t code = (b >= 0 ? 2 * (b - window) : 2 * (-1 - b) + 1) + 1;
    const int bits = std::bit_width(code) - 1;
    for (int low = 0; low < bits; low += chunk) {
      const int size = std::min(chunk, bits - low);
      push_bits(code >> low & ((uint64_t{1} << size) - 1), size);
    }
    push_bits(bits, length_bits);
    const int64_t start = symbol.start(window);
    push(start, mass - start);
  }

  void write(std::vector<uint8_t>& stream) {
    int size = (std::bit_width(state_) + 7) / 8;
    for (; size >= 4; size -= 4, state_ >>= 32) words_.push_back(static_cast<uint32_t>(state_));
    for (int i = 0; i < size; ++i) stream.push_back(static_cast<uint8_t>(state_ >> 8 * i));
    for (auto word = words_.rbegin(); word != words_.rend(); ++word)
      for (int i = 0; i < 4; ++i) stream.push_back(static_cast<uint8_t>(*word >> 8 * i));
  }

 private:
  uint64_t state_;
  std::vector<uint32_t> words_;
};

void advance(Cursor& cursor, uint64_t place, uint64_t start, uint64_t size) {
  cursor.state = size * (cursor.state >> mass_bits) + place - start;
  refill(cursor);
}

uint64_t pop_bits(Cursor& cursor, int bits) {
  const uint64_t place = cursor.state & (mass - 1), value = place >> (mass_bits - bits);
  advance(cursor, place, value << (mass_bits - bits), uint64_t{1} << (mass_bits - bits));
  return value;
}

bool pop_escaped(Cursor& cursor, int64_t first, int64_t& value) {
  const int bits = static_cast<int>(pop_bits(cursor, length_bits));
  if (bits > longest) return false;
  uint64_t code = 1;
  for (int low = (bits - 1) / chunk * chunk; bits > 0 && low >= 0; low -= chunk) {
    const int size = std::min(chunk, bits - low);
    code = code << size | pop_bits(cursor, size);
  }
  const int64_t distance = static_cast<int64_t>((code - 1) / 2);
  value = first + ((code - 1) % 2 ? -1 - distance : window + distance);
  return value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max();
}

bool pop_symbol(Cursor& cursor, const Symbol& symbol, int64_t& value) {
  const int64_t place = static_cast<int64_t>(cursor.state & (mass - 1));
  int64_t low = 0, high = 0;
  const int64_t b = symbol.find(place, low, high);
  if (b < 0) return false;
  if (b < window) {
    advance(cursor, place, low, high - low);
    value = symbol.first() + b;
    return value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max();
  }
  advance(cursor, place, low, mass - low);
  return pop_escaped(cursor, symbol.first(), value);
}

}  // namespace

void refill(Cursor& cursor) {
  while (cursor.state < lower && cursor.next < cursor.end) {
    uint64_t word = 0;
    for (int i = 0; i < 4; ++i) word |= static_cast<uint64_t>(cursor.next[i]) << 8 * i;
    cursor.state = cursor.state << 32 | word;
    cursor.next += 4;
  }
}

WideTables::WideTables(const Tables& of) : plain(of) {
  for (int64_t i = 0; i <= entries; ++i)
    steps[i] = static_cast<uint64_t>(one / 2 - of.tail[i]) << 32 | static_cast<uint64_t>(of.tail[i] - of.tail[i + 1]);
  for (int i = 0; i < 256; ++i)
    inverse[i] = std::ldexp(static_cast<double>(of.inverse[i]), -one_bits), weight[i] = of.weight[i];
}

const StreamKernels* stream_kernels() {
#if defined(__x86_64__)
  const char* level = instruction_set();
  if (!strcmp(level, "avx512")) return &avx512_streams();
  if (!strcmp(level, "avx2")) return &avx2_streams();
#endif
  return nullptr;
}

void encode(const int32_t* values, int64_t size, uint64_t seed, const Row& row, const WideTables& tables,
            std::vector<uint8_t>& stream) {
  Encoder encoder(seed);
  std::vector<int32_t> starts(size), sizes(size);
  const StreamKernels* kernels = stream_kernels();
  const int64_t placed = kernels ? kernels->places(values, size, row, tables, starts.data(), sizes.data()) : 0;
  for (int64_t d = size - 1; d >= placed; --d) encoder.push_symbol(values[d], Symbol(row, tables.plain, d));
  for (int64_t d = placed - 1; d >= 0; --d) {
    if (sizes[d])
      encoder.push(starts[d], sizes[d]);
    else
      encoder.push_symbol(values[d], Symbol(row, tables.plain, d));
  }
  encoder.write(stream);
}

Cursor begin(const uint8_t* stream, int64_t size) {
  Cursor cursor{0, stream + size % 4, stream + size};
  for (int64_t i = size % 4 - 1; i >= 0; --i) cursor.state = cursor.state << 8 | stream[i];
  refill(cursor);
  return cursor;
}

bool decode_one(Cursor& cursor, int32_t& value, const Row& row, int64_t d, const Tables& tables) {
  int64_t wide;
  if (!pop_symbol(cursor, Symbol(row, tables, d), wide)) return false;
  value = static_cast<int32_t>(wide);
  return true;
}

int64_t streams_at_once() { return stream_kernels() ? stream_kernels()->most : 1; }

void decode(Cursor* cursors, char* sound, int32_t* values, int64_t count, int64_t size, const Row* rows,
            const WideTables& tables) {
  const StreamKernels* kernels = stream_kernels();
  if (kernels && count > 1 && count <= kernels->most) {
    kernels->decode(cursors, sound, values, count, size, rows, tables);
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < size && sound[i]; ++d)
      sound[i] = decode_one(cursors[i], values[i * size + d], rows[i], d, tables.plain);
}

}  // namespace hk::codec
