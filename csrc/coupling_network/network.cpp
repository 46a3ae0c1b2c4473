// Division of the pixels, choice of the instruction set, memory and threads of the coupling networks.
#include "network.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <tuple>
#include <utility>

#include "../cpu/kernels.h"
#include "../cpu/tiles.h"

namespace hk::network {

Slices::Slices(int64_t batch_, int64_t height_, int64_t width_) : batch(batch_), height(height_), width(width_) {
  // At most 256 pixels, so that the matrices of a slice stay in the second-level cache; fewer where there would be
  // less than eight slices to share among threads. All are alike, as their blocks are computed whole.
  constexpr int64_t most = 256, wanted = 8;
  const int64_t one = 1, pixels = height * width, share = (batch * pixels + wanted - 1) / wanted;
  const int64_t target = std::clamp((share + side - 1) / side * side, side, most);
  const auto share_out = [one](int64_t of, int64_t most_each) {  // shares, and the most that one of them gets
    const int64_t shares = (of + most_each - 1) / most_each;
    return std::pair{shares, shares ? (of + shares - 1) / shares : one};
  };
  int64_t groups;
  std::tie(groups, examples) = share_out(batch, std::max(one, target / std::max(one, pixels)));
  std::tie(bands, rows) = share_out(height, std::max(one, target / std::max(one, width)));
  count = groups * bands;
  blocks = (examples * rows * width + side - 1) / side;
}

namespace {

const Kernels* best_bf16(const char* name) {
  const auto wanted = [name](const char* set) { return !name || !strcmp(name, set); };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const char* level = instruction_set();
  if (!strcmp(level, "avx512")) {
    const bool dot_products = __builtin_cpu_supports("avx512bf16");
    if (wanted("amx") && dot_products && has_tiles(TileProducts::bf16)) return &amx_kernels();
    if (wanted("avx512_bf16") && dot_products) return &avx512_bf16_kernels();
    return wanted("widened") ? &avx512_widened_kernels() : nullptr;
  }
  if (!strcmp(level, "avx2")) return wanted("widened") ? &avx2_bf16_kernels() : nullptr;
#endif
  return wanted("widened") ? &baseline_bf16_kernels() : nullptr;
}

std::atomic<const char*> chosen{nullptr};

}  // namespace

const Kernels& float_kernels() {
#if defined(__x86_64__)
  const char* level = instruction_set();
  if (!strcmp(level, "avx512")) return avx512_kernels();
  if (!strcmp(level, "avx2")) return avx2_kernels();
#endif
  return baseline_kernels();
}

const Kernels& bf16_kernels() {
  const Kernels* table = best_bf16(chosen.load(std::memory_order_relaxed));
  return table ? *table : *best_bf16(nullptr);
}

const char* bf16_products() {
  const char* name = bf16_kernels().name;
  return strcmp(name, "amx") && strcmp(name, "avx512_bf16") ? "widened" : name;
}

bool choose_bf16_products(const char* name) {
  for (const char* known : {"amx", "avx512_bf16", "widened"})
    if (!strcmp(name, known) && best_bf16(known)) {
      chosen.store(known, std::memory_order_relaxed);
      return true;
    }
  return false;
}

void parallel(int64_t units, void (*body)(void*, int64_t, int64_t), void* context) {
  torch::stable::parallel_for(0, units, 1, [&](int64_t begin, int64_t end) { body(context, begin, end); });
}

namespace {

constexpr size_t alignment = 64;

void* aligned(size_t bytes) {
  void* memory = std::aligned_alloc(alignment, (bytes + 2 * alignment) / alignment * alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

void* scratch(size_t bytes) {
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t size = 0;
  if (size < bytes) {
    memory.reset();
    size = 0;
    memory.reset(aligned(bytes));
    size = bytes;
  }
  return memory.get();
}

void* Buffer::allocate(size_t bytes) { return data_ = aligned(bytes); }
Buffer::~Buffer() { std::free(data_); }

}  // namespace hk::network
