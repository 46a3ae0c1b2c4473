// The element types of the tensors that the kernels read and write.
#pragma once

namespace hk {

enum class Element : int { f32, f64, bf16, f16 };

constexpr int size_of(Element element) { return element == Element::f64 ? 8 : element == Element::f32 ? 4 : 2; }

}  // namespace hk
