// Checks of the arguments of a registered operator. torch.export, AOTInductor and C++ callers reach it past those of
// hybridkern/ops: what is wrong is refused here, before anything is read or written, as "name: got X, expected Y".
//
// An accepted call costs a few nanoseconds an argument; texts are made for refused ones only.
#pragma once

#include <optional>
#include <string>

#include "layout.h"

namespace hk {

struct Shape {
  int64_t dims;
  int64_t sizes[most_dims];
};

// An argument by name, and what is asked of it more than once. Its memory is all there.
struct Argument {
  Argument(const char* name, const Tensor& tensor);
  Shape shape() const;
  bool has(const Shape& wanted) const;
  bool has_shape_of(const Argument& other) const;

  const char* name;
  const Tensor& tensor;
  const int64_t *sizes, *strides;
  int64_t dims;
  ScalarType type;
  int32_t device, device_index = -1;
};

[[noreturn]] void refuse(const std::string& name, const std::string& got, const std::string& expected);

std::string text_of(const Shape& shape);
std::string text_of(ScalarType type);

void check_shape(const Argument& value, const Shape& wanted);
void check_shape_of(const Argument& value, const Argument& other);
void check_device(const Argument& value, const Argument& main);

// The argument that the others are held against: of a floating-point type, with `least` dimensions at least.
Argument main_argument(const char* name, const Tensor& tensor, int64_t least);
// The same of float32 or float64, with `dims` dimensions.
Argument working_argument(const char* name, const Tensor& tensor, int64_t dims);

// On the device of `main`, of its type, or also bfloat16 or float16 beside float32.
void check_param(const Argument& value, const Argument& main);
// On the device of `main` and of its type.
void check_same_type(const Argument& value, const Argument& main);

// Of the shape, type and device of `main`.
void check_like(const char* name, const Tensor& tensor, const Argument& main);
// Of that shape, of the type and device of `main`.
void check_exactly(const char* name, const Tensor& tensor, const Argument& main, const Shape& wanted);
// A number for each example of `main`, float32 or float64.
void check_totals(const char* name, const Tensor& tensor, const Argument& main);
void check_totals(const char* name, const std::optional<Tensor>& tensor, const Argument& main);
// One number of any floating-point type.
void check_one_element(const char* name, const Tensor& tensor, const Argument& main);

void check_range(const char* name, double value, double least, double most);

}  // namespace hk
