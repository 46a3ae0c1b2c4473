// An integer network as a Python object, which holds its weights as the kernels read them.
#include <pybind11/numpy.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#include "bind.h"
#include "network.h"

namespace hk::codec {
namespace {

namespace py = pybind11;
template <class T>
using Array = py::array_t<T, py::array::c_style>;

constexpr int64_t fields = 11, alignment = 64, least_sum = -(int64_t{1} << 31), most_sum = (int64_t{1} << 31) - 1;

void require(bool holds, const char* message) {
  if (!holds) throw py::value_error(message);
}

// Whether |value| <= most, for every value: the least integer has no absolute value.
bool is_within(int64_t value, int64_t most) { return value >= -most && value <= most; }

template <class T>
T* aligned(std::vector<T>& memory) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory.data());
  return reinterpret_cast<T*>((at + alignment - 1) / alignment * alignment);
}

class IntegerNetwork {
 public:
  IntegerNetwork(const Array<int64_t>& plan, const Array<int8_t>& weights, const Array<int32_t>& numbers,
                 const Array<uint8_t>& tables)
      : weights_(weights.data(), weights.data() + weights.size()),
        numbers_(numbers.data(), numbers.data() + numbers.size()),
        tables_(tables.data(), tables.data() + tables.size()) {
    require(plan.ndim() == 2 && plan.shape(1) == fields && plan.shape(0) >= 2, "plan: expected (layers + 1, 11)");
    const int64_t* head = plan.data();
    net_.center = head[0], net_.factor = head[1], net_.shift = head[2], net_.zero = head[3];
    check_rounding(net_.factor, net_.shift);
    require(is_within(net_.center, 1 << 30) && net_.zero >= 0 && net_.zero <= 255, "plan: no such input");
    for (int64_t i = 1; i < plan.shape(0); ++i) add(plan.data() + i * fields, i + 1 == plan.shape(0));
    net_.in = layers_.front().in, net_.out = layers_.back().out, net_.count = layers_.size();
  }

