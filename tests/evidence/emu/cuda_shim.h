// Runs CUDA kernel bodies on the CPU: a fiber a thread of the block, switched at barriers and shuffles, in random
// order.
//
// Compile plainly, with -fsanitize=address,undefined (memory errors in global, shared and local memory), or with
// -fsanitize=thread: blocks are then host threads and fibers are known to the tool, so that two accesses without a
// barrier between them are a race, whatever the order in which they happened to run. The tool takes a fiber that gets
// the number of one that has ended, of a block before, for the same one; so races between blocks need
// -DHK_WHOLE_BLOCKS too, where it is shown blocks only. What hangs or is undefined on a GPU (divergent barriers,
// shuffles of absent lanes) ends in hk::shim::Error.
#pragma once
#include <ucontext.h>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#define HK_UNTRACED __attribute__((no_sanitize("thread"), noinline))
#else
#define HK_UNTRACED
#endif
#if defined(__SANITIZE_THREAD__) && !defined(HK_WHOLE_BLOCKS)
#define HK_TRACED_FIBERS
#endif
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#if defined(__SANITIZE_THREAD__)
#define __shared__ static thread_local  // fresh per block (one host thread per block)
#else
#define __shared__ static  // blocks run one after another; ASan keeps red zones around statics
#endif
struct hk_shim_uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
namespace hk::shim {
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
enum St { RUN, AT_BLOCK, AT_WARP, DONE };
struct Fiber {
  ucontext_t c;
  char* stk = nullptr;
  St st = RUN;
  int site = 0;
  unsigned mask = 0;
  void* tsan = nullptr;
  void* fake = nullptr;
  hk_shim_uint3 tid;
};
struct Block {
  std::vector<Fiber> f;
  ucontext_t sched;
  int cur = -1;
  void *tsan = nullptr, *fake = nullptr;
  const void* sb = nullptr;
  size_t ss = 0;
  std::vector<uint64_t> slot;
  std::vector<char> bar, wbar;
  std::unique_ptr<char[]> dyn;
  size_t ndyn = 0;
  std::function<void()> body;
  std::string err;
  std::mt19937 rng;
};
inline thread_local Block* B = nullptr;
inline thread_local hk_shim_uint3 bIdx;
inline thread_local dim3 bDim, gDim;
constexpr size_t STK = 64 * 1024;
// Stacks are used again by the next block.
inline char* stack_of(int thread) {
  thread_local std::vector<std::unique_ptr<char[]>> stacks;
  while (stacks.size() <= size_t(thread)) stacks.emplace_back(new char[STK]);
  return stacks[thread].get();
}
HK_UNTRACED inline void to_sched() {
  Fiber& f = B->f[B->cur];
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(f.st == DONE ? nullptr : &f.fake, B->sb, B->ss);
#endif
#if defined(HK_TRACED_FIBERS)
  __tsan_switch_to_fiber(B->tsan, 1 /*no happens-before*/);
#endif
  swapcontext(&f.c, &B->sched);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(f.fake, &B->sb, &B->ss);
#endif
}
HK_UNTRACED inline void entry() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &B->sb, &B->ss);
#endif
  B->body();
  B->f[B->cur].st = DONE;
#if defined(HK_TRACED_FIBERS)
  __tsan_release(&B->f);
#endif
  to_sched();
}
HK_UNTRACED inline void resume(int i) {
  Fiber& f = B->f[i];
  B->cur = i;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&B->fake, f.stk, STK);
#endif
#if defined(HK_TRACED_FIBERS)
  __tsan_switch_to_fiber(f.tsan, 1);
#endif
  swapcontext(&B->sched, &f.c);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(B->fake, nullptr, nullptr);
