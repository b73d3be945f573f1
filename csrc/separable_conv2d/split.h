// float32 numbers as sums of bfloat16 numbers, so that the matrix unit of bfloat16 multiplies float32.
//
//     x = h + m + l    h the bfloat16 number nearest to x, m the one nearest to x - h, l = x - h - m
//
// A float32 number has 24 significant bits and h takes 8 of them. What is left after it has at most 16, what is left
// after m at most 7: three parts hold x exactly. In two parts, the second is rounded: h + m is within 2^-16 |x| of x.
//
// What does not hold for all numbers:
//   - Parts below 2^-126 count as zero, in the matrix unit too. Three parts hold x exactly where |x| >= 2^-103 (1e-31),
//     as the last bit of such an x is 2^-126 or more; below, h + m + l is within 2^-126 of x. The bound of two parts
//     holds where |x| >= 2^-110.
//   - Above 3.3895e38 (0x7f7f8000) h is infinite, and so it is for infinities; h or l is NaN for NaN. The parts of such
//     a number add up to NaN whatever they are multiplied with: a sum that is not finite tells that it must be computed
//     in float32 instead (amx_engine.h).
#pragma once

#include "kernel.h"
#include "formats.h"
#include "pairs.h"

namespace sepwise {
namespace {

// A block of channels is always two vectors wide, whatever is left over.
struct SplitInput : FloatInput<SixteenPairs> {
  static constexpr bool keeps_order = false;
};

// For each 32 places PARTS vectors, first the h of all. Word i of a vector holds places i and 16 + i.
template <int PARTS>
struct SplitTile {
  static constexpr int bytes = 2 * PARTS;
  static constexpr bool is_bf16 = false;  // all parts together
  template <int VECTORS>
  SEPWISE_INLINE void store(char* p, const Sixteen::F* x) {
    static_assert(VECTORS == 2);
    __m512 low = x[0], high = x[1];
#pragma GCC unroll 3
    for (int part = 0; part < PARTS; part++) {
      __m512i low_bits, high_bits;
      if (part + 1 < PARTS) {
        // To the nearest, ties away from zero. NaN with all bits set becomes -0 here; its last part stays NaN.
        low_bits = _mm512_add_epi32(_mm512_castps_si512(low), _mm512_set1_epi32(0x8000));
        high_bits = _mm512_add_epi32(_mm512_castps_si512(high), _mm512_set1_epi32(0x8000));
      } else if (PARTS == 2) {
        // A quarter to a half of the last bit is added before the bits below are cut off. Unlike the sum of integers
        // above, this product keeps every NaN.
        low_bits = _mm512_castps_si512(_mm512_mul_ps(low, _mm512_set1_ps(1 + 0x1p-9f)));
        high_bits = _mm512_castps_si512(_mm512_mul_ps(high, _mm512_set1_ps(1 + 0x1p-9f)));
      } else {
        low_bits = _mm512_castps_si512(low);
        high_bits = _mm512_castps_si512(high);
      }
      const __m512i top = _mm512_set1_epi32(0xffff0000);
      constexpr int first_or_both = 0xf8;  // a | (b & c)
      _mm512_storeu_si512(p + 64 * part, _mm512_ternarylogic_epi32(_mm512_srli_epi32(low_bits, 16), high_bits, top,
                                                                   first_or_both));
      if (part + 1 < PARTS) {
        low = _mm512_sub_ps(low, _mm512_castsi512_ps(_mm512_and_si512(low_bits, top)));
        high = _mm512_sub_ps(high, _mm512_castsi512_ps(_mm512_and_si512(high_bits, top)));
      }
    }
  }
};

// The same of the weights: 16 words of each part, the parts of 32 places next to each other.
template <int PARTS>
struct SplitWeights {
  static void pack_number(float* panel, int64_t lanes, int64_t lane, int64_t place, float number) {
    const int64_t block = place / 32, word = place % 16, half = place % 32 / 16;
    for (int part = 0; part < PARTS; part++) {
      const uint16_t value = bf16_of(number);
      pack_half(panel, lanes, lane, (block * PARTS + part) * 16 + word, half, value);
      const uint32_t bits = (uint32_t)value << 16;
      float taken;
      memcpy(&taken, &bits, 4);
      number -= taken;
    }
  }
};

// Whether the parts of every number are finite.
inline bool can_split(const float* numbers, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, numbers + i, 4);
    if ((bits & 0x7fffffffu) >= 0x7f7f8000u) return false;
  }
  return true;
}

}  // namespace
}  // namespace sepwise
