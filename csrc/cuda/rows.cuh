// How the kernels walk over rows of elements, load and store them, and sum them; for nvcc and, in the tests, for g++.
//
// A kernel is a template over the element types of its operands and N, the elements that a thread takes at once. With
// concrete types, x and what is shaped like it are read and written 16 bytes at a time, and as many parameters as these
// are elements; `Any<T>` (N = 1) serves every other layout and mixture of types: T is the working type, the element
// type is looked up at run time.
#pragma once

#include <cstdint>
#include <cstring>

#include "../element.h"

#define HK_ISA cuda
#define HK_LANES 1
#include "../affine_coupling/math.h"
#include "../discretized_logistic/math.h"
#include "../math/low_precision.h"

namespace hk::cuda {

constexpr int block_threads = 128, warp_threads = 32, block_warps = block_threads / warp_threads;
// Eight blocks of 128 threads a multiprocessor: half of the 2048 threads it can hold, and 64 registers a thread.
constexpr int blocks_per_multiprocessor = 8;
// Kernels in double precision, which is for checking, would spill with 64 registers: they get 128.
constexpr int blocks_in_double = 4;
constexpr unsigned whole_warp = 0xffffffffu;

// Elements of an operand: data[b * batch + o * outer + i * step], for element o * inner + i of row b.
struct View {
  char* data;  // nullptr: absent
  int64_t batch, outer, step;
  Element element;
};

// One number a row, float32 or float64 (or, for a single row, any type).
struct Totals {
  char* data;  // nullptr: absent
  int64_t stride;
  Element element;
};

// Rows are cut into chunks, each of which a group of `lanes` threads (a power of two up to 32, or the block) walks.
struct Walk {
  int64_t rows, row, inner;  // inner: elements in a run; row = outer * inner
  int64_t chunk, chunks;     // elements in a chunk, chunks in a row
  int lanes;
};

template <class T>
struct Any {};

template <class E>
struct WorkingType {
  using type = float;
};
template <>
struct WorkingType<double> {
  using type = double;
};
template <class T>
struct WorkingType<Any<T>> {
  using type = T;
};
template <class E>
using Working = typename WorkingType<E>::type;

template <class X>
constexpr int resident_blocks =
    sizeof(typename WorkingType<X>::type) == 8 ? blocks_in_double : blocks_per_multiprocessor;

template <class E>
constexpr bool is_any = false;
template <class T>
constexpr bool is_any<Any<T>> = true;

struct Place {
  int64_t b, o, i;
};

// A number that the compiler takes for a new one each time, so that nothing formed from it is kept for later.
HK_INLINE int64_t forgotten(int64_t value) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+l"(value));
#endif
  return value;
}
HK_INLINE int forgotten(int value) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(value));
#endif
  return value;
}

// Where an element lies; to be asked again where it is written. What a compiler would keep in between (the offset of
// the row in every operand, from before the loop, and the place, from the load to the store) fills registers that the
// arithmetic needs.
HK_INLINE Place place_of(const Walk& walk, int64_t row, int64_t at) {
  const int64_t b = forgotten(row), element = forgotten(at);
  if (walk.inner == walk.row) return {b, 0, element};
  if (walk.row <= INT32_MAX) {  // a 32-bit division is several times faster
    const uint32_t e = static_cast<uint32_t>(element), inner = static_cast<uint32_t>(walk.inner), o = e / inner;
    return {b, o, e - o * inner};
  }
  return {b, element / walk.inner, element % walk.inner};
}

HK_INLINE int64_t offset_of(const View& view, const Place& at) {
  return at.b * view.batch + at.o * view.outer + at.i * view.step;
}

template <class E, int N>
constexpr int access_bytes = N * int(sizeof(E)) < 16 ? N * int(sizeof(E)) : 16;

template <int Bytes>
struct alignas(Bytes) Words {
  uint32_t word[Bytes / 4];
};

