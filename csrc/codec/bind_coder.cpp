// Streams of a batch, one an example, shared among threads. hybridkern/codec/coder.py checks what it passes on.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "bind.h"
#include "coder.h"
#include "streams.h"

namespace hk::codec {
namespace {

namespace py = pybind11;
template <class T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool holds, const char* message) {
  if (!holds) throw py::value_error(message);
}

Tables tables_of(const Array<int32_t>& tail, const Array<int64_t>& inverse, const Array<int32_t>& weight) {
  require(tail.size() == 24 * 64 + 2 && inverse.size() == 256 && weight.size() == 256, "tables: expected version 1");
  return {tail.data(), inverse.data(), weight.data()};
}

// (n, K, D) each, n the number of streams or 1.
class Parameters {
 public:
  Parameters(const Array<int32_t>& logits, const Array<int32_t>& means, const Array<int32_t>& scales, int64_t streams)
      : logits_(logits.data()), means_(means.data()), scales_(scales.data()) {
    require(means.ndim() == 3, "means: expected (n, K, D)");
    for (int d = 0; d < 3; ++d)
      require(logits.ndim() == 3 && scales.ndim() == 3 && logits.shape(d) == means.shape(d) &&
                  scales.shape(d) == means.shape(d),
              "logits, scales: expected the shape of means");
    require(means.shape(0) == streams || means.shape(0) == 1, "means: expected a row a stream, or one");
    components_ = means.shape(1), size_ = means.shape(2), shared_ = means.shape(0) != streams;
    require(components_ >= 1 && components_ <= most_components, "means: expected 1 to 32 components");
  }
  int64_t size() const { return size_; }
  Row row(int64_t i) const {
    const int64_t at = shared_ ? 0 : i * components_ * size_;
    return {logits_ + at, means_ + at, scales_ + at, components_, size_};
  }

 private:
  const int32_t *logits_, *means_, *scales_;
  int64_t components_, size_;
  bool shared_;
};

std::vector<py::bytes> encode_streams(const Array<int32_t>& values, const Array<uint32_t>& seeds,
                                      const Array<int32_t>& logits, const Array<int32_t>& means,
                                      const Array<int32_t>& scales, const Array<int32_t>& tail,
                                      const Array<int64_t>& inverse, const Array<int32_t>& weight) {
  require(values.ndim() == 2 && seeds.size() == values.shape(0), "values: expected (N, D), and N seeds");
  const WideTables tables(tables_of(tail, inverse, weight));
  const int64_t streams = values.shape(0), size = values.shape(1);
  const Parameters parameters(logits, means, scales, streams);
  require(parameters.size() == size, "means: expected the size of values");
  const int32_t* data = values.data();
  const uint32_t* seed = seeds.data();
  std::vector<std::vector<uint8_t>> found(streams);
  {
    const py::gil_scoped_release others;
    torch::stable::parallel_for(0, streams, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) encode(data + i * size, size, seed[i], parameters.row(i), tables, found[i]);
    });
  }
  std::vector<py::bytes> out;
  for (const auto& stream : found) out.emplace_back(reinterpret_cast<const char*>(stream.data()), stream.size());
  return out;
}

// Decoders of a batch of streams, whose bytes they keep.
class Decoders {
 public:
  explicit Decoders(std::vector<std::string> streams) : streams_(std::move(streams)) {
    for (const std::string& stream : streams_)
      cursors_.push_back(begin(reinterpret_cast<const uint8_t*>(stream.data()), stream.size()));
    sound_.assign(streams_.size(), 1);
  }

  Array<int32_t> pop(const Array<int32_t>& logits, const Array<int32_t>& means, const Array<int32_t>& scales,
                     const Array<int32_t>& tail, const Array<int64_t>& inverse, const Array<int32_t>& weight) {
    const WideTables tables(tables_of(tail, inverse, weight));
    const int64_t streams = streams_.size();
    const Parameters parameters(logits, means, scales, streams);
    const int64_t size = parameters.size();
    Array<int32_t> values({streams, parameters.size()});
    int32_t* data = values.mutable_data();
    std::fill_n(data, values.size(), 0);
    std::vector<Row> rows;
    for (int64_t i = 0; i < streams; ++i) rows.push_back(parameters.row(i));
    const py::gil_scoped_release others;
    const int64_t most = streams_at_once(), groups = (streams + most - 1) / most;
    torch::stable::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * most; i < std::min(end * most, streams); i += most)
        decode(&cursors_[i], &sound_[i], data + i * size, std::min(most, streams - i), size, &rows[i], tables);
    });
    return values;
  }

  // The seed of each stream, or -1 where not all of it was read.
  std::vector<int64_t> seeds() const {
    std::vector<int64_t> out;
    for (size_t i = 0; i < cursors_.size(); ++i) {
      const bool whole = sound_[i] && cursors_[i].next == cursors_[i].end && cursors_[i].state >> 32 == 0;
      out.push_back(whole ? static_cast<int64_t>(cursors_[i].state) : -1);
    }
    return out;
  }

 private:
  std::vector<std::string> streams_;
  std::vector<Cursor> cursors_;
  std::vector<char> sound_;
};

}  // namespace

void bind_coder(py::module_& m) {
  m.def("encode_streams", &encode_streams, "A stream of bytes for each row of integers; see hybridkern.codec.");
  py::class_<Decoders>(m, "StreamDecoders", "Decoders of streams; see hybridkern.codec.")
      .def(py::init<std::vector<std::string>>())
      .def("pop", &Decoders::pop)
      .def("seeds", &Decoders::seeds);
}

}  // namespace hk::codec
