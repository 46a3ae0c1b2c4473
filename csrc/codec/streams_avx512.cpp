// Streams side by side on x86-64 processors with AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

#define HK_ISA avx512
#define HK_LANES 16
#include "streams_impl.h"

namespace hk::codec {

const StreamKernels& avx512_streams() {
  static const StreamKernels table{HK_ISA::most_streams, &HK_ISA::decode, &HK_ISA::places_of};
  return table;
}

}  // namespace hk::codec

HK_TARGET_END
#endif
