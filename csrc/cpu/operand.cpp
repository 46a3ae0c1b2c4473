#include "operand.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#if defined(__linux__)
#include <unistd.h>
#endif

#include "../math/low_precision.h"

namespace hk {

int64_t cache_share() {
  static const int64_t share = [] {
    int64_t size = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
    size = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return size > 0 ? size / 2 : int64_t(16) << 20;
  }();
  return share;
}

namespace {

int32_t shim_type(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return aoti_torch_dtype_float64();
    case ScalarType::BFloat16:
      return aoti_torch_dtype_bfloat16();
    case ScalarType::Half:
      return aoti_torch_dtype_float16();
    default:
      return aoti_torch_dtype_float32();
  }
}

void contiguous_strides(const int64_t* sizes, int64_t dims, int64_t* strides) {
  int64_t step = 1;
  for (int64_t d = dims - 1; d >= 0; --d) {
    strides[d] = step;
    step *= sizes[d] > 1 ? sizes[d] : 1;
  }
}

}  // namespace

Tensor empty_tensor(const int64_t* sizes, int64_t dims, ScalarType type) {
  int64_t strides[most_dims];
  contiguous_strides(sizes, dims, strides);
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dims, sizes, strides, shim_type(type), aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

Tensor empty_channels_last(const int64_t (&sizes)[4], ScalarType type) {
  const auto extent = [&](int dim) { return std::max<int64_t>(sizes[dim], 1); };
  const int64_t column = extent(1), row = extent(3) * column;
  const int64_t strides[] = {extent(2) * row, 1, row, column};
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(4, sizes, strides, shim_type(type), aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

Tensor empty_matching(const Tensor& tensor) {
  int64_t strides[most_dims];
  const auto sizes = tensor.sizes(), own = tensor.strides();
  contiguous_strides(sizes.data(), tensor.dim(), strides);
  if (!std::equal(own.begin(), own.end(), strides)) return torch::stable::empty_like(tensor);
  return empty_shaped_like(tensor);
}

namespace {

// A walk over elements [begin, begin + n) of row b in runs of equal stride: run(address, step, count, done).
template <class Run>
void for_runs(const Operand& of, const RowOrder& order, int64_t b, int64_t begin, int64_t n, const Run& run) {
  if (of.dense) {
    run(of.data + (b * of.batch_stride + begin) * size_of(of.element), 1, n, 0);
    return;
  }
  const int64_t inner = order.pixel_major ? order.extent.channels : order.extent.pixels;
  const int64_t step = order.pixel_major ? of.channel_stride : of.pixel_stride;
  const int64_t outer_step = order.pixel_major ? of.pixel_stride : of.channel_stride;
  const int64_t width = size_of(of.element);
  int64_t o = begin / inner, i = begin % inner;
  for (int64_t done = 0; done < n; ++o, i = 0) {
    const int64_t count = inner - i < n - done ? inner - i : n - done;
    run(of.data + (b * of.batch_stride + o * outer_step + i * step) * width, step, count, done);
    done += count;
  }
}

template <class From, class T>
void gather(const char* address, int64_t step, int64_t count, T* to) {
  const From* from = reinterpret_cast<const From*>(address);
  if (std::is_same_v<From, T> && step == 1)
    memcpy(to, from, count * sizeof(T));
  else if (step == 1)
    for (int64_t i = 0; i < count; ++i) to[i] = widen<T>(from[i]);
  else if (step == 2)
    // Scale and shift in turn, as two libraries have them: of a known step the compiler makes vectors.
    for (int64_t i = 0; i < count; ++i) to[i] = widen<T>(from[2 * i]);
  else
    for (int64_t i = 0; i < count; ++i) to[i] = widen<T>(from[i * step]);
}

template <class To, class T>
void scatter(char* address, int64_t step, int64_t count, const T* from) {
  To* to = reinterpret_cast<To*>(address);
  if (std::is_same_v<To, T> && step == 1)
    memcpy(to, from, count * sizeof(T));
  else if (step == 1)
    for (int64_t i = 0; i < count; ++i) to[i] = narrow<To>(from[i]);
  else if (step == 2)
    for (int64_t i = 0; i < count; ++i) to[2 * i] = narrow<To>(from[i]);
  else
    for (int64_t i = 0; i < count; ++i) to[i * step] = narrow<To>(from[i]);
}

}  // namespace

template <class T>
void copy_block(const Operand& from, const RowOrder& order, int64_t b, int64_t begin, int64_t n, T* buffer) {
  for_runs(from, order, b, begin, n, [&](const char* address, int64_t step, int64_t count, int64_t done) {
    switch (from.element) {
      case Element::f32:
        return gather<float>(address, step, count, buffer + done);
      case Element::f64:
        return gather<double>(address, step, count, buffer + done);
      case Element::bf16:
        return gather<Bf16>(address, step, count, buffer + done);
      case Element::f16:
        return gather<F16>(address, step, count, buffer + done);
    }
  });
}

template <class T>
void send_block(const Operand& to, const RowOrder& order, int64_t b, int64_t begin, int64_t n, const T* from) {
  for_runs(to, order, b, begin, n, [&](char* address, int64_t step, int64_t count, int64_t done) {
    switch (to.element) {
      case Element::f32:
        return scatter<float>(address, step, count, from + done);
      case Element::f64:
        return scatter<double>(address, step, count, from + done);
      case Element::bf16:
        return scatter<Bf16>(address, step, count, from + done);
      case Element::f16:
        return scatter<F16>(address, step, count, from + done);
    }
  });
}

template void copy_block(const Operand&, const RowOrder&, int64_t, int64_t, int64_t, float*);
template void copy_block(const Operand&, const RowOrder&, int64_t, int64_t, int64_t, double*);
template void send_block(const Operand&, const RowOrder&, int64_t, int64_t, int64_t, const float*);
template void send_block(const Operand&, const RowOrder&, int64_t, int64_t, int64_t, const double*);

double value_of(const Tensor& one_element) {
  Operand scalar;
  scalar.data = static_cast<char*>(const_cast<void*>(one_element.const_data_ptr()));
  scalar.element = element_of(one_element);
  double buffer;
  return *read_block<double>(scalar, RowOrder{}, 0, 0, 1, &buffer);
}

void set_value(Tensor& one_element, double value) {
  Operand scalar;
  scalar.data = static_cast<char*>(one_element.mutable_data_ptr());
  scalar.element = element_of(one_element);
  write_block<double>(scalar, RowOrder{}, 0, 0, 1, &value);
}

}  // namespace hk
