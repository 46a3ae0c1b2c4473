#include "layout.h"

namespace hk {

Element element_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Element::f32;
    case ScalarType::Double:
      return Element::f64;
    case ScalarType::BFloat16:
      return Element::bf16;
    case ScalarType::Half:
      return Element::f16;
    default:
      STD_TORCH_CHECK(false, "hybridkern: expected a float32, float64, bfloat16 or float16 tensor");
  }
}

bool folds(const Tensor& tensor, int64_t first) {
  int64_t expected = -1;
  for (int64_t d = tensor.dim() - 1; d >= first; --d) {
    if (tensor.size(d) == 1) continue;
    if (expected >= 0 && tensor.stride(d) != expected) return false;
    expected = tensor.stride(d) * tensor.size(d);
  }
  return true;
}

Tensor foldable(const Tensor& tensor, int64_t first) {
  return folds(tensor, first) ? tensor : torch::stable::contiguous(tensor);
}

Extent extent_of(const Tensor& tensor, int64_t channel_dim) {
  Extent extent;
  if (tensor.dim() > channel_dim) extent.channels = tensor.size(channel_dim);
  for (int64_t d = channel_dim + 1; d < tensor.dim(); ++d) extent.pixels *= tensor.size(d);
  return extent;
}

namespace {

int64_t folded_stride(const Tensor& tensor, int64_t first) {
  for (int64_t d = tensor.dim() - 1; d >= first; --d)
    if (tensor.size(d) != 1) return tensor.stride(d);
  return 1;
}

}  // namespace

RowOrder order_of(const Tensor& tensor) {
  const Extent extent = extent_of(tensor);
  const int64_t channel = tensor.dim() > 1 ? tensor.stride(1) : 1;
  if (extent.pixels == 1) return {extent, true};  // runs over the channels
  return {extent, extent.channels > 1 && channel < folded_stride(tensor, 2)};
}

Operand operand(const Tensor& tensor, const RowOrder& order, int64_t channel_dim, int64_t first_channel,
                int64_t channel_step) {
  Operand out;
  out.element = element_of(tensor);
  out.batch_stride = tensor.size(0) == 1 ? 0 : tensor.stride(0);
  const int64_t channel = tensor.dim() > channel_dim ? tensor.stride(channel_dim) : 1;
  out.channel_stride = channel * channel_step;
  out.pixel_stride = folded_stride(tensor, channel_dim + 1);
  out.data =
      static_cast<char*>(const_cast<void*>(tensor.const_data_ptr())) + first_channel * channel * size_of(out.element);
  const auto [channels, pixels] = order.extent;
  const int64_t inner = order.pixel_major ? channels : pixels, outer = order.pixel_major ? pixels : channels;
  const int64_t step = order.pixel_major ? out.channel_stride : out.pixel_stride;
  const int64_t outer_step = order.pixel_major ? out.pixel_stride : out.channel_stride;
  out.dense = (inner == 1 || step == 1) && (outer == 1 || outer_step == inner);
  return out;
}

}  // namespace hk
