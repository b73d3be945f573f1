// AVX2 and FMA: eight lanes. Every size and activation; owns all tails. bfloat16 is computed in float32.
#include <immintrin.h>

#include "engine.h"

namespace sepwise {
namespace {

struct Eight : Vector<8> {
  SEPWISE_INLINE F broadcast(const void* word) { return _mm256_broadcast_ss((const float*)word); }
  SEPWISE_INLINE void keep(F& v) { asm("" : "+x"(v)); }
  SEPWISE_INLINE F at_least(F v, F bound) { return _mm256_max_ps(bound, v); }
  SEPWISE_INLINE F at_most(F v, F bound) { return _mm256_min_ps(bound, v); }
  SEPWISE_INLINE __m256i lanes_below(int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  SEPWISE_INLINE F load_first(const void* p, int64_t count) {
    return _mm256_maskload_ps((const float*)p, lanes_below(count));
  }
  SEPWISE_INLINE void store_first(void* p, F v, int64_t count) {
    _mm256_maskstore_ps((float*)p, lanes_below(count), v);
  }
  SEPWISE_INLINE void store_bf16(void* p, F low, F high) {
    const __m256i a = _mm256_srli_epi32(_mm256_castps_si256(round_to_bf16(low)), 16);
    const __m256i b = _mm256_srli_epi32(_mm256_castps_si256(round_to_bf16(high)), 16);
    _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0b11011000));
  }
  SEPWISE_INLINE void store_bf16_first(void* p, F low, F high, int64_t count) {
    uint16_t halves[16] __attribute__((aligned(32)));
    store_bf16(halves, low, high);
    memcpy(p, halves, count * 2);
  }
};

struct FloatKernel : FloatProducts<Eight> {
  using V = Eight;
  using Input = FloatInput<V>;
  using Mid = FloatTile<V>;
  using Output = FloatOutput<V>;
  static constexpr int columns = 4, rows = 6;
};

struct Bf16Kernel : FloatProducts<Eight> {
  using V = Eight;
  using Input = Bf16Input<V>;
  using Mid = RoundedTile<V>;
  using Output = Bf16Output<V>;
  static constexpr int columns = 4, rows = 6;
};

}  // namespace

extern const Kernel f32_avx2 = kernel_of<FloatKernel>("f32_avx2", Isa::avx2, Type::float32, Precision::highest);
extern const Kernel bf16_avx2 = kernel_of<Bf16Kernel>("bf16_avx2", Isa::avx2, Type::bfloat16, Precision::highest);

}  // namespace sepwise
