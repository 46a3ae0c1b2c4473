// Streams side by side on x86-64 processors with AVX2.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx2,fma")

#define HK_ISA avx2
#define HK_LANES 8
#include "streams_impl.h"

namespace hk::codec {

const StreamKernels& avx2_streams() {
  static const StreamKernels table{HK_ISA::most_streams, &HK_ISA::decode, &HK_ISA::places_of};
  return table;
}

}  // namespace hk::codec

HK_TARGET_END
#endif