#endif
}
HK_UNTRACED inline void wait(St st, int site, unsigned mask) {
  Fiber& f = B->f[B->cur];
  f.st = st;
  f.site = site;
  f.mask = mask;
  to_sched();
}
// after every fiber has stopped: open the barriers that are complete; true if something became runnable
HK_UNTRACED inline bool open_barriers() {
  int n = (int)B->f.size(), live = 0, blk = 0, site = -1;
  bool mixed = false, any = false;
  for (auto& f : B->f) {
    live += f.st != DONE;
    if (f.st == AT_BLOCK) {
      ++blk;
      mixed |= site >= 0 && site != f.site;
      site = f.site;
    }
  }
  for (int w = 0; w * 32 < n; ++w)
    for (int l = 0; l < 32 && w * 32 + l < n; ++l) {
      Fiber& a = B->f[w * 32 + l];
      if (a.st != AT_WARP) continue;
      bool all = true;
      if (!(a.mask >> l & 1)) {
        B->err = "lane calls *_sync without being in its mask, line " + std::to_string(a.site);
        return false;
      }
      for (int k = 0; k < 32; ++k)
        if (a.mask >> k & 1) {
          int j = w * 32 + k;
          if (j >= n || B->f[j].st == DONE) {
            B->err = "warp op names an exited/absent lane, line " + std::to_string(a.site);
            return false;
          }
          Fiber& g = B->f[j];
          all &= g.st == AT_WARP && g.site == a.site && g.mask == a.mask;
        }
      if (all) {
        unsigned m = a.mask;
        for (int k = 0; k < 32; ++k)
          if (m >> k & 1) B->f[w * 32 + k].st = RUN;
        any = true;
      }
    }
  if (any) return true;
  if (blk && blk == live) {
    if (live != n) {
      B->err = "__syncthreads with exited threads, line " + std::to_string(site);
      return false;
    }
    if (mixed) {
      B->err = "__syncthreads at different call sites";
      return false;
    }
    for (auto& f : B->f) f.st = RUN;
    return true;
  }
  if (live)
    B->err = "deadlock: divergent barriers, " + std::to_string(blk) + " of " + std::to_string(n) +
             " threads at __syncthreads line " + std::to_string(site);
  return false;
}
HK_UNTRACED inline void run_block(Block& b, dim3 bd) {
  B = &b;
  int n = bd.x * bd.y * bd.z;
  b.f = std::vector<Fiber>(n);
  b.slot.assign((n + 31) / 32 * 32, 0);
  b.bar.resize(1);
  b.wbar.resize(n / 32 + 1);
  b.dyn.reset(new char[b.ndyn + 1]);
  memset(b.dyn.get(), 0xff, b.ndyn);  // NaN fill: uninitialised shared reads show up
#if defined(HK_TRACED_FIBERS)
  b.tsan = __tsan_get_current_fiber();
#endif
  for (int i = 0; i < n; ++i) {
    Fiber& f = b.f[i];
    f.stk = stack_of(i);
    f.tid = {i % bd.x, i / bd.x % bd.y, i / (bd.x * bd.y)};
    getcontext(&f.c);
    f.c.uc_stack.ss_sp = f.stk;
    f.c.uc_stack.ss_size = STK;
    f.c.uc_link = nullptr;
    makecontext(&f.c, (void (*)())entry, 0);
#if defined(HK_TRACED_FIBERS)
    f.tsan = __tsan_create_fiber(0);
#endif
  }
  std::vector<int> order(n);
  for (int i = 0; i < n; ++i) order[i] = i;
  for (;;) {
    std::shuffle(order.begin(), order.end(), b.rng);
    for (int i : order)
      if (b.f[i].st == RUN) resume(i);
    bool live = false;
    for (auto& f : b.f) live |= f.st != DONE;
    if (!live || !open_barriers()) break;
  }
#if defined(HK_TRACED_FIBERS)
  __tsan_acquire(&b.f);
  for (auto& f : b.f) __tsan_destroy_fiber(f.tsan);
#endif
}
template <class F>
HK_UNTRACED inline void launch(dim3 g, dim3 bd, size_t dyn, unsigned seed, F&& body) {
  std::vector<unsigned> order(g.x * g.y * g.z);
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  std::mt19937 r(seed);
  std::shuffle(order.begin(), order.end(), r);
  std::string err;
  auto one = [&](unsigned i) {
    bIdx = {i % g.x, i / g.x % g.y, i / (g.x * g.y)};
    bDim = bd;
    gDim = g;
    Block b;
    b.ndyn = dyn;
    b.body = body;
    b.rng.seed(seed * 7919u + i);
    run_block(b, bd);
    if (!b.err.empty() && err.empty()) err = b.err;
  };
#if defined(__SANITIZE_THREAD__)
  std::vector<std::thread> th;
  std::atomic<unsigned> turn{0};  // relaxed => no happens-before edge between blocks
  for (unsigned k = 0; k < order.size(); ++k)
    th.emplace_back([&, k] {
      while (turn.load(std::memory_order_relaxed) != k) std::this_thread::yield();
      one(order[k]);
      turn.store(k + 1, std::memory_order_relaxed);
    });
  for (auto& t : th) t.join();
#else
  for (unsigned i : order) one(i);
#endif
  if (!err.empty()) throw Error(err);
}
template <class T>
HK_UNTRACED inline T xchg(T v, int src, unsigned mask, int site) {  // shuffles give no memory ordering
  static_assert(sizeof(T) <= 8);
  uint64_t u = 0;
  memcpy(&u, &v, sizeof(T));
  int me = B->cur, w = me & ~31;
  B->slot[me] = u;
  wait(AT_WARP, site, mask);
  if (!(mask >> src & 1)) {
    B->err = "shuffle reads a lane outside the mask";
  }
  u = B->slot[w + src];
  wait(AT_WARP, site, mask);
  memcpy(&v, &u, sizeof(T));
  return v;
}
HK_UNTRACED inline void sync(St st, int site, unsigned mask) {
#if defined(HK_TRACED_FIBERS)
  char* b = st == AT_BLOCK ? &B->bar[0] : &B->wbar[B->cur / 32];
  __tsan_release(b);
  wait(st, site, mask);
  __tsan_acquire(b);
#else
  wait(st, site, mask);
#endif
}
inline int lane() { return B->cur & 31; }
}  // namespace hk::shim
#define threadIdx (hk::shim::B->f[hk::shim::B->cur].tid)
#define blockIdx hk::shim::bIdx
#define blockDim hk::shim::bDim
#define gridDim hk::shim::gDim
inline void __syncthreads(int site = __builtin_LINE()) { hk::shim::sync(hk::shim::AT_BLOCK, site, 0); }
inline void __syncwarp(unsigned m = ~0u, int site = __builtin_LINE()) { hk::shim::sync(hk::shim::AT_WARP, site, m); }
template <class T>
T __shfl_xor_sync(unsigned m, T v, int o, int w = 32, int s = __builtin_LINE()) {
  int l = hk::shim::lane(), t = l ^ o;
  return hk::shim::xchg(v, (t & ~(w - 1)) > (l & ~(w - 1)) ? l : t, m, s);
}
template <class T>
T __shfl_down_sync(unsigned m, T v, int o, int w = 32, int s = __builtin_LINE()) {
  int l = hk::shim::lane();
  return hk::shim::xchg(v, (l & (w - 1)) + o >= w ? l : l + o, m, s);
}
template <class T>
T __shfl_up_sync(unsigned m, T v, int o, int w = 32, int s = __builtin_LINE()) {
  int l = hk::shim::lane();
  return hk::shim::xchg(v, (l & (w - 1)) - o < 0 ? l : l - o, m, s);
}
template <class T>
T __shfl_sync(unsigned m, T v, int src, int w = 32, int s = __builtin_LINE()) {
  int l = hk::shim::lane();
  return hk::shim::xchg(v, (l & ~(w - 1)) | (src & (w - 1)), m, s);
}
namespace hk::shim {
inline unsigned long launches = 0;
inline unsigned seed() {
  static const char* fixed = std::getenv("HK_SHIM_SEED");
  return fixed ? unsigned(std::atoi(fixed)) : unsigned(launches);
}
template <class Body>
void launch(unsigned blocks, unsigned threads, Body&& body) {
  ++launches;
  launch(dim3(blocks), dim3(threads), 0, seed(), std::forward<Body>(body));
}
// Takes launches in place of the fibers: name of the kernel (at the end of `description`), grid, block, its argument.
using Launcher = void (*)(const char* description, unsigned blocks, unsigned threads, const void* argument, size_t size);
inline Launcher launcher = nullptr;
template <auto Kernel, class Argument>
void launch(unsigned blocks, unsigned threads, const Argument& argument) {
  if (!launcher) return launch(blocks, threads, [=] { Kernel(argument); });
  ++launches;
  launcher(__PRETTY_FUNCTION__, blocks, threads, &argument, sizeof(argument));
}
}  // namespace hk::shim
