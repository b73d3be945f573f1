// bfloat16 where the machine converts to it (AVX-512 BF16): sixteen lanes, a tile of pairs, weights packed as pairs.
#pragma once

#include "sixteen.h"

namespace sepwise {
namespace {

struct SixteenPairs : Sixteen {
  SEPWISE_INLINE void store_bf16(void* p, F low, F high) {
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
  SEPWISE_INLINE void store_bf16_first(void* p, F low, F high, int64_t count) {
    _mm512_mask_storeu_epi16(p, halves_below(count), (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
};

// The tile in bfloat16: neighbouring places form the words that a dot product takes.
struct PairTile {
  static constexpr int bytes = 2;
  static constexpr bool is_bf16 = true;
  template <int VECTORS>
  SEPWISE_INLINE void store(char* p, const Sixteen::F* x) {
    static_assert(VECTORS == 2);
    SixteenPairs::store_bf16(p, x[0], x[1]);
  }
  static constexpr int words = 2;
  SEPWISE_INLINE void load_word(const char* p, Sixteen::F* x) { Sixteen::load_pairs(p, x[0], x[1]); }
  SEPWISE_INLINE void store_word(char* p, const Sixteen::F* x) {
    const __m512i even = _mm512_srli_epi32((__m512i)Sixteen::round_to_bf16(x[0]), 16);
    _mm512_storeu_si512(p, _mm512_or_si512(even, (__m512i)Sixteen::round_to_bf16(x[1])));
  }
  SEPWISE_INLINE void store_in_order(char* p, Sixteen::F x) {
    _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x));
  }
};

// To the nearest, ties to even.
inline uint16_t bf16_of(float number) {
  uint32_t bits;
  memcpy(&bits, &number, 4);
  const bool is_nan = number != number;
  bits = is_nan ? bits | 0x00400000u : bits + 0x7fffu + (bits >> 16 & 1u);
  return (uint16_t)(bits >> 16);
}

// One half of the word of `lane`: words lie in rows of `lanes`.
inline void pack_half(float* panel, int64_t lanes, int64_t lane, int64_t word, int64_t half, uint16_t value) {
  memcpy((char*)panel + ((word * lanes + lane) * 2 + half) * 2, &value, 2);
}

struct PairWeights {
  static void pack_number(float* panel, int64_t lanes, int64_t lane, int64_t place, float number) {
    pack_half(panel, lanes, lane, place / 2, place % 2, bf16_of(number));
  }
};

}  // namespace
}  // namespace sepwise
