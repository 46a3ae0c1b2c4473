// Every kernel of csrc/cuda on exactly sized heap buffers, under a sanitizer; sums are compared with double precision.
// Exit status: 0 right, 1 wrong numbers, 2 what a GPU would hang on. The sanitizers end the program themselves.
#include "cuda_shim.h"
// after the shim, which stands in for the CUDA language
#include "affine_coupling/cuda.cuh"
#include "discretized_logistic/cuda.cuh"
#include "rounding_coupling/cuda.cuh"

using namespace hk;
using namespace hk::cuda;

namespace {

int failures = 0;

void expect_near(const char* what, double got, double expected, double tolerance) {
  if (std::abs(got - expected) <= tolerance * (1 + std::abs(expected))) return;
  std::printf("%s: got %.9g, expected %.9g\n", what, got, expected);
  ++failures;
}

// Exactly as long as the kernel may touch, so that the sanitizer sees one element more.
template <class E>
struct Buffer {
  E* data;
  int64_t n;
  explicit Buffer(int64_t n_, unsigned seed = 0) : n(n_) {
    void* p = nullptr;
    if (posix_memalign(&p, 16, n * sizeof(E)) != 0) std::abort();
    data = static_cast<E*>(p);
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < n; ++i) data[i] = narrow<E>(normal(random));
  }
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  double operator[](int64_t i) const { return widen<double>(data[i]); }
};

template <class E>
constexpr Element element_of() {
  if (std::is_same_v<E, double>) return Element::f64;
  if (std::is_same_v<E, Bf16>) return Element::bf16;
  return std::is_same_v<E, F16> ? Element::f16 : Element::f32;
}

template <class E>
View rows_of(const Buffer<E>& buffer, int64_t batch, int64_t step = 1) {
  return {reinterpret_cast<char*>(buffer.data), batch, 0, step, element_of<E>()};
}
template <class E>
Totals totals_of(const Buffer<E>& buffer) {
  return {reinterpret_cast<char*>(buffer.data), 1, element_of<E>()};
}

Walk walk_of(int64_t rows, int64_t row, int n, int lanes, int64_t chunks) {
  const int64_t chunk = ((row / n + chunks - 1) / chunks) * n;
  return {rows, row, row, chunk, (row + chunk - 1) / chunk, lanes};
}
unsigned blocks_of(const Walk& w) {
  return unsigned((w.rows * w.chunks * w.lanes + block_threads - 1) / block_threads);
}

template <class Kernel, class Args>
void run(Kernel kernel, unsigned blocks, const Args& args) {
  hk::shim::launch(blocks, block_threads, [=] { kernel(args); });
}

// X, P: element types of the buffers; KX, KP, N: of the kernel.
template <class X, class P, class KX, class KP, int N>
void coupling(int64_t rows, int64_t row, int lanes, int64_t chunks, int map) {
  using T = Working<KX>;
  const Walk walk = walk_of(rows, row, N, lanes, chunks);
  Buffer<X> x(rows * row, 1), y(rows * row), gx(rows * row);
  Buffer<P> a(rows * row, 2), t(rows * row, 3), ga(rows * row), gt(rows * row);
  Buffer<float> total(rows);
  Buffer<double> partial(rows * walk.chunks);
  CouplingForward<T> f{};
  f.walk = walk;
  f.form.map = map;
  f.form.clamp = 2, f.form.offset = T(0.5), f.form.eps = T(0.001), f.form.gain = 1, f.form.shift_gain = 1;
  f.x = rows_of(x, row), f.a = rows_of(a, row), f.t = rows_of(t, row), f.y = rows_of(y, row);
  f.log_det_out = totals_of(total);
  f.partial = walk.chunks > 1 ? partial.data : nullptr;
  run(hk_affine_coupling_forward<KX, KP, N>, blocks_of(walk), f);
  if (f.partial)
    run(hk_finish_rows, unsigned(rows), FinishRows{partial.data, rows, walk.chunks, {}, f.log_det_out, 1.0});
  for (int64_t b = 0; b < rows; ++b) {
    double sum = 0;
    for (int64_t i = b * row; i < (b + 1) * row; ++i) {
      const double v = a[i] + 0.5;
      if (map == 1) sum += v;
      if (map == 2) sum -= std::log1p(std::exp(-v));
    }
    if (map <= 2) expect_near("log_det", total[b], sum, 1e-4);
  }
  CouplingBackward<T> g{};
  g.walk = walk, g.form = f.form;
  for (int kind = 0; kind < 3; ++kind) {
    g.kind = kind;
    g.known = f.y, g.a = f.a, g.t = f.t, g.grad_y = f.x, g.x = rows_of(y, row);
    g.grad_x = rows_of(gx, row), g.grad_a = rows_of(ga, row), g.grad_t = rows_of(gt, row);
    g.grad_log_det = totals_of(total);
    run(hk_affine_coupling_backward<KX, KP, N>, blocks_of(walk), g);
  }
}