  Array<int32_t> run(const Array<int32_t>& x) {
    require(x.ndim() == 4 && x.shape(1) == net_.in, "x: expected (B, C, H, W) with the channels of the network");
    const int64_t batch = x.shape(0), area = x.shape(2) * x.shape(3);
    Array<int32_t> y({batch, net_.out, static_cast<int64_t>(x.shape(2)), static_cast<int64_t>(x.shape(3))});
    if (batch * area == 0) return y;
    Network net = net_;
    net.height = x.shape(2), net.width = x.shape(3);
    const int32_t* from = x.data();
    int32_t* to = y.mutable_data();
    const py::gil_scoped_release others;
    const std::lock_guard<std::mutex> alone(running_);
    const NetworkKernels& kernels = network_kernels();
    pack(kernels);
    net.layers = layers_.data();
    const int64_t bytes = activation_bytes(net, kernels.activation_bytes) + alignment;
    torch::stable::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      std::vector<char> first(bytes), second(bytes);
      std::vector<int16_t> stream(area * net.stream + 1);
      const Work work{{aligned(first), aligned(second)}, stream.data()};
      for (int64_t i = begin; i < end; ++i) kernels.run(net, from + i * net.in * area, to + i * net.out * area, work);
    });
    return y;
  }

 private:
  static void check_rounding(int64_t factor, int64_t shift) {
    require(factor >= 0 && factor < 1 << 22 && shift >= 1 && shift <= 52, "plan: a factor or shift out of range");
  }

  template <class T>
  static const T* part(const std::vector<T>& of, int64_t begin, int64_t count) {
    require(begin >= 0 && count >= 0 && begin <= static_cast<int64_t>(of.size()) - count, "plan: beyond its arrays");
    return of.data() + begin;
  }

  void add(const int64_t* f, bool last) {
    Layer layer{f[0], f[1], f[2], static_cast<Mode>(f[3]), f[4], f[5], f[6], f[7]};
    const int64_t previous = layers_.empty() ? layer.in : layers_.back().out;
    const bool sound = layer.in >= 1 && layer.in <= 4096 && layer.out >= 1 && layer.out <= 4096 &&
                       (layer.taps == 1 || layer.taps == 9) && layer.in == previous && f[3] >= 0 && f[3] <= 3 &&
                       (f[3] == to_output) == last && layer.pad >= 0 && layer.pad <= 255 &&
                       is_within(layer.offset, 1 << 20);
    require(sound, "plan: no such layer");
    layer.weights = part(weights_, f[8], layer.out * layer.taps * layer.in);
    layer.bias = part(numbers_, f[9], 3 * layer.out);
    layer.factor = layer.bias + layer.out, layer.shift = layer.factor + layer.out;
    layer.table = last ? nullptr : part(tables_, f[10], 256);
    for (int i = 0; layer.table && i < 256; ++i) layer.is_clamp = (i == 0 || layer.is_clamp) && layer.table[i] == i;
    for (int64_t o = 0; o < layer.out; ++o) check_channel(layer, o);
    if (layer.mode == set_stream || layer.mode == add_stream) {
      check_rounding(layer.stream_factor, layer.stream_shift);
      require(net_.stream == 0 || net_.stream == layer.out, "plan: streams of different widths");
      require(net_.stream > 0 || layer.mode == set_stream, "plan: a stream is added to before it is set");
      net_.stream = layer.out;
    }
    net_.widest = std::max({net_.widest, layer.in, last ? 0 : layer.out});
    layers_.push_back(layer);
  }

  // Sums stay within 32 bits, whatever the activations.
  static void check_channel(const Layer& layer, int64_t o) {
    check_rounding(layer.factor[o], layer.shift[o]);
    int64_t least = layer.bias[o], most = layer.bias[o];
    const int8_t* w = layer.weights + o * layer.taps * layer.in;
    for (int64_t i = 0; i < layer.taps * layer.in; ++i) (w[i] < 0 ? least : most) += 255 * static_cast<int64_t>(w[i]);
    require(least >= least_sum && most <= most_sum, "plan: sums beyond 32 bits");
  }

  void pack(const NetworkKernels& kernels) {
    if (packed_for_ == &kernels) return;
    packed_.assign(layers_.size(), {});
    for (size_t i = 0; i < layers_.size(); ++i) {
      packed_[i].resize(kernels.packed_bytes(layers_[i]) + alignment);
      char* const place = aligned(packed_[i]);
      kernels.pack(layers_[i], place);
      layers_[i].packed = place;
    }
    packed_for_ = &kernels;
  }

  std::vector<int8_t> weights_;
  std::vector<int32_t> numbers_;
  std::vector<uint8_t> tables_;
  std::vector<Layer> layers_;
  std::vector<std::vector<char>> packed_;
  const NetworkKernels* packed_for_ = nullptr;
  std::mutex running_;
  Network net_{};
};

void set_integer_products(const std::string& name) {
  if (!choose_integer_products(name.c_str()))
    throw py::value_error("name: got '" + name + "', expected 'amx', 'vnni' or 'widened', and a processor that has it");
}

}  // namespace

void bind_network(py::module_& m) {
  py::class_<IntegerNetwork>(m, "IntegerNetwork", "A network of integers; see hybridkern.codec.")
      .def(py::init<const Array<int64_t>&, const Array<int8_t>&, const Array<int32_t>&, const Array<uint8_t>&>())
      .def("run", &IntegerNetwork::run);
  m.def("integer_products", &integer_products,
        "How products of 8-bit integers are computed: 'amx', 'vnni', or 'widened' to 16 bits.");
  m.def("set_integer_products", &set_integer_products, py::arg("name"), "Compute them otherwise; for tests.");
}

}  // namespace hk::codec