// One access: of 16 bytes it is a single instruction through uint4.
HK_INLINE Words<16> read_words(const Words<16>* from) {
  const uint4 q = *reinterpret_cast<const uint4*>(from);
  return {{q.x, q.y, q.z, q.w}};
}
HK_INLINE Words<8> read_words(const Words<8>* from) {
  const uint2 q = *reinterpret_cast<const uint2*>(from);
  return {{q.x, q.y}};
}
HK_INLINE void write_words(Words<16>* to, const Words<16>& w) {
  *reinterpret_cast<uint4*>(to) = uint4{w.word[0], w.word[1], w.word[2], w.word[3]};
}
HK_INLINE void write_words(Words<8>* to, const Words<8>& w) {
  *reinterpret_cast<uint2*>(to) = uint2{w.word[0], w.word[1]};
}

template <class E, class T>
HK_INLINE T element_at(const char* data, int64_t offset) {
  return widen<T>(reinterpret_cast<const E*>(data)[offset]);
}

template <class T>
HK_INLINE T any_at(const char* data, int64_t offset, Element element) {
  switch (element) {
    case Element::f64:
      return element_at<double, T>(data, offset);
    case Element::bf16:
      return element_at<Bf16, T>(data, offset);
    case Element::f16:
      return element_at<F16, T>(data, offset);
    default:
      return element_at<float, T>(data, offset);
  }
}

template <class T>
HK_INLINE void set_any(char* data, int64_t offset, Element element, T value) {
  switch (element) {
    case Element::f64:
      reinterpret_cast<double*>(data)[offset] = static_cast<double>(value);
      break;
    case Element::bf16:
      reinterpret_cast<Bf16*>(data)[offset] = narrow<Bf16>(value);
      break;
    case Element::f16:
      reinterpret_cast<F16*>(data)[offset] = narrow<F16>(value);
      break;
    default:
      reinterpret_cast<float*>(data)[offset] = static_cast<float>(value);
  }
}

// N elements as they lie in memory. Each is widened where it is used, not before, and narrowed as soon as it is there:
// that saves registers.
template <class E, int N>
struct Raw {
  static constexpr int bytes = access_bytes<E, N>, each = bytes / int(sizeof(E));
  Words<bytes> part[N / each];
  Working<E> waiting;  // the first one of a pair of halves

  HK_INLINE Working<E> operator[](int k) const {
    if constexpr (sizeof(E) == 2) {
      return widen_of_pair<Working<E>, E>(part[k / each].word[k % each / 2], k % 2);
    } else {
      E value;
      memcpy(&value, &part[k / each].word[k % each * (sizeof(E) / 4)], sizeof(E));
      return value;
    }
  }
  // To be called for k = 0, 1, ... N - 1.
  HK_INLINE void set(int k, Working<E> value) {
    if constexpr (sizeof(E) == 2) {
      if (k % 2)
        part[k / each].word[k % each / 2] = narrow_pair<E>(waiting, value);
      else
        waiting = value;
    } else {
      memcpy(&part[k / each].word[k % each * (sizeof(E) / 4)], &value, sizeof(E));
    }
  }
};
template <class T>
struct Raw<Any<T>, 1> {
  T value;
  HK_INLINE T operator[](int) const { return value; }
  HK_INLINE void set(int, T v) { value = v; }
};

template <class E, int N>
HK_INLINE void load(const View& view, const Place& at, Raw<E, N>& out) {
  const int64_t offset = offset_of(view, at);
  if constexpr (is_any<E>) {
    out.value = any_at<Working<E>>(view.data, offset, view.element);
  } else {
    constexpr int bytes = Raw<E, N>::bytes, parts = N / Raw<E, N>::each;
    const auto* from = reinterpret_cast<const Words<bytes>*>(view.data + offset * int64_t(sizeof(E)));
#pragma unroll
    for (int p = 0; p < parts; ++p) out.part[p] = read_words(from + p);
  }
}

