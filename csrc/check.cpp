#include "check.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

namespace hk {

namespace {

// Elements from the first one on that a tensor's strides reach; 0 where it has none.
int64_t span_of(const int64_t* sizes, const int64_t* strides, int64_t dims) {
  int64_t last = 0;
  for (int64_t d = 0; d < dims; ++d) {
    if (sizes[d] == 0) return 0;
    last += (sizes[d] - 1) * strides[d];
  }
  return last + 1;
}

int64_t size_of(ScalarType type) {
  return type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : 2;  // of others the type is refused
}

// A storage that was freed or cut (storage.resize_) holds less than its tensors say.
void check_memory(const Argument& value) {
  AtenTensorHandle handle = value.tensor.get();
  int64_t offset, bytes;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(handle, &offset));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(handle, &bytes));
  const int64_t span = span_of(value.sizes, value.strides, value.dims);
  const int64_t needed = span == 0 ? 0 : (offset + span) * size_of(value.type);
  if (bytes < needed)
    refuse(value.name, "a storage of " + std::to_string(bytes) + " bytes", std::to_string(needed) + " bytes");
}

bool is_float(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
         type == ScalarType::Half;
}

std::string device_text(const Argument& value) {
  const std::string number = value.device_index < 0 ? "" : ":" + std::to_string(value.device_index);
  if (value.device == aoti_torch_device_type_cpu()) return "cpu";
  if (value.device == aoti_torch_device_type_cuda()) return "cuda" + number;
  return "of type " + std::to_string(value.device) + number;
}

}  // namespace

void refuse(const std::string& name, const std::string& got, const std::string& expected) {
  throw std::invalid_argument(name + ": got " + got + ", expected " + expected);
}

std::string text_of(const Shape& shape) {
  std::ostringstream out;
  out << '(';
  for (int64_t d = 0; d < shape.dims; ++d) out << (d ? ", " : "") << shape.sizes[d];
  out << (shape.dims == 1 ? ",)" : ")");
  return out.str();
}

std::string text_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Half:
      return "torch.float16";
    default:
      return torch::headeronly::toString(type);
  }
}

Argument::Argument(const char* name_, const Tensor& tensor_) : name(name_), tensor(tensor_) {
  if (!tensor.defined()) refuse(name, "None", "a tensor");  // the dispatcher takes it for one
  type = tensor.scalar_type();
  AtenTensorHandle handle = tensor.get();
  int64_t *own, *steps;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(handle, &dims));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(handle, &own));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(handle, &steps));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(handle, &device));
  if (device != aoti_torch_device_type_cpu())
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(handle, &device_index));
  sizes = own, strides = steps;
  if (dims > most_dims) refuse(name, std::to_string(dims) + " dimensions", std::to_string(most_dims) + " at most");
  check_memory(*this);
}

Shape Argument::shape() const {
  Shape out;
  out.dims = dims;
  std::copy_n(sizes, dims, out.sizes);
  return out;
}

bool Argument::has(const Shape& wanted) const {
  return dims == wanted.dims && std::equal(sizes, sizes + dims, wanted.sizes);
}

bool Argument::has_shape_of(const Argument& other) const {
  return dims == other.dims && std::equal(sizes, sizes + dims, other.sizes);
}

void check_shape(const Argument& value, const Shape& wanted) {
  if (!value.has(wanted)) refuse(value.name, "shape " + text_of(value.shape()), text_of(wanted));
}

void check_device(const Argument& value, const Argument& main) {
  if (value.device == main.device && value.device_index == main.device_index) return;
  refuse(value.name, "device " + device_text(value), device_text(main) + ", the device of " + main.name);
}

void check_shape_of(const Argument& value, const Argument& other) {
  if (value.has_shape_of(other)) return;
  refuse(value.name, "shape " + text_of(value.shape()), text_of(other.shape()) + ", the shape of " + other.name);
}

Argument main_argument(const char* name, const Tensor& tensor, int64_t least) {
  Argument main(name, tensor);
  if (!is_float(main.type)) refuse(name, "dtype " + text_of(main.type), "float32, float64, bfloat16 or float16");
  if (main.dims < least) refuse(name, "shape " + text_of(main.shape()), std::to_string(least) + " dimensions at least");
  return main;
}

Argument working_argument(const char* name, const Tensor& tensor, int64_t dims) {
  Argument main(name, tensor);
  if (main.type != ScalarType::Float && main.type != ScalarType::Double)
    refuse(name, "dtype " + text_of(main.type), "float32 or float64");
  if (main.dims != dims) refuse(name, "shape " + text_of(main.shape()), std::to_string(dims) + " dimensions");
  return main;
}

void check_param(const Argument& value, const Argument& main) {
  const bool low = value.type == ScalarType::BFloat16 || value.type == ScalarType::Half;
  const bool single = main.type == ScalarType::Float;
  if (value.type != main.type && !(single && low))
    refuse(value.name, "dtype " + text_of(value.type),
           text_of(main.type) + ", the dtype of " + main.name + (single ? ", bfloat16 or float16" : ""));
  check_device(value, main);
}

void check_same_type(const Argument& value, const Argument& main) {
  if (value.type != main.type)
    refuse(value.name, "dtype " + text_of(value.type), text_of(main.type) + ", the dtype of " + main.name);
  check_device(value, main);
}

void check_like(const char* name, const Tensor& tensor, const Argument& main) {
  const Argument value(name, tensor);
  check_same_type(value, main);
  check_shape_of(value, main);
}

void check_exactly(const char* name, const Tensor& tensor, const Argument& main, const Shape& wanted) {
  const Argument value(name, tensor);
  check_same_type(value, main);
  check_shape(value, wanted);
}

void check_totals(const char* name, const Tensor& tensor, const Argument& main) {
  const Argument value(name, tensor);
  if (value.type != ScalarType::Float && value.type != ScalarType::Double)
    refuse(name, "dtype " + text_of(value.type), "float32 or float64");
  if (value.dims != 1 || value.sizes[0] != main.sizes[0])
    refuse(name, "shape " + text_of(value.shape()), "(" + std::to_string(main.sizes[0]) + ",)");
  check_device(value, main);
}

void check_totals(const char* name, const std::optional<Tensor>& tensor, const Argument& main) {
  if (tensor) check_totals(name, *tensor, main);
}

void check_one_element(const char* name, const Tensor& tensor, const Argument& main) {
  const Argument value(name, tensor);
  if (!is_float(value.type)) refuse(name, "dtype " + text_of(value.type), "float32, float64, bfloat16 or float16");
  for (int64_t d = 0; d < value.dims; ++d)
    if (value.sizes[d] != 1) refuse(name, "shape " + text_of(value.shape()), "one element: () or (1,)");
  check_device(value, main);
}

void check_range(const char* name, double value, double least, double most) {
  if (value >= least && value <= most) return;  // not so for NaN
  std::ostringstream got, expected;
  got << value;
  expected << "a number from " << least << " to " << most;
  refuse(name, got.str(), expected.str());
}

}  // namespace hk
