// Work shared out among threads, memory in parts, and products of blocks; included after HK_ISA is set.
#pragma once

#include "blocks.h"
#include "network.h"

namespace hk::HK_ISA {

using network::Buffer;
using network::Network;

inline int64_t blocks_for(int64_t n) { return (n + side - 1) / side; }

template <class F>
void each(int64_t units, const F& body) {
  network::parallel(
      units, [](void* context, int64_t begin, int64_t end) { (*static_cast<const F*>(context))(begin, end); },
      const_cast<F*>(&body));
}

// Parts of one allocation, each 64-byte aligned.
class Parts {
 public:
  template <class N>
  N* take(int64_t count) {
    N* part = reinterpret_cast<N*>(base_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(N)) + 63) / 64 * 64;
    return part;
  }
  void place(void* base) { base_ = static_cast<char*>(base), used_ = 0; }
  size_t used() const { return used_; }

 private:
  char* base_ = nullptr;
  size_t used_ = 0;
};

// c(i, j) = sum over k of a(i, k) b(j, k), handed to done(i, j, c, live) block by block: its first `live` rows, which
// are pixels and no padding.
template <class Engine, class F>
void products(const typename Engine::E* a, const typename Engine::E* b, int64_t rows, int64_t columns, int64_t depth,
              int64_t pixels, const F& done) {
  alignas(64) typename Engine::T c[area];
  const auto one = [&](int64_t i, int64_t j) {
    const int64_t left = pixels - i * side, live = left > side ? side : left > 0 ? left : 0;
    if (live > 0) Engine::product(a + i * depth * area, b + j * depth * area, depth, c, false, live);
    done(i, j, c, live);
  };
  if (rows >= 8)  // what the inner loop repeats stays in the first-level cache
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = 0; i < rows; ++i) one(i, j);
  else
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) one(i, j);
}

template <class E>
void clear_padding(E* block, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < side; ++r)
    for (int64_t c = r < rows ? columns : 0; c < side; ++c) block[r * side + c] = E{};
}

}  // namespace hk::HK_ISA