template <class E, int N>
HK_INLINE void write_run(char* to, const Raw<E, N>& from) {
  auto* words = reinterpret_cast<Words<Raw<E, N>::bytes>*>(to);
#pragma unroll
  for (int p = 0; p < N / Raw<E, N>::each; ++p) write_words(words + p, from.part[p]);
}

template <class E, int N>
HK_INLINE void store(const View& view, const Place& at, const Raw<E, N>& from) {
  const int64_t offset = offset_of(view, at);
  if constexpr (is_any<E>)
    set_any(view.data, offset, view.element, from.value);
  else
    write_run(view.data + offset * int64_t(sizeof(E)), from);
}

HK_INLINE double total_at(const Totals& totals, int64_t b) {
  return any_at<double>(totals.data, b * totals.stride, totals.element);
}
HK_INLINE void set_total(const Totals& totals, int64_t b, double value) {
  set_any(totals.data, b * totals.stride, totals.element, value);
}

// The chunk that the calling thread's group takes in one round of the grid, and the thread's first element in it.
// Every thread of a block makes the same number of rounds, so that warps and blocks may meet inside.
struct Share {
  int64_t b, chunk, begin, end;
  bool active;
};

// First of the units that the calling block takes in a round. Formed anew where it is asked for: a counter of 64 bits
// would occupy two registers all the while.
__device__ __forceinline__ int64_t first_unit(const Walk& walk, unsigned round) {
  return (blockIdx.x + int64_t(round) * gridDim.x) * (block_threads / walk.lanes);
}

__device__ __forceinline__ bool has_round(const Walk& walk, unsigned round) {
  return first_unit(walk, round) < walk.rows * walk.chunks;
}

__device__ __forceinline__ Share share_of(const Walk& walk, unsigned round) {
  const int64_t unit = first_unit(walk, round) + threadIdx.x / unsigned(walk.lanes);
  Share share{0, 0, 0, 0, unit < walk.rows * walk.chunks};
  if (!share.active) return share;
  share.b = walk.chunks == 1 ? unit : unit / walk.chunks;
  share.chunk = unit - share.b * walk.chunks;
  share.begin = share.chunk * walk.chunk;
  share.end = share.begin + walk.chunk < walk.row ? share.begin + walk.chunk : walk.row;
  return share;
}

__device__ __forceinline__ int lane_of(const Walk& walk) { return threadIdx.x & (walk.lanes - 1); }

// Sum over a group in a fixed order; the first thread of the group has it. All threads of the block must call.
__device__ __forceinline__ double sum_group(double value, int lanes) {
  __shared__ double warps[block_warps];
  for (int o = (lanes < warp_threads ? lanes : warp_threads) / 2; o > 0; o >>= 1)
    value += __shfl_xor_sync(whole_warp, value, o);
  if (lanes <= warp_threads) return value;
  __syncthreads();  // the sums of the round before have been read
  if (threadIdx.x % warp_threads == 0) warps[threadIdx.x / warp_threads] = value;
  __syncthreads();
  double total = 0;
  for (int w = 0; w < block_warps; ++w) total += warps[w];
  return total;
}

// Second stage of sums whose chunks were summed apart: out[b] = start[b] + factor * sum of partial[b, :]. One block a
// row.
struct FinishRows {
  const double* partial;
  int64_t rows, chunks;
  Totals start, out;
  double factor;
};

__device__ __forceinline__ double started(const Totals& start, int64_t b, double sum) {
  return start.data ? sum + total_at(start, b) : sum;
}

static __global__ void __launch_bounds__(block_threads) hk_finish_rows(FinishRows f) {
  for (int64_t b = blockIdx.x; b < f.rows; b += gridDim.x) {
    double sum = 0;
    for (int64_t k = threadIdx.x; k < f.chunks; k += block_threads) sum += f.partial[b * f.chunks + k];
    sum = sum_group(sum, block_threads);
    if (threadIdx.x == 0) set_total(f.out, b, started(f.start, b, f.factor * sum));
  }
}

}  // namespace hk::cuda
