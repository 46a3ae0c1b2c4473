// Work shared among threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hk {

// While one lives, results of this thread that are too small for a normal number are 0; numbers that are read stay as
// they are. Intel's processors take some hundred cycles over every vector with a subnormal result, of which
// exponentials of a density's tails, such as exp(-90), are full. Not for what moves data: it may hold such numbers.
class FlushSubnormals {
 public:
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;
#if defined(__x86_64__)
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | _MM_FLUSH_ZERO_ON); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#else
  FlushSubnormals() {}
#endif
};

// Calls body(first, last) for parts of [begin, end) of at least `grain` units, the kernels of a density.
template <class F>
void parallel_for_density(int64_t begin, int64_t end, int64_t grain, const F& body) {
  torch::stable::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) {
    const FlushSubnormals flush;
    body(first, last);
  });
}

}  // namespace hk
