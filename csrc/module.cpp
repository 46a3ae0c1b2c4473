// The Python module hybridkern._C: what was built, and which instruction set runs. Importing it loads the library,
// whose static initializers register the operators' CPU kernels with PyTorch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>

#include "codec/bind.h"
#include "coupling_network/network.h"
#include "cpu/kernels.h"

#define HK_TEXT(...) HK_TEXT_OF(__VA_ARGS__)
#define HK_TEXT_OF(...) #__VA_ARGS__

namespace {

std::map<std::string, std::string> build_info() {
  return {
#if defined(__clang__)
      {"compiler", std::string("clang ") + __clang_version__},
#else
      {"compiler", std::string("g++ ") + __VERSION__},
#endif
      {"stable_abi", "torch 2.10"},
#if defined(HK_CUDA_ARCHITECTURES)
      {"cuda_architectures", HK_TEXT(HK_CUDA_ARCHITECTURES)},
#else
      {"cuda_architectures", "none"},
#endif
#if defined(HK_CUDA_TOOLKIT)
      {"cuda_toolkit", HK_TEXT(HK_CUDA_TOOLKIT)},
#else
      {"cuda_toolkit", "none"},
#endif
#if defined(HK_AUTOGRAD_NODES)
      {"autograd_nodes", HK_TEXT(HK_AUTOGRAD_NODES)},
#else
      {"autograd_nodes", "none"},
#endif
#if defined(__x86_64__)
      {"architecture", "x86-64"},
      {"instruction_sets", "baseline avx2 avx512"},
#elif defined(__aarch64__)
      {"architecture", "aarch64"},
      {"instruction_sets", "baseline"},
#else
      {"architecture", "other"},
      {"instruction_sets", "baseline"},
#endif
  };
}

void set_instruction_set(const std::string& name) {
  if (!hk::choose_instruction_set(name.c_str()))
    throw pybind11::value_error("name: got '" + name +
                                "', expected 'baseline', 'avx2' or 'avx512', and a processor that has it");
}

void set_bf16_products(const std::string& name) {
  if (!hk::network::choose_bf16_products(name.c_str()))
    throw pybind11::value_error("name: got '" + name +
                                "', expected 'amx', 'avx512_bf16' or 'widened', and a processor that has it");
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled CPU kernels of hybridkern.";
  m.def("build_info", &build_info,
        "Compiler, stable ABI version, instruction sets, CUDA architectures, and the torch of the autograd nodes.");
  m.def("instruction_set", &hk::instruction_set, "Instruction set that the float32 kernels run on.");
  m.def("set_instruction_set", &set_instruction_set, pybind11::arg("name"),
        "Run on another instruction set of this processor; for tests.");
  m.def("bf16_products", &hk::network::bf16_products,
        "How bfloat16 matrix products are computed: 'amx', 'avx512_bf16', or 'widened' to float32.");
  hk::codec::bind_coder(m);
  hk::codec::bind_network(m);
  m.def("set_bf16_products", &set_bf16_products, pybind11::arg("name"), "Compute them otherwise; for tests.");
}
