// Forward and backward of the network over an engine (blocks.h); included once by each file of an instruction set.
#pragma once

#include "gradients.h"

namespace hk::HK_ISA {

template <class Engine>
class Outputs : Layers<Engine> {
  using Base = Layers<Engine>;
  using Base::net_, Base::plan_, Base::hidden_, Base::out_, Base::blocks_;
  using Base::w3_, Base::pack_forward, Base::take, Base::kept, Base::hidden_layers;
  using typename Base::E, typename Base::T, typename Base::Forward;

 public:
  using Layers<Engine>::Layers;

  void run() {
    pack_forward(true);
    const int64_t halo = plan_.bands > 1 ? plan_.count * 2 * plan_.width * net_.out : 0;
    Buffer memory;
    T* halos = static_cast<T*>(memory.allocate(halo * sizeof(T)));
    each(plan_.count, [&](int64_t begin, int64_t end) {
      [[maybe_unused]] const typename Engine::Session session;
      Forward own;
      Parts parts;
      take(parts, own);
      parts.place(network::scratch(parts.used()));
      take(parts, own);
      copy_bias(net_.b3, net_.out, own.bias3);
      for (int64_t s = begin; s < end; ++s) {
        E* hidden1 = kept(net_.hidden1, s, own.hidden1);
        E* hidden2 = kept(net_.hidden2, s, own.hidden2);
        const Slice slice = slice_at(plan_, s);
        hidden_layers(slice, own, hidden1, hidden2);
        const int64_t stride = out_ * side;
        const auto keep = [&](int64_t i, int64_t j, const T* c, int64_t live) {
          for (int64_t r = 0; r < live; ++r)
            memcpy(own.columns + (i * side + r) * stride + j * side, c + r * side, side * sizeof(T));
        };
        products<Engine>(hidden2, w3_, blocks_, out_, hidden_, slice.pixels(), keep);
        gather_sums(own.columns, stride, plan_, slice, net_.out, own.bias3, own.line, static_cast<T*>(net_.params),
                    halos + s * 2 * plan_.width * net_.out);
      }
    });
    if (plan_.bands > 1) add_halos<T>(halos, plan_, net_.out, static_cast<T*>(net_.params));
  }

 private:
  static void copy_bias(const void* from, int64_t count, T* to) {
    memcpy(to, from, count * sizeof(T));
    for (int64_t i = 0; i < slack; ++i) to[count + i] = 0;
  }
};

template <class Engine>
network::Kernels make_network_kernels(const char* name) {
  return {name, [](const Network& net) { Outputs<Engine>(net).run(); },
          [](const Network& net) { Gradients<Engine>(net).run(); }};
}

}  // namespace hk::HK_ISA