template <class X, class P, class KX, class KP, int N>
void rounding(int64_t rows, int64_t row, int lanes, int64_t chunks) {
  const Walk walk = walk_of(rows, row, N, lanes, chunks);
  Buffer<X> x(rows * row, 1), y(rows * row);
  Buffer<P> t(rows * row, 2), gt(rows * row);
  Buffer<float> beta(1, 3), grad_beta(1);
  run(hk_rounding_coupling_forward<KX, KP, N>, blocks_of(walk),
      RoundingForward{walk, rows_of(x, row), rows_of(t, row), rows_of(y, row), totals_of(beta), 1.0});
  const unsigned blocks = std::min(3u, blocks_of(walk));
  Buffer<double> partial(blocks);
  RoundingBackward g{walk, rows_of(x, row), rows_of(t, row), rows_of(gt, row), totals_of(beta), totals_of(grad_beta)};
  g.partial = blocks > 1 ? partial.data : nullptr;
  g.sign = 1.0;
  run(hk_rounding_coupling_backward<KX, KP, N>, blocks, g);
  if (g.partial) run(hk_finish_rows, 1u, FinishRows{partial.data, 1, blocks, {}, g.grad_beta, 1.0});
  double sum = 0;
  for (int64_t i = 0; i < rows * row; ++i) sum += x[i] * t[i];
  expect_near("grad_beta", grad_beta[0], sum, 1e-4);
}

template <class X, class P, class KX, class KP, int N>
void logistic(int64_t rows, int64_t row, int lanes, int64_t chunks) {
  using T = Working<KX>;
  const Walk walk = walk_of(rows, row, N, lanes, chunks);
  Buffer<X> x(rows * row, 1), out(rows * row), grad(rows * row, 4), gx(rows * row);
  Buffer<P> mean(rows * row, 2), log_scale(rows * row, 3), gm(rows * row), gs(rows * row);
  Buffer<float> total(rows);
  Buffer<double> partial(rows * walk.chunks);
  LogisticForward<T> f{walk,
                       {1, T(0.5), 0},
                       rows_of(x, row),
                       rows_of(mean, row),
                       rows_of(log_scale, row),
                       rows_of(out, row),
                       totals_of(total),
                       walk.chunks > 1 ? partial.data : nullptr};
  run(hk_discretized_logistic_forward<KX, KP, N>, blocks_of(walk), f);
  LogisticBackward<T> g{
      walk, f.bin, rows_of(grad, row), f.x, f.mean, f.log_scale, rows_of(gx, row), rows_of(gm, row), rows_of(gs, row),
      {}};
  run(hk_discretized_logistic_backward<KX, KP, N>, blocks_of(walk), g);
  Buffer<P> sum_mean(row), sum_log_scale(row);
  g.mean.batch = g.log_scale.batch = 0;
  LogisticShared<T> s{g, 1, 0, 0, 5, nullptr};
  while (s.columns * N < row && s.columns < 32) s.columns *= 2;
  s.tiles = (row / N + s.columns - 1) / s.columns;
  s.slabs = (rows + s.slab_rows - 1) / s.slab_rows;
  Buffer<T> sums(2 * s.slabs * row);
  s.partial = sums.data;
  run(hk_discretized_logistic_backward_shared<KX, KP, N>, unsigned(s.tiles * s.slabs), s);
  FinishColumns<T> finish{walk, sums.data, rows_of(sum_mean, 0), rows_of(sum_log_scale, 0), 4, 0, s.slabs};
  run(hk_finish_columns<T>, unsigned((row + 3) / 4), finish);
  for (int64_t i = 0; i < row; ++i) {
    double expected = 0;
    for (int64_t b = 0; b < rows; ++b) expected -= gx[b * row + i];
    expect_near("grad_mean", sum_mean[i], expected, 2e-2);
  }
}

template <class X, class P, class KX, class KP, int N>
void all(int64_t row) {
  for (const auto& [rows, lanes, chunks] : {std::array<int64_t, 3>{3, 4, 1}, {5, 32, 1}, {2, 128, 1}, {2, 128, 3}}) {
    for (int map = 0; map < 7; ++map) coupling<X, P, KX, KP, N>(rows, row, int(lanes), chunks, map);
    rounding<X, P, KX, KP, N>(rows, row, int(lanes), chunks);
    logistic<X, P, KX, KP, N>(rows, row, int(lanes), chunks);
  }
}

}  // namespace

int main() {
  try {
#if defined(HK_SMALL)
    coupling<float, float, float, float, 4>(2, 48, 128, 1, 2);
    logistic<float, float, float, float, 4>(12, 24, 32, 1);
#else
    all<float, float, float, float, 4>(1032);
    all<double, double, double, double, 2>(64);
    all<Bf16, Bf16, Bf16, Bf16, 8>(136);
    all<F16, F16, F16, F16, 8>(64);
    all<float, Bf16, float, Bf16, 4>(64);
    all<float, Bf16, Any<float>, Any<float>, 1>(33);
    all<double, double, Any<double>, Any<double>, 1>(7);
#endif
  } catch (const hk::shim::Error& error) {
    std::printf("not valid on a GPU: %s\n", error.what());
    return 2;
  }
  std::printf("%lu launches, %d failures\n", hk::shim::launches, failures);
  return failures != 0;
}
