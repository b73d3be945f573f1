// AVX-512 (F, BW, VL, DQ): vectors of sixteen lanes with masks. Included only where the compiler may use them.
#pragma once

#include <immintrin.h>

#include "vector.h"

namespace sepwise {
namespace {

struct Sixteen : Vector<16> {
  SEPWISE_INLINE __mmask16 lanes_below(int64_t count) { return (__mmask16)_bzhi_u32(0xffff, (unsigned)count); }
  SEPWISE_INLINE __mmask32 halves_below(int64_t count) { return _bzhi_u32(0xffffffff, (unsigned)count); }

  SEPWISE_INLINE F fill(float value) { return _mm512_set1_ps(value); }
  SEPWISE_INLINE F broadcast(const void* word) { return _mm512_set1_ps(*(const float*)word); }
  SEPWISE_INLINE void keep(F& v) { asm("" : "+v"(v)); }
  SEPWISE_INLINE F at_least(F v, F bound) { return _mm512_max_ps(bound, v); }
  SEPWISE_INLINE F at_most(F v, F bound) { return _mm512_min_ps(bound, v); }
  SEPWISE_INLINE F load_first(const void* p, int64_t count) { return _mm512_maskz_loadu_ps(lanes_below(count), p); }
  SEPWISE_INLINE void store_first(void* p, F v, int64_t count) { _mm512_mask_storeu_ps(p, lanes_below(count), v); }
  SEPWISE_INLINE void load_pairs_first(const void* p, int64_t count, F& even, F& odd) {
    split_pairs((U)_mm512_maskz_loadu_epi16(halves_below(count), p), even, odd);
  }
  SEPWISE_INLINE F load_bf16(const void* p) { return from_halves(_mm256_loadu_si256((const __m256i*)p)); }
  SEPWISE_INLINE F load_bf16_first(const void* p, int64_t count) {
    return from_halves(_mm256_maskz_loadu_epi16(lanes_below(count), p));
  }
  SEPWISE_INLINE F from_halves(__m256i halves) {
    return (F)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
  }
  SEPWISE_INLINE float total(F v) { return _mm512_reduce_add_ps(v); }
  SEPWISE_INLINE void store_bf16(void* p, F low, F high) {
    _mm256_storeu_si256((__m256i*)p, high_halves(low));
    _mm256_storeu_si256((__m256i*)p + 1, high_halves(high));
  }
  SEPWISE_INLINE __m256i high_halves(F v) {
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(round_to_bf16(v)), 16));
  }
  SEPWISE_INLINE void store_bf16_first(void* p, F low, F high, int64_t count) {
    uint16_t halves[32] __attribute__((aligned(64)));
    store_bf16(halves, low, high);
    _mm512_mask_storeu_epi16(p, halves_below(count), _mm512_load_si512(halves));
  }
};

}  // namespace
}  // namespace sepwise
